"""What the pipeline costs around training: the wall time of the default run outside fit and evaluate, by stage.

The first run starts in an empty state folder (Prefect and MLflow make their databases), the second in the same one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("download", "audit", "prepare", "augment", "train", "evaluate", "register")


def main() -> None:
    from report import machine, publish

    columns = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"RECOGNITION_HOME": str(Path(folder) / "state")}
        for _ in range(2):
            began = time.perf_counter()
            words = [str(Path(sys.executable).parent / "recognition"), "train", "--json"]
            done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
            wall = time.perf_counter() - began
            seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
            columns.append({stage: seconds[stage] for stage in STAGES} | {"run": seconds["total"], "command": wall})
    rows = [f"| {stage} | " + " | ".join(f"{column[stage]:.1f}" for column in columns) + " |" for stage in STAGES]

    def row(label: str, values: list[float], form: str = ".1f") -> str:
        return f"| {label} | " + " | ".join(format(value, form) for value in values) + " |"

    between = [column["run"] - sum(column[stage] for stage in STAGES) for column in columns]
    around = [column["command"] - column["run"] for column in columns]
    outside = [column["command"] - column["train"] - column["evaluate"] for column in columns]
    rows += [
        row("between the stages (status, links, report)", between),
        row("around the run (imports, temporary Prefect server)", around),
        row("**whole command**", [column["command"] for column in columns]),
        row("**outside train and evaluate**", outside),
        row(
            "share of the command",
            [value / column["command"] for value, column in zip(outside, columns, strict=True)],
            ".0%",
        ),
    ]
    publish(
        "Orchestration share of the default run",
        f"Seconds of wall time of `recognition train` (digits, 15 epochs).\n\n{machine()}\n\n"
        "| | empty state folder | later |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n\n"
        "`python benchmarks/orchestration_share.py`",
    )


if __name__ == "__main__":
    main()
