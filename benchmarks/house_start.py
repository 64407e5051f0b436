"""From `recognition up` to all addresses answering: in an empty state folder, and later; memory of each part."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import psutil
from report import machine, publish
from running_house import running_house

RUNS = 3
SETTLED_SECONDS = 10
PARTS = {
    "recognition up": "up itself",
    "flows.house.caretaker": "caretaker",
    "server start": "Prefect server",
    "mlflow": "MLflow server",
    "worker start": "worker",
}


def main() -> None:
    first, later, ends, memories = [], [], [], []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state"
            for seconds in (first, later):
                begun = time.perf_counter()
                with running_house(state):
                    seconds.append(time.perf_counter() - begun)
                    if seconds is later:
                        time.sleep(SETTLED_SECONDS)
                        memories.append(_memory(state))
                    begun = time.perf_counter()
                ends.append(time.perf_counter() - begun)
    rows = [_row("start, empty state folder", first), _row("start, later", later), _row("end by Ctrl-C", ends)]
    parts = [_row(name, [memory.get(name, 0.0) for memory in memories], 0) for name in [*PARTS.values(), "all"]]
    publish(
        "One command for the house",
        f"`recognition up`, {RUNS} times in an empty state folder (both databases are created) and once more in each. "
        "Seconds until Prefect and MLflow answer, the deployments are applied and the worker is online.\n\n"
        f"{machine()}\n\n| seconds | minimum | median | maximum |\n| --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n\n"
        f"Resident memory {SETTLED_SECONDS} s later, in MB (shared pages count for each process of a part):\n\n"
        "| MB | minimum | median | maximum |\n| --- | --- | --- | --- |\n" + "\n".join(parts) + "\n\n"
        "`python benchmarks/house_start.py`",
    )


def _row(name: str, values: list[float], digits: int = 1) -> str:
    cells = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"| {name} | " + " | ".join(cells) + " |"


def _memory(state: Path) -> dict[str, float]:
    """Resident MB of each part; a part may be several processes."""
    found: dict[str, float] = {"all": 0.0}
    for process in psutil.process_iter():
        try:
            if process.environ().get("RECOGNITION_HOME") != str(state):
                continue
            line, size = " ".join(process.cmdline()), process.memory_info().rss / 1e6
        except psutil.Error:
            continue
        # MLflow's command starts the server proper by the path of its own package, which is named in its words
        name = next((name for words, name in PARTS.items() if words in line), "")
        if name:
            found[name] = found.get(name, 0.0) + size
            found["all"] += size
    return found


if __name__ == "__main__":
    main()
