"""One command for the house: it comes up whole, is found, refuses what it cannot have, and leaves nothing running."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from conftest import House, OpenHouse, free_port, opened

from flows.house.addresses import Addresses, address_file, join_house, running_house, write_addresses

pytestmark = pytest.mark.server
ENOUGH_SECONDS = 240


def processes_of(house: House) -> list[psutil.Process]:
    """Everything that runs on a state folder, wherever it stands in the tree of processes."""
    found = []
    for process in psutil.process_iter():
        try:
            inside = process.environ().get("RECOGNITION_HOME") == str(house.state)
            if inside and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(what: str, happened: Callable[[], Any]) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + ENOUGH_SECONDS
    while not (answer := happened()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return answer


def part(house: House, *words: str) -> psutil.Process | None:
    """The first process whose command line holds these words."""
    for process in processes_of(house):
        try:
            if all(word in " ".join(process.cmdline()) for word in words):
                return process
        except psutil.Error:
            continue
    return None


@pytest.fixture
def new_house(tmp_path: Path) -> House:
    for name in ("work", "user"):
        (tmp_path / name).mkdir()
    return House(tmp_path / "state", tmp_path / "work", tmp_path / "user")


def test_everything_answers_and_commands_find_it(open_house: OpenHouse) -> None:
    done = open_house.house.run("up", "--check", "--json")
    checks = json.loads(done.stdout)["checks"]
    # other tests may leave deployments for pools that have no worker here
    found = {check["name"]: check for check in checks if check["name"] != "worker"}
    assert list(found) == ["prefect", "mlflow", "deployments", "gpu queue"]
    assert all(check["ok"] for check in found.values()), found
    (worker,) = [check for check in checks if check["text"].startswith("work pool local: house-")]
    assert worker["ok"]
    doctor = {check["name"]: check["text"] for check in open_house.house.json("doctor")["checks"]}
    assert doctor["prefect"].startswith(f"{open_house.api} answers, version 3.")
    assert doctor["mlflow"].startswith(f"{open_house.mlflow} answers, version 3.")


def test_its_address_file_is_for_its_owner_alone(open_house: OpenHouse) -> None:
    file = open_house.house.state / "house.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Addresses.model_validate_json(file.read_bytes()).pid == open_house.process.pid


def test_a_second_house_in_its_folder_is_refused_with_its_addresses(open_house: OpenHouse) -> None:
    done = open_house.house.run("up", "--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
    assert done.returncode == 2
    assert open_house.prefect in done.stderr
    assert open_house.mlflow in done.stderr
    assert "Traceback" not in done.stderr


def test_busy_ports_are_refused_by_name_before_anything_starts(open_house: OpenHouse, new_house: House) -> None:
    busy = open_house.prefect.rsplit(":", 1)[1]
    done = new_house.run("up", "--prefect-port", busy, "--mlflow-port", str(free_port()))
    assert done.returncode == 2
    assert f"--prefect-port: {busy} is in use by prefect (process " in done.stderr
    both = new_house.run("up", "--prefect-port", busy, "--mlflow-port", busy)
    assert both.returncode == 2
    assert "each server needs one of its own" in both.stderr
    assert not (new_house.state / "logs").exists()


def test_a_folder_that_cannot_be_written_is_refused(new_house: House, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    done = new_house.run("up", RECOGNITION_HOME=str(tmp_path / "a file" / "state"))
    assert done.returncode == 2
    assert "RECOGNITION_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_its_connections_stay_on_this_machine(open_house: OpenHouse) -> None:
    seen = 0
    for process in processes_of(open_house.house):
        for connection in process.net_connections("inet"):
            for address in filter(None, (connection.laddr, connection.raddr)):
                seen += 1
                assert ipaddress.ip_address(address.ip).is_loopback, (process.cmdline(), connection)
    assert seen


def test_pages_may_call_their_own_server_only(open_house: OpenHouse) -> None:
    settings = requests.get(f"{open_house.api}/admin/settings", timeout=60).json()
    assert settings["server"]["analytics_enabled"] is False
    for version in ("", "v2/"):
        page = requests.get(f"{open_house.prefect}/{version}", headers={"Accept": "text/html"}, timeout=60).text
        assert page.count("Content-Security-Policy") == 1
        assert f"connect-src 'self' {open_house.prefect} {open_house.prefect.replace('http', 'ws')};" in page
    telemetry = requests.get(f"{open_house.mlflow}/ajax-api/3.0/mlflow/ui-telemetry", timeout=60).json()
    assert telemetry["disable_ui_telemetry"] is True


def _forget(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Remove variables for the length of a test, also what it sets of them."""
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_file_of_a_house_that_is_gone_is_ignored(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _forget(monkeypatch, "PREFECT_API_URL", "MLFLOW_TRACKING_URI", "NO_PROXY", "no_proxy")
    ended = subprocess.Popen(["true"])
    ended.wait()
    here = psutil.Process()
    for pid, created in ((ended.pid, time.time()), (here.pid, here.create_time() - 3600)):
        write_addresses(Addresses(prefect="http://p", api="http://p/api", mlflow="http://m", pid=pid, created=created))
        assert join_house() is None
        assert "PREFECT_API_URL" not in os.environ
    address_file().write_text("{")
    assert running_house() is None


def test_servers_that_the_environment_names_come_first(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = psutil.Process()
    found = Addresses(
        prefect="http://p", api="http://p/api", mlflow="http://m", pid=here.pid, created=here.create_time()
    )
    write_addresses(found)
    _forget(monkeypatch, "MLFLOW_TRACKING_URI", "NO_PROXY", "no_proxy")
    monkeypatch.setenv("PREFECT_API_URL", "http://team/api")
    assert join_house() == found
    assert os.environ["PREFECT_API_URL"] == "http://team/api"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://m"
    assert os.environ["NO_PROXY"] == "127.0.0.1,localhost"


def test_it_shows_earlier_runs_mends_its_worker_and_ends_runs_truthfully(house: House, trained: dict[str, Any]) -> None:
    with opened(house) as running:
        _shows(running, trained["run_id"])
        worker = part(house, "worker start")
        assert worker is not None
        worker.kill()
        wait_for("a new worker", lambda: (again := part(house, "worker start")) and again.pid != worker.pid)

        deployment = requests.get(f"{running.api}/deployments/name/train/train", timeout=60).json()["id"]
        body = {"parameters": {"training": {"epochs": 5000}}}
        url = f"{running.api}/deployments/{deployment}/create_flow_run"
        run = requests.post(url, json=body, timeout=60).json()["id"]
        wait_for("a training", lambda: "epoch 1/5000" in (house.state / "logs" / "worker.log").read_text())
        running.process.send_signal(signal.SIGINT)
        _, said = running.process.communicate(timeout=ENOUGH_SECONDS)
    assert running.process.returncode == 130
    assert "it is started again (1 of 3)" in said
    assert "Traceback" not in said
    assert not processes_of(house)
    assert not (house.state / "house.json").exists()
    rows = _ask(house.state / "prefect" / "prefect.db", "select state_type from flow_run where id = ?", run)
    assert rows == [("CRASHED",)]
    by_tag = "select status from runs join tags using (run_uuid) where key = 'prefect.flow_run_id' and value = ?"
    assert _ask(house.state / "mlflow.db", by_tag, run) == [("KILLED",)]


def _shows(running: OpenHouse, run_id: str) -> None:
    """The page of a run that was made without a server, and a file of it, as MLflow's server gives them."""
    run = requests.get(f"{running.mlflow}/api/2.0/mlflow/runs/get", {"run_id": run_id}, timeout=60).json()["run"]
    assert run["info"]["status"] == "FINISHED"
    wanted = {"run_uuid": run_id, "path": "experiment.yaml"}
    assert "digits" in requests.get(f"{running.mlflow}/get-artifact", wanted, timeout=60).text


def _ask(database: Path, question: str, value: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(database) as connection:
        return connection.execute(question, (value,)).fetchall()


def _starting(house: House) -> subprocess.Popen[str]:
    """A house from when both servers' processes are there."""
    process = house.start("up", "--prefect-port", str(free_port()), "--mlflow-port", str(free_port()), "--json")
    wait_for("both servers", lambda: part(house, "server start") and part(house, "mlflow", "server"))
    return process


def test_ctrl_c_twice_while_it_starts_leaves_nothing(new_house: House) -> None:
    process = _starting(new_house)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=ENOUGH_SECONDS)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert out == ""
    assert not processes_of(new_house)


def test_kill_leaves_nothing(new_house: House) -> None:
    process = _starting(new_house)
    process.kill()
    process.communicate()
    wait_for("the end of its parts", lambda: not processes_of(new_house))


def test_a_part_that_dies_ends_the_house_with_its_log(new_house: House) -> None:
    process = _starting(new_house)
    server = part(new_house, "server start")
    assert server is not None
    server.kill()
    _, said = process.communicate(timeout=ENOUGH_SECONDS)
    assert process.returncode == 2
    assert f"prefect ended with code {-signal.SIGKILL}" in said
    assert str(new_house.state / "logs" / "prefect.log") in said
    assert "Traceback" not in said
    assert not processes_of(new_house)
