"""Fifty scheduled runs on one worker, one after the other: how they end, and what the worker's memory does."""

from __future__ import annotations

import datetime
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from report import machine, publish
from running_house import RunningHouse, running_house

RUNS = 50
TINY = {"training": {"epochs": 1}, "registration": {"enabled": False}}
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_house(Path(folder) / "state", "--limit", "1") as house:
        (deployment,) = house.ask("deployments/filter", {"deployments": {"name": {"any_": ["train"]}}})
        began = time.perf_counter()
        now = datetime.datetime.now(datetime.UTC)
        ids = []
        for number in range(RUNS):
            at = (now + datetime.timedelta(seconds=number)).isoformat()
            state = {"type": "SCHEDULED", "state_details": {"scheduled_time": at}}
            body = {"parameters": TINY | {"name": f"scheduled {number + 1}"}, "state": state}
            ids.append(house.ask(f"deployments/{deployment['id']}/create_flow_run", body)["id"])
        states, memory = _follow(house, ids)
        seconds = time.perf_counter() - began
        statuses = Counter(house.mlflow_run_of(found)["info"]["status"] for found in ids)
    early, late = statistics.median(memory[5:15]), statistics.median(memory[-10:])
    publish(
        "Fifty scheduled runs in a row",
        f"`recognition up --limit 1`; {RUNS} scheduled runs of the default experiment with one epoch.\n\n"
        f"{machine()}\n\n| | |\n| --- | --- |\n"
        f"| Prefect | {', '.join(f'{count} {state}' for state, count in states.items())} |\n"
        f"| MLflow | {', '.join(f'{count} {status}' for status, count in statuses.items())} |\n"
        f"| seconds, all and each | {seconds:.0f}, {seconds / RUNS:.1f} |\n"
        f"| resident memory of the worker, median of runs 6 to 15 | {early:.1f} MB |\n"
        f"| the same, of the last ten | {late:.1f} MB ({late / early - 1:+.1%}) |\n\n"
        "`python benchmarks/scheduled_runs.py`",
    )


def _follow(house: RunningHouse, ids: list[str]) -> tuple[Counter[str], list[float]]:
    """The states that the runs end in, and the worker's memory (MB) whenever another one has ended."""
    worker = next(
        process
        for process in psutil.Process(house.process.pid).children(recursive=True)
        if {"worker", "start"} <= set(process.cmdline())
    )
    memory: list[float] = []
    while True:
        runs = house.ask("flow_runs/filter", {"flow_runs": {"id": {"any_": ids}}})
        states = Counter(run["state_type"] for run in runs)
        ended = sum(states[state] for state in ENDED)
        if ended > len(memory):
            memory += [worker.memory_info().rss / 2**20] * (ended - len(memory))
        if ended == len(ids):
            return states, memory
        time.sleep(1)


if __name__ == "__main__":
    main()
