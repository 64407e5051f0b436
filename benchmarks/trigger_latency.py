"""From Run to the first epoch: a triggered run of the default experiment on a warm worker, by part."""

from __future__ import annotations

import datetime
import tempfile
import time
from pathlib import Path
from typing import Any

from report import machine, publish, spread
from running_house import RunningHouse, running_house

RUNS = 3
MARKS = ("process started", "flow begun", "data there", "network training", "first epoch ended", "run ended")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_house(Path(folder) / "state") as house:
        (found,) = house.ask("deployments/filter", {"deployments": {"name": {"any_": ["train"]}}})
        # the first run decodes the images, later ones find them
        _measure(house, found["id"])
        columns = [_measure(house, found["id"]) for _ in range(RUNS)]
    rows = "\n".join(f"| {mark} | {spread([column[mark] for column in columns])} |" for mark in MARKS)
    publish(
        "From Run to the first epoch",
        f"Seconds after Run was pressed (the flow run was created on the server), default experiment (digits, 15 "
        f"epochs), `recognition up` on the same machine, {RUNS} runs one after the other: median (range).\n\n"
        f"{machine()}\n\n| | seconds |\n| --- | --- |\n{rows}\n\n`python benchmarks/trigger_latency.py`",
    )


def _measure(house: RunningHouse, deployment: str) -> dict[str, float]:
    run = house.ask(f"deployments/{deployment}/create_flow_run", {})
    while (now := house.ask(f"flow_runs/{run['id']}"))["state_type"] not in ("COMPLETED", "FAILED", "CRASHED"):
        time.sleep(0.5)
    if now["state_type"] != "COMPLETED":
        raise RuntimeError(now["state"]["message"])
    only_this = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    tasks = {found["name"]: found for found in house.ask("task_runs/filter", only_this)}
    states = {found["type"]: found for found in house.ask(f"flow_run_states/?flow_run_id={run['id']}")}
    lines: list[dict[str, Any]] = house.ask(
        "logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
    )
    epoch = next(line for line in lines if line["message"].startswith("epoch 1/"))
    began = _seconds(run["created"])
    marks = (
        states["PENDING"]["timestamp"],
        states["RUNNING"]["timestamp"],
        tasks["prepare"]["end_time"],
        tasks["train"]["start_time"],
        epoch["timestamp"],
        now["end_time"],
    )
    return {mark: _seconds(moment) - began for mark, moment in zip(MARKS, marks, strict=True)}


def _seconds(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment).timestamp()


if __name__ == "__main__":
    main()
