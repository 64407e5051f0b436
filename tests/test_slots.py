"""GPU slots: who takes which GPU, who waits, and what a killed holder leaves. Real processes and a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import OpenHouse

from recognition.errors import ConfigurationError
from recognition.events import Emit
from tasks.isolation import run_isolated
from tasks.slots import Gpu, _Lock, cuda_environment, gpu_slot, own_gpus, taken

HOLD = """
import sys, time
from prefect import flow
from prefect.runtime import flow_run
from tasks.slots import taken

@flow(name="hold")
def hold(devices: int):
    print(flow_run.id, flush=True)
    input()
    with taken(devices) as gpus:
        print(",".join(gpus), flush=True)
        time.sleep(600)

hold(int(sys.argv[1]))
"""


def visible(*, emit: Emit) -> tuple[str, str]:
    return os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOGNITION_GPUS", "0,1")
    monkeypatch.setenv("RECOGNITION_GPU_LOCKS", str(tmp_path / "locks"))


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_device_that_is_no_gpu_of_cuda_takes_no_slot_and_asks_no_server(device: str) -> None:
    with gpu_slot("no run", device, 4) as gpus:
        assert gpus == ()
    assert cuda_environment(()) == {}


def test_more_devices_than_the_worker_may_use_are_refused_by_the_settings_name(two_gpus: None) -> None:
    with pytest.raises(ConfigurationError, match=r"training\.devices: 3 GPUs are asked for, .* may use 2 \(0, 1\)"):
        taken(3).__enter__()


@pytest.mark.parametrize("said", ["one", "0;1", "-1", "0,"])
def test_gpus_that_are_no_numbers_are_refused_by_the_variables_name(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOGNITION_GPUS", said)
    with pytest.raises(ConfigurationError, match=r"RECOGNITION_GPUS=.* is no GPU of this machine"):
        own_gpus()


def test_a_narrower_cuda_visible_devices_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECOGNITION_GPUS", raising=False)
    monkeypatch.setattr("tasks.slots._listed_by_nvml", lambda: [Gpu("0", "GPU-aa11"), Gpu("1", "GPU-bb22")])
    assert [gpu.word for gpu in own_gpus()] == ["0", "1"]
    for said, words in {"1": ["1"], "GPU-aa": ["0"], "MIG-77": ["MIG-77"], "": []}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
        assert [gpu.word for gpu in own_gpus()] == words


def test_a_lock_is_one_holders_and_free_again_afterwards(two_gpus: None) -> None:
    gpu = own_gpus()[0]
    first, second = _Lock(gpu), _Lock(gpu)
    assert first.take()
    assert not second.take()
    first.give_back()
    assert second.take()
    second.give_back()


def test_a_lock_that_was_made_a_link_leads_to_no_other_file(two_gpus: None, tmp_path: Path) -> None:
    from recognition.errors import StorageError

    precious = tmp_path / "precious"
    precious.write_text("untouched")
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "gpu-0.lock").symlink_to(precious)
    with pytest.raises(StorageError, match="RECOGNITION_GPU_LOCKS"):
        _Lock(own_gpus()[0]).take()
    assert precious.read_text() == "untouched"


def test_a_stage_sees_only_the_gpus_of_its_slot() -> None:
    found = run_isolated("test_slots:visible", environment=cuda_environment(("1", "3")))
    assert found == ("1,3", "PCI_BUS_ID")


@contextmanager
def holding(house: OpenHouse, log: Path, locks: Path, devices: int = 1) -> Iterator[subprocess.Popen[str]]:
    """A flow run in a process of its own that takes GPUs and keeps them."""
    environment = house.environment() | {"RECOGNITION_GPUS": "0,1", "RECOGNITION_GPU_LOCKS": str(locks)}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    with log.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(devices)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def begin(process: subprocess.Popen[str]) -> str:
    """Let a holder ask for its GPUs, once it is that far; the id of its flow run."""
    run = line_of(process)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return run


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.server
def test_who_finds_the_gpus_taken_waits_says_so_and_gets_them_when_the_holder_is_killed(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    api, locks = open_house.api, tmp_path / "locks"

    def limit() -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(f"{api}/v2/concurrency_limits/gpu", timeout=30).json()
        return answer

    def state_of(run: str) -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(f"{api}/flow_runs/{run}", timeout=30).json()["state"]
        return answer

    def waits(run: str, what: str) -> None:
        deadline = time.monotonic() + 120
        while (state := state_of(run))["name"] != "WaitingForGPU":
            assert time.monotonic() < deadline, state
            time.sleep(0.2)
        assert state["type"] == "RUNNING"
        assert state["message"] == f"Waits for {what}."

    before = limit()["limit"]
    requests.delete(f"{api}/v2/concurrency_limits/gpu", timeout=30)
    with (
        holding(open_house, tmp_path / "first.log", locks, devices=2) as first,
        holding(open_house, tmp_path / "second.log", locks) as second,
        holding(open_house, tmp_path / "third.log", locks) as third,
        # another machine: its GPUs are free, and the team's limit is not
        holding(open_house, tmp_path / "fourth.log", tmp_path / "elsewhere") as fourth,
    ):
        begin(first)
        assert line_of(first) == "0,1"
        # the limit was missing
        assert (limit()["limit"], limit()["active_slots"]) == (2, 2)
        run = begin(second)
        waits(run, "a GPU of this machine (0, 1), taken by other runs")
        os.kill(first.pid, signal.SIGKILL)
        assert line_of(second) == "0"
        assert state_of(run)["name"] == "Running"
        # what the killed one held at the server was given back too, long before its lease ends
        assert limit()["active_slots"] == 1
        begin(third)
        assert line_of(third) == "1"
        run = begin(fourth)
        waits(run, "1 slot of Prefect's concurrency limit gpu, whose 2 are taken")
        third.send_signal(signal.SIGTERM)
        assert line_of(fourth) == "0"
    # what is left of those that this test has killed ends with the limit
    requests.delete(f"{api}/v2/concurrency_limits/gpu", timeout=30)
    requests.post(f"{api}/v2/concurrency_limits/", json={"name": "gpu", "limit": before}, timeout=30).raise_for_status()
