"""The processes of a house: all carry its mark in their environment, and end in an order that leaves runs truthful.

They are found by the mark, wherever they stand in the tree of processes: a flow run outlives a worker that was killed.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import requests

from flows.servers.prefect_api import PrefectServer
from recognition.settings import home

MARK = "RECOGNITION_HOUSE"
PART = "RECOGNITION_HOUSE_PART"
FLOW_RUN = "PREFECT__FLOW_RUN_ID"
"""Prefect names the flow run here in the environment of its process."""
SECONDS_FOR_RUNS = 30.0
SECONDS_FOR_PARTS = 15.0
LAST_FIRST = ("worker", "deployments", "mlflow", "prefect")
UNENDED = ("PENDING", "RUNNING", "CANCELLING")


def log_file(part: str) -> Path:
    """Where a part writes what it says."""
    folder = home() / "logs"
    folder.mkdir(exist_ok=True)
    return folder / f"{part}.log"


def end_of_log(part: str, lines: int = 15) -> str:
    """The last lines that a part has written."""
    path = log_file(part)
    said = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return "\n".join([f"The end of {path}:", *(line[:300] for line in said if line.strip())][-lines:])


def start(part: str, words: list[str], environment: dict[str, str], house: str) -> subprocess.Popen[bytes]:
    """Start a part in a session of its own, out of reach of the terminal's Ctrl-C, with its log appended to."""
    with log_file(part).open("ab") as log:
        return subprocess.Popen(
            words,
            env=environment | {MARK: house, PART: part},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def end_all(house: str, api: str, hurried: Callable[[], bool]) -> None:
    """End all processes of a house: runs, worker, MLflow, Prefect; a run says itself how it ended while it can.

    Args:
        house: the mark.
        api: Prefect's API, for runs that could not say it.
        hurried: asked all the time; once true nothing is waited for any more.
    """
    workers = _of_part(house, "worker")
    _each(workers, psutil.Process.suspend)  # it would start the next run, or end with its runs still going
    runs = _flow_runs(house)
    _end(list(runs), SECONDS_FOR_RUNS, hurried)
    _say_crashed(PrefectServer.of_environment(api), set(runs.values()))
    _each(workers, psutil.Process.resume)
    for part in LAST_FIRST:
        _end(_of_part(house, part), SECONDS_FOR_PARTS, hurried)
    _each((process for process, _ in _marked(house)), psutil.Process.kill)


def _marked(house: str) -> list[tuple[psutil.Process, dict[str, str]]]:
    """The processes with this mark, and their environments."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):  # not ours, or gone
            continue
        if environment.get(MARK) == house and process.pid != os.getpid():
            found.append((process, environment))
    return found


def _of_part(house: str, part: str) -> list[psutil.Process]:
    """The processes of a part, without those of flow runs."""
    return [
        process
        for process, environment in _marked(house)
        if environment.get(PART) == part and FLOW_RUN not in environment
    ]


def _flow_runs(house: str) -> dict[psutil.Process, str]:
    """The process of each flow run, without the stages that it started, and the run's id."""
    marked = {process.pid: (process, environment) for process, environment in _marked(house)}
    runs = {}
    for process, environment in marked.values():
        run = environment.get(FLOW_RUN)
        try:
            _, of_parent = marked.get(process.ppid(), (None, {}))
        except psutil.Error:
            continue
        if run and of_parent.get(FLOW_RUN) != run:
            runs[process] = run
    return runs


def _end(processes: list[psutil.Process], patience: float, hurried: Callable[[], bool]) -> None:
    """Ask processes to end, and kill those that do not within ``patience`` seconds, with what they started."""
    _each(processes, psutil.Process.terminate)
    deadline = time.monotonic() + patience
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline and not hurried():
        time.sleep(0.05)
    for process in filter(is_alive, processes):
        try:
            descendants = process.children(recursive=True)
        except psutil.Error:
            descendants = []
        _each([process, *descendants], psutil.Process.kill)


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs: a process that ended and that nobody has asked about yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _each(processes: Iterable[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        try:
            act(process)
        except psutil.Error:  # gone in the meantime
            continue


def _say_crashed(server: PrefectServer, runs: set[str]) -> None:
    """Set runs that were ended before they could say so to Crashed, so that none is Running for ever."""
    state = {"type": "CRASHED", "message": "Its worker was stopped, and the run with it."}
    for run in runs:
        try:
            if server.ask(f"flow_runs/{run}")["state_type"] in UNENDED:
                server.ask(f"flow_runs/{run}/set_state", {"state": state, "force": True})
        except requests.RequestException:  # the server has gone first
            return
