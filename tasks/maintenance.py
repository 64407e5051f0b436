"""Maintenance: find the runs that were left behind, and end them in MLflow and Prefect."""

from __future__ import annotations

from uuid import UUID

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from recognition import tracking
from recognition.left_behind import Ending, FlowState, UnendedRun, ending_of, is_gone
from tasks.watching import in_a_run, run_logger

ENDED: dict[StateType, FlowState] = {
    StateType.COMPLETED: "completed",
    StateType.FAILED: "failed",
    StateType.CRASHED: "crashed",
    StateType.CANCELLED: "cancelled",
}


@task(name="find", task_run_name="find", cache_policy=NO_CACHE)
def find_left_behind() -> list[Ending]:
    """The runs that MLflow says are running and that are not, each with how it is to be ended."""
    endings = []
    for run in tracking.unended_runs():
        state, since = _state_of(run)
        ending = ending_of(run, state, since, is_gone(run.tags))
        if ending is not None:
            endings.append(ending)
    return endings


def _state_of(run: UnendedRun) -> tuple[FlowState, float]:
    """The state of a run's Prefect run, and since when it is in it."""
    if not run.flow_run_id:
        return "unknown", 0.0
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(run.flow_run_id)).state
        except (ObjectNotFound, ValueError):
            return "unknown", 0.0
    if state is None:
        return "unknown", 0.0
    return ENDED.get(state.type, "active"), state.timestamp.timestamp()


@task(name="end", task_run_name="end", cache_policy=NO_CACHE)
def end_left_behind(endings: list[Ending]) -> list[Ending]:
    """End these runs; those that had ended by themselves in the meantime are not in the answer."""
    ended = []
    for ending in endings:
        if not tracking.end_left_behind(ending):
            continue
        if ending.crash_flow_run:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(
                    UUID(ending.crash_flow_run), Crashed(message="Its process is gone; ended by maintenance.")
                )
        run_logger().info(f"{ending.name} ({ending.run_id}) is {ending.status}: {ending.reason}")
        ended.append(ending)
    return ended


def report(endings: list[Ending], dry_run: bool) -> None:
    """Show on the run's page what was ended, or would be."""
    if not in_a_run():
        return
    verb = "would be ended" if dry_run else "ended"
    lines = [f"# Runs left behind: {len(endings)} {verb}", ""]
    if endings:
        lines += ["| run | in MLflow | why |", "| --- | --- | --- |"]
        for ending in endings:
            link = f"[{ending.name or ending.run_id}]({tracking.run_url(ending.run_id)})"
            lines.append(f"| {link} | {ending.status} | {ending.reason} |")
    else:
        lines.append("Every run that MLflow shows as running may still be going on.")
    create_markdown_artifact("\n".join(lines) + "\n", key="maintenance", description=f"{len(endings)} runs {verb}")
