"""A running ``recognition up`` for the benchmarks, and what they ask its servers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

RECOGNITION = str(Path(sys.executable).parent / "recognition")


@dataclass(frozen=True)
class RunningHouse:
    """Where a house answers, and the environment in which commands find it."""

    environment: dict[str, str]
    api: str
    mlflow: str
    process: subprocess.Popen[bytes]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Prefect's answer: to a GET, or with a body to a POST."""
        url = f"{self.api}/{path}"
        for _ in range(20):
            answer = requests.get(url, timeout=60) if body is None else requests.post(url, json=body, timeout=60)
            # SQLite has a single writer: Prefect's client asks a busy server again, too
            if answer.status_code != 503:
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json()

    def run(self, *words: str) -> dict[str, Any]:
        """The JSON that a command ends with."""
        done = subprocess.run(
            [RECOGNITION, *words, "--json"], env=self.environment, capture_output=True, text=True, check=True
        )
        content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return content

    def mlflow_run_of(self, flow_run_id: str) -> dict[str, Any]:
        """The one MLflow run that belongs to a flow run."""
        experiments = requests.post(
            f"{self.mlflow}/api/2.0/mlflow/experiments/search", json={"max_results": 100}, timeout=60
        ).json()["experiments"]
        body = {
            "experiment_ids": [found["experiment_id"] for found in experiments],
            "filter": f"tags.`prefect.flow_run_id` = '{flow_run_id}'",
        }
        answer = requests.post(f"{self.mlflow}/api/2.0/mlflow/runs/search", json=body, timeout=60).json()
        (run,) = answer["runs"]
        assert isinstance(run, dict)
        return run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_house(state: Path, *words: str) -> Iterator[RunningHouse]:
    """``recognition up`` with these words in a state folder, from when all of it answers until the block ends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment |= {"RECOGNITION_HOME": str(state), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    prefect, mlflow = free_port(), free_port()
    ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    process = subprocess.Popen(
        [RECOGNITION, "up", *ports, *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        # the background jobs of a shell ignore Ctrl-C, and hand that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not (state / "house.json").exists():
            if process.poll() is not None:
                raise RuntimeError(f"recognition up ended with code {process.returncode}")
            time.sleep(0.05)
        api = f"http://127.0.0.1:{prefect}/api"
        yield RunningHouse(environment, api, f"http://127.0.0.1:{mlflow}", process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
