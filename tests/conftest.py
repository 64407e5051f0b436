"""Fixtures: a state folder of its own for each test, and one real run of the main job for all that look at it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recognition.settings import prepare_environment

if TYPE_CHECKING:
    from team_servers import Team

# before any library that reads the environment is imported
for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "RECOGNITION_HOME"):
    os.environ.pop(name, None)
prepare_environment()

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
BIN = Path(sys.executable).parent


SHARED = ("open_house", "team", "trained", "house")
"""Fixtures that take long to make, what takes longest first."""


def _group(item: pytest.Item) -> str:
    wanted = getattr(item, "fixturenames", ())
    found = next((name for name in SHARED if name in wanted), item.path.name)
    # a house is there to train in
    return "trained" if found == "house" else found


def pytest_itemcollected(item: pytest.Item) -> None:
    """Where tests run in several processes: those that share something that takes long to make in one of them, others
    file by file."""
    item.add_marker(pytest.mark.xdist_group(_group(item)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first."""
    items.sort(key=lambda item: [*SHARED, _group(item)].index(_group(item)))


@pytest.fixture(scope="session", autouse=True)
def no_state_in_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A state folder for tests that do not ask for one of their own."""
    os.environ["RECOGNITION_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    del os.environ["RECOGNITION_HOME"]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state folder."""
    folder = tmp_path / "state"
    monkeypatch.setenv("RECOGNITION_HOME", str(folder))
    return folder


@dataclass(frozen=True)
class House:
    """A state folder, the empty folder commands are run in, and the environment they run with."""

    state: Path
    work: Path
    user: Path
    patience: int = 400
    """Seconds that a command may take."""

    def environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
        return inherited | {
            "RECOGNITION_HOME": str(self.state),
            "HOME": str(self.user),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "NO_COLOR": "1",
            # wide enough for any line, so that rich wraps none
            "COLUMNS": "250",
        }

    def start(self, *words: str, **extra: str) -> subprocess.Popen[str]:
        """Start ``recognition`` with these words."""
        return subprocess.Popen(
            [str(BIN / "recognition"), *words],
            cwd=self.work,
            env=self.environment() | extra,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            # a shell's background jobs ignore Ctrl-C, and hand that on
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run ``recognition`` with these words to its end."""
        process = self.start(*words, **extra)
        try:
            out, err = process.communicate(timeout=self.patience)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *words: str, **extra: str) -> dict[str, Any]:
        """Run a command with ``--json`` and read its only line."""
        done = self.run(*words, "--json", **extra)
        assert done.returncode == 0, done.stderr
        content: dict[str, Any] = json.loads(done.stdout)
        return content


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A state folder that the tests of the main job share."""
    base = tmp_path_factory.mktemp("house")
    for name in ("work", "user"):
        (base / name).mkdir()
    return House(base / "state", base / "work", base / "user")


@pytest.fixture(scope="session")
def trained(house: House) -> dict[str, Any]:
    """The result of the main job, two epochs of it, run once by the command line with a real Prefect server."""
    return house.json("train", str(ROOT / "experiments" / "digits_cnn.yaml"), "training.epochs=2")


@pytest.fixture
def in_house(house: House, trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The shared state folder as this process's own, with the main job's result in it."""
    monkeypatch.setenv("RECOGNITION_HOME", str(house.state))
    return trained


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of a real S3 server on this machine, for object storage."""
    for name in ("boto3", "s3fs", "moto"):
        pytest.importorskip(name, reason="needs the extra s3 and moto")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str) -> Iterator[Team]:
    """A team's servers on this machine, with two workers, shared by the tests of docs/team.md and of secrets."""
    from team_servers import team_house

    with team_house(tmp_path_factory.mktemp("team"), s3_endpoint) as found:
        yield found


@pytest.fixture(scope="session")
def team_runs(team: Team) -> list[dict[str, Any]]:
    """Two trainings that the team's two workers took, as Prefect tells of them."""
    from team_servers import two_trainings

    return two_trainings(team)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(words: list[str], url: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    """A server in a process of its own, from when ``url`` answers until the block ends."""
    import requests

    with log.open("w") as out:
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while True:
            assert process.poll() is None, f"{words} ended:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"{words} does not answer:\n{log.read_text()[-3000:]}"
            try:
                if requests.get(url, timeout=5).ok:
                    break
            except requests.RequestException:
                time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True)
class OpenHouse:
    """A running ``recognition up``, and the house whose commands find it by their state folder."""

    house: House
    prefect: str
    mlflow: str
    process: subprocess.Popen[str]

    @property
    def api(self) -> str:
        return f"{self.prefect}/api"

    @property
    def images(self) -> Path:
        """The folder that its worker may read images from."""
        return self.house.state.parent / "images"

    def trigger(self, deployment: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """A flow run of ``flow/deployment``, created through Prefect's API as its pages do."""
        import requests

        found = requests.get(f"{self.api}/deployments/name/{deployment}", timeout=30).json()
        for _ in range(20):
            answer = requests.post(
                f"{self.api}/deployments/{found['id']}/create_flow_run", json={"parameters": parameters}, timeout=30
            )
            # SQLite has a single writer: Prefect's client asks a busy server again, too
            if answer.status_code != 503:
                break
            time.sleep(1)
        assert answer.ok, answer.text
        run: dict[str, Any] = answer.json()
        return run

    def ended(self, *runs: dict[str, Any]) -> list[dict[str, Any]]:
        """The same flow runs, when all of them have ended."""
        import requests

        deadline = time.monotonic() + 300
        while True:
            now = [requests.get(f"{self.api}/flow_runs/{run['id']}", timeout=30).json() for run in runs]
            if all(run["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} for run in now):
                return now
            assert time.monotonic() < deadline, now
            time.sleep(0.5)

    def environment(self) -> dict[str, str]:
        """For programs that talk to its servers without ``recognition``."""
        return self.house.environment() | {"PREFECT_API_URL": self.api, "MLFLOW_TRACKING_URI": self.mlflow}


@pytest.fixture(scope="session")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenHouse]:
    """`recognition up` on free ports, shared by the tests of triggers, forms, schedules and automations."""
    base = tmp_path_factory.mktemp("open_house")
    for name in ("work", "user", "images"):
        (base / name).mkdir()
    house = House(base / "state", base / "work", base / "user")
    with opened(house, RECOGNITION_ALLOWED_ROOTS=str(base / "images")) as found:
        yield found


@pytest.fixture
def in_open_house(open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenHouse]:
    """The running house's servers and state folder as this process's own."""
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

    monkeypatch.setenv("RECOGNITION_HOME", str(open_house.house.state))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", open_house.mlflow)
    with temporary_settings({PREFECT_API_URL: open_house.api, PREFECT_UI_URL: f"{open_house.prefect}/v2"}):
        yield open_house


@contextmanager
def opened(house: House, **extra: str) -> Iterator[OpenHouse]:
    """`recognition up` in a house, from when it has said its addresses until it has ended after Ctrl-C."""
    prefect, mlflow = free_port(), free_port()
    process = house.start("up", "--prefect-port", str(prefect), "--mlflow-port", str(mlflow), **extra)
    try:
        deadline = time.monotonic() + 240
        while not (house.state / "house.json").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "recognition up does not come up"
            time.sleep(0.2)
        yield OpenHouse(house, f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}", process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
