"""Runs that nobody ended: what is known of their processes, and how each of them is to be ended truthfully."""

from __future__ import annotations

import os
import platform
from typing import Literal

import psutil
from pydantic import Field

from recognition.records import Record

HOST, PROCESS, CREATED = "process.host", "process.id", "process.created"
"""Tags of a run: the process that writes it."""
SECONDS_OF_CLOCK_DRIFT = 2.0
"""A process's time of creation is computed from the time of booting, which moves when the clock is set."""
NOT_A_NAME = ("", "localhost")
"""Host names that many machines have."""

FlowState = Literal["active", "completed", "failed", "crashed", "cancelled", "unknown"]
"""Of the Prefect run: not ended yet, ended as told, or not known to this server (or not readable now)."""


Status = Literal["FINISHED", "FAILED", "KILLED"]


class UnendedRun(Record):
    """An MLflow run that says it is running."""

    run_id: str
    name: str
    started: float
    """Seconds since 1970."""
    flow_run_id: str = ""
    tags: dict[str, str] = Field(default_factory=dict)


class Ending(Record):
    """How a run that was left behind is ended."""

    run_id: str
    name: str
    status: Status
    """In MLflow."""
    reason: str
    crash_flow_run: str = ""
    """The id of the Prefect run that is ended as Crashed too; empty where it has ended."""


def this_process() -> dict[str, str]:
    """Tags that let somebody else find out whether this process still lives."""
    process = psutil.Process()
    return {HOST: platform.node(), PROCESS: str(os.getpid()), CREATED: f"{process.create_time():.2f}"}


def is_gone(tags: dict[str, str]) -> bool | None:
    """Whether the process that writes a run has ended; none where this machine cannot know it."""
    host = tags.get(HOST, "")
    if host in NOT_A_NAME or host != platform.node():
        return None
    try:
        process = psutil.Process(int(tags[PROCESS]))
        another = abs(process.create_time() - float(tags[CREATED])) > SECONDS_OF_CLOCK_DRIFT
        # a killed process stays in the list until its parent has looked
        return another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, KeyError, ValueError):
        return None


def ending_of(run: UnendedRun, state: FlowState, since: float, gone: bool | None) -> Ending | None:
    """How a run is to be ended; none while it may still be going on.

    Args:
        run: says that it is running.
        state: of its Prefect run.
        since: when the Prefect run came into that state, in seconds since 1970.
        gone: whether the process that writes the run has ended; none where that cannot be known.
    """
    if gone is False:
        return None  # it will end the run itself
    if state in ("failed", "crashed"):
        return _ending(run, "FAILED", f"its Prefect run ended as {state}")
    if state == "cancelled":
        return _ending(run, "KILLED", "its Prefect run was cancelled")
    if state == "completed":
        return _ending(run, "FINISHED", "its Prefect run completed")
    if not gone:
        return None
    if state == "active" and since <= run.started:
        return _ending(run, "FAILED", "its process is gone").model_copy(update={"crash_flow_run": run.flow_run_id})
    # a Prefect run that came into its state later is at another attempt, with a run of its own
    return _ending(run, "FAILED", "its process is gone")


def _ending(run: UnendedRun, status: Status, reason: str) -> Ending:
    return Ending(run_id=run.run_id, name=run.name, status=status, reason=reason)
