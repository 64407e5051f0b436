"""The whole house on one machine: a Prefect server, an MLflow server over the same store, deployments and a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import requests

from flows.addresses import Addresses, address_file
from recognition.errors import TrackingError
from recognition.settings import home

SECONDS_TO_ANSWER = 240.0
SECONDS_TO_END = 20.0
POOL = "local"


def up(prefect_port: int, mlflow_port: int, say: Callable[[str], None]) -> None:
    """Start everything, say where it answers, and stop it all when this process is interrupted.

    Raises:
        TrackingError: a part ended or does not answer; the message holds the end of its log.
    """
    process = psutil.Process()
    addresses = Addresses(
        prefect=f"http://127.0.0.1:{prefect_port}",
        mlflow=f"http://127.0.0.1:{mlflow_port}",
        pid=process.pid,
        created=process.create_time(),
    )
    environment = _environment(addresses, prefect_port)
    with ExitStack() as parts:
        servers = {
            "prefect": parts.enter_context(_part("prefect", _prefect(prefect_port), environment)),
            "mlflow": parts.enter_context(_part("mlflow", _mlflow(mlflow_port), environment)),
        }
        _wait(servers["prefect"], "prefect", f"{addresses.api}/health")
        _wait(servers["mlflow"], "mlflow", f"{addresses.mlflow}/health")
        os.environ.update({name: environment[name] for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")})
        from flows.deploying import deploy

        deploy([])
        servers["worker"] = parts.enter_context(_part("worker", _worker(), environment))
        address_file().write_text(addresses.model_dump_json(), encoding="utf-8")
        parts.callback(address_file().unlink, missing_ok=True)
        say(f"prefect  {addresses.prefect}")
        say(f"mlflow   {addresses.mlflow}")
        say(f"logs     {home() / 'logs'}")
        while all(part.poll() is None for part in servers.values()):
            time.sleep(0.5)
        name = next(name for name, part in servers.items() if part.poll() is not None)
        raise TrackingError(f"{name} ended.\n{_log(name).read_text()[-2000:]}")


def _environment(addresses: Addresses, prefect_port: int) -> dict[str, str]:
    return os.environ | {
        "PREFECT_API_URL": addresses.api,
        "PREFECT_UI_URL": addresses.prefect,
        "PREFECT_SERVER_API_PORT": str(prefect_port),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "MLFLOW_TRACKING_URI": addresses.mlflow,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _prefect(port: int) -> list[str]:
    return [_program("prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]


def _mlflow(port: int) -> list[str]:
    words = [_program("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{home() / 'mlflow.db'}"]
    # as commands without a server keep them, so that both see the same files
    return [*words, "--default-artifact-root", (home() / "artifacts").as_uri(), "--no-serve-artifacts"]


def _worker() -> list[str]:
    return [_program("prefect"), "worker", "start", "--pool", POOL, "--type", "process", "--limit", "2"]


def _log(name: str) -> Path:
    folder = home() / "logs"
    folder.mkdir(exist_ok=True)
    return folder / f"{name}.log"


@contextmanager
def _part(name: str, words: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A part of the house in a session of its own, until the block ends."""
    with _log(name).open("wb") as log:
        part = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield part
    finally:
        part.terminate()
        try:
            part.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            os.killpg(part.pid, signal.SIGKILL)
            part.wait()


def _wait(part: subprocess.Popen[bytes], name: str, url: str) -> None:
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    while time.monotonic() < deadline and part.poll() is None:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise TrackingError(f"{name} does not answer at {url}.\n{_log(name).read_text()[-2000:]}")
