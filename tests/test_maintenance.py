"""Runs that nobody ended: which are ended, as what, and by whom."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from recognition import tracking
from recognition.experiment import Experiment
from recognition.left_behind import (
    CREATED,
    HOST,
    PROCESS,
    Ending,
    FlowState,
    UnendedRun,
    ending_of,
    is_gone,
    this_process,
)  # fmt: skip

RUN = UnendedRun(run_id="1f", name="digits", started=1000.0, flow_run_id="2e")


def test_a_process_that_lives_is_not_gone() -> None:
    assert is_gone(this_process()) is False


def test_a_process_that_has_ended_is_gone_also_when_its_number_is_used_again() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    ended = {HOST: platform.node(), PROCESS: str(process.pid), CREATED: "1000.00"}
    assert is_gone(ended) is True
    assert is_gone(ended | {PROCESS: str(os.getpid())}) is True


def test_a_killed_process_that_nobody_has_waited_for_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    created = psutil.Process(process.pid).create_time()
    tags = {HOST: platform.node(), PROCESS: str(process.pid), CREATED: f"{created:.2f}"}
    assert is_gone(tags) is False
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(tags) is True
    process.communicate()


@pytest.mark.parametrize("change", [{HOST: "another"}, {HOST: "localhost"}, {HOST: ""}, {PROCESS: "x"}, {CREATED: ""}])
def test_nothing_is_said_of_a_process_that_cannot_be_looked_at(change: dict[str, str]) -> None:
    assert is_gone(this_process() | change) is None
    assert is_gone({}) is None


@pytest.mark.parametrize(
    ("state", "gone", "status", "crashed"),
    [
        ("failed", True, "FAILED", ""),
        ("failed", None, "FAILED", ""),
        ("crashed", None, "FAILED", ""),
        ("cancelled", None, "KILLED", ""),
        ("completed", None, "FINISHED", ""),
        ("active", True, "FAILED", "2e"),
        ("unknown", True, "FAILED", ""),
        ("active", None, None, ""),
        ("unknown", None, None, ""),
        # what lives ends its run itself
        ("failed", False, None, ""),
        ("cancelled", False, None, ""),
        ("active", False, None, ""),
    ],
)
def test_how_a_run_is_ended(state: FlowState, gone: bool | None, status: str | None, crashed: str) -> None:
    ending = ending_of(RUN, state, 999.0, gone)
    assert (ending.status if ending else None) == status
    assert (ending.crash_flow_run if ending else "") == crashed


def test_a_prefect_run_that_is_at_another_attempt_goes_on() -> None:
    ending = ending_of(RUN, "active", 1001.0, True)
    assert ending is not None
    assert ending.status == "FAILED"
    assert not ending.crash_flow_run


def test_an_open_run_says_which_process_writes_it_and_is_ended_with_the_reason(state: Path) -> None:
    with tracking.tracked_run(Experiment(name="open"), {"prefect.flow_run_id": "2e"}) as run_id:
        (found,) = tracking.unended_runs()
        assert (found.run_id, found.name, found.flow_run_id) == (run_id, "open", "2e")
        assert is_gone(found.tags) is False
        ending = Ending(run_id=run_id, name="open", status="KILLED", reason="its Prefect run was cancelled")
        assert tracking.end_left_behind(ending)
        run = tracking.find_run(run_id)
        assert run.info.status == "KILLED"
        assert run.data.tags["left_behind"] == "its Prefect run was cancelled"
        # somebody else was faster
        assert not tracking.end_left_behind(ending)
    assert not tracking.unended_runs()
