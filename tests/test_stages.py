"""Stages end in time, try again where that can help, and end with their run. A real Prefect server and worker."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from conftest import OpenHouse
from prefect import flow
from prefect.runtime import flow_run

from recognition import tracking
from recognition.errors import ConfigurationError, DownloadError, OutOfReachError, TimeLimitError
from recognition.events import Emit
from recognition.experiment import Experiment
from recognition.fetching import transfer
from recognition.fetching.downloads import fetch_archive
from recognition.progress import silent
from recognition.records import Located
from tasks import kept
from tasks.isolation import run_isolated
from tasks.limits import LIMITS, in_units, limits, within_limit
from tasks.reporting import failure_shown
from tasks.stage import stage


def loiter(path: Path, *, emit: Emit) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(600)


def greet(*, emit: Emit) -> None:
    pass


def run_out_of_memory(*, emit: Emit) -> None:
    raise RuntimeError("CUDA out of memory. Tried to allocate 9.00 GiB.\nGPU 0 has ...")


def break_down(*, emit: Emit) -> None:
    raise RuntimeError("sizes differ\nmore about it")


def test_limits_are_changed_by_stage_and_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOGNITION_TIME_LIMITS", "train=8h, download=1.5m,")
    assert limits() == LIMITS | {"train": 8 * 3600, "download": 90}
    assert [in_units(seconds) for seconds in (90, 3600, 7 * 86400, 0.5)] == ["90s", "1h", "7d", "0.5s"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("trian=8h", "RECOGNITION_TIME_LIMITS: there is no stage 'trian'; did you mean train?"),
        ("train=8", "RECOGNITION_TIME_LIMITS: 'train=8' gives no duration. Write a number and s, m, h or d"),
        ("train=0h", "gives no duration"),
        ("train", "gives no duration"),
        ("=", "there are preflight, download"),
    ],
)
def test_a_limit_that_cannot_be_read_is_refused_by_name(
    said: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECOGNITION_TIME_LIMITS", said)
    with pytest.raises(ConfigurationError) as refused, within_limit("train"):
        pass
    assert message in str(refused.value)


def test_a_timeout_of_something_else_is_not_taken_for_the_stages() -> None:
    with pytest.raises(TimeoutError, match="a socket's own"), within_limit("train"):
        raise TimeoutError("a socket's own")


def test_a_lack_of_memory_says_what_to_lower_and_a_defect_its_reason_first() -> None:
    with pytest.raises(ConfigurationError, match=r"^training\.batch_size: the memory of the GPU .*bf16\.$"):
        run_isolated("test_stages:run_out_of_memory")
    with pytest.raises(RuntimeError) as defect:
        run_isolated("test_stages:break_down")
    assert (
        str(defect.value).splitlines()[0]
        == "test_stages:break_down failed in its own process: RuntimeError: sizes differ"
    )
    assert "Traceback" in str(defect.value)


def task_states(house: OpenHouse, run: str) -> list[tuple[str, int, str]]:
    """Name of the state, attempts and message of each task run of a flow run, as the server holds them at the end."""
    deadline = time.monotonic() + 60
    while True:
        asked = {"flow_runs": {"id": {"any_": [run]}}}
        found = requests.post(f"{house.api}/task_runs/filter", json=asked, timeout=30).json()
        # they reach the server as events, a little later
        if found and all(one["state_type"] in {"COMPLETED", "FAILED"} for one in found):
            return [(one["state_name"], one["run_count"], one["state"]["message"] or "") for one in found]
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


@pytest.mark.server
def test_a_stage_that_hangs_is_ended_with_its_process_and_says_its_limit_and_how_to_change_it(
    in_open_house: OpenHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECOGNITION_TIME_LIMITS", "augment=4s")
    # torch is loaded before the time runs
    run_isolated("test_stages:greet")
    ids: dict[str, str] = {}

    @stage("augment")
    def hang(run_id: str) -> None:
        run_isolated("test_stages:loiter", tmp_path / "pid")

    @flow(name="hanging")
    def hanging() -> None:
        with tracking.tracked_run(Experiment(name="hanging"), {}) as run_id, failure_shown("hanging"):
            ids.update(run=run_id, flow=str(flow_run.id))
            hang(run_id)

    said = (
        "The stage augment was ended after 4s, its time limit. If it needs longer, start the worker (or the command) "
        "with RECOGNITION_TIME_LIMITS=augment=8s."
    )
    with pytest.raises(TimeLimitError) as over:
        hanging()
    assert str(over.value) == said
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    ((state, attempts, message),) = task_states(in_open_house, ids["flow"])
    assert (state, attempts) == ("TimedOut", 1)
    assert said in message
    ended = requests.get(f"{in_open_house.api}/flow_runs/{ids['flow']}", timeout=30).json()["state"]
    assert ended["type"] == "FAILED"
    assert said in ended["message"]
    only_this = {"flow_runs": {"id": {"any_": [ids["flow"]]}}}
    artifacts = requests.post(f"{in_open_house.api}/artifacts/filter", json=only_this, timeout=30).json()
    assert {found["key"]: said in found["data"] for found in artifacts} == {"what-went-wrong": True}
    run = tracking.find_run(ids["run"])
    assert run.info.status == "FAILED"
    assert said in run.data.tags["failure"]
    assert "seconds/augment" in run.data.metrics


@contextmanager
def serving(failures: int, status: int) -> Iterator[tuple[str, list[int]]]:
    """An address that answers so many GETs with a status, and then with a file; and what it answered."""
    answered: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answered.append(status if len(answered) < failures else 200)
            self.send_response(answered[-1])
            body = b"" if answered[-1] != 200 else b"whole"
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/pets.bin", answered
        server.shutdown()


@pytest.mark.server
@pytest.mark.parametrize(
    ("failures", "status", "checksum", "error", "attempts", "answers"),
    [
        pytest.param(2, 503, "", None, 1, 3, id="a short trouble is met by the transfer itself"),
        pytest.param(5, 503, "", None, 2, 6, id="a longer one by another attempt of the task"),
        pytest.param(99, 503, "", OutOfReachError, 3, 12, id="one that stays is given up"),
        pytest.param(99, 404, "", DownloadError, 1, 1, id="what is not there is not asked for again"),
        pytest.param(0, 200, "md5:" + "0" * 32, DownloadError, 1, 1, id="nor what has another checksum"),
    ],
)
def test_a_download_is_tried_again_on_a_worker_where_that_can_help(
    failures: int,
    status: int,
    checksum: str,
    error: type[Exception] | None,
    attempts: int,
    answers: int,
    in_open_house: OpenHouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(kept, "FIRST_WAIT", 0.1)
    monkeypatch.setattr(kept, "RETRIES", 2)
    # what Prefect tells a run of a deployment
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "c0ffee00-0000-0000-0000-000000000000")
    ids: list[str] = []

    def fetch(run_id: str, fresh: bool, address: str) -> Located:
        fetch_archive(address, checksum, tmp_path, silent)
        return Located(source=address, fingerprint="", images=1, classes=1)

    download = kept.kept_stage("download", lambda address: address, talks_to_hosts=True)(fetch)

    @flow(name="fetching")
    def fetching(address: str) -> None:
        ids.append(str(flow_run.id))
        with tracking.tracked_run(Experiment(name="fetching"), {}) as run_id:
            download(run_id, False, address)

    with serving(failures, status) as (address, answered):
        if error is None:
            fetching(address)
        else:
            with pytest.raises(error) as failed:
                fetching(address)
            assert type(failed.value) is error
    assert len(answered) == answers
    ((_, tried, _),) = task_states(in_open_house, ids[0])
    assert tried == attempts


@pytest.mark.server
def test_cancelling_a_run_of_a_worker_ends_it_as_killed_and_leaves_no_process(open_house: OpenHouse) -> None:
    before = of_state(open_house.house.state)
    asked = {"name": "cancelled", "training": {"epochs": 1000}, "registration": {"enabled": False}}
    triggered = open_house.trigger("train/train", asked)["id"]
    address = f"{open_house.api}/flow_runs/{triggered}"

    def mlflow_run() -> dict[str, Any] | None:
        search = {"experiment_ids": ["1"], "filter": f"tags.`prefect.flow_run_id` = '{triggered}'"}
        answer = requests.post(f"{open_house.mlflow}/api/2.0/mlflow/runs/search", json=search, timeout=30).json()
        runs: list[dict[str, Any]] = answer.get("runs", [])
        return runs[0] if runs else None

    def wait_for(what: str, found: Any) -> None:
        deadline = time.monotonic() + 240
        while not found():
            assert time.monotonic() < deadline, f"{what}: {requests.get(address, timeout=30).json()['state']}"
            time.sleep(0.5)

    def trains() -> bool:
        run = mlflow_run()
        return run is not None and any(metric["key"] == "val/loss" for metric in run["data"].get("metrics", []))

    wait_for("no epoch was logged", trains)
    cancel = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    wait_for("it cannot be cancelled", lambda: requests.post(f"{address}/set_state", json=cancel, timeout=30).ok)
    began = time.monotonic()
    wait_for("it is not cancelled", lambda: requests.get(address, timeout=30).json()["state_type"] == "CANCELLED")
    print(f"cancelled after {time.monotonic() - began:.1f} s")
    run = mlflow_run()
    assert run is not None
    assert run["info"]["status"] == "KILLED"
    assert of_state(open_house.house.state) <= before


def of_state(folder: Path) -> set[int]:
    """The processes that were started with a state folder."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("RECOGNITION_HOME") == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
        except psutil.Error:
            continue
    return found
