"""What orchestration and tracking cost: the same work as a plain script, and as a tracked flow run, side by side.

The script is the one of the README: prepare, augment, fit, evaluate, without Prefect and MLflow. It is compared with
``recognition train`` in a running house (`recognition up`), and with its own temporary server. ``--long`` measures a
training of about five minutes instead of the default experiment.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import machine, publish, spread
from running_house import RECOGNITION, running_house

STAGES = ("preflight", "download", "audit", "prepare", "augment", "train", "evaluate", "register")
SHORT: list[str] = []
LONG = ["data.image_size=64", "training.epochs=70", "model.channels=[32,64,128,128]"]
SCRIPT = """
import json, sys, time
from pathlib import Path
from recognition import policies, preparation
from recognition.configuration import load_experiment
from lightning_modules import evaluation, training

folder, words = Path(sys.argv[1]), json.loads(sys.argv[2])
seconds = {}
def timed(name, work):
    began = time.perf_counter()
    result = work()
    seconds[name] = time.perf_counter() - began
    return result
experiment = load_experiment(None, words)
data = timed("prepare", lambda: preparation.prepare(experiment.data))
policy = timed("augment", lambda: policies.augment(
    data, experiment.augmentation, experiment.seed, folder / "augmentation"))
model = timed("train", lambda: training.fit(data, policy, experiment, folder))
timed("evaluate", lambda: evaluation.evaluate(
    data, model.bundle, experiment.evaluation, folder / "evaluation", model.history, model.best_epoch))
print(json.dumps(seconds))
"""
KINDS = ("plain script", "`recognition train` in a running house", "`recognition train` by itself")


def main() -> None:
    long = "--long" in sys.argv[1:]
    words, repeats = (LONG, 1) if long else (SHORT, 3)
    walls: dict[str, list[float]] = {kind: [] for kind in KINDS}
    parts: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        with running_house(base / "house") as house:
            states = {KINDS[0]: base / "plain", KINDS[1]: base / "house", KINDS[2]: base / "alone"}

            def command(kind: str, asked: list[str]) -> list[str]:
                if kind == KINDS[0]:
                    return [sys.executable, "-c", SCRIPT, str(base / "script"), json.dumps(asked)]
                return [RECOGNITION, "train", *asked, "--json"]

            def measure(kind: str, asked: list[str]) -> tuple[float, dict[str, float]]:
                return _time(command(kind, asked), house.environment | {"RECOGNITION_HOME": str(states[kind])})

            kinds = KINDS[:2] if long else KINDS
            for kind in kinds:
                # databases, prepared images and the file cache are there before anything is timed
                measure(kind, [*words, "training.epochs=1"])
            for _ in range(repeats):
                for kind in kinds:
                    wall, seconds = measure(kind, words)
                    walls[kind].append(wall)
                    parts[kind].append(seconds)
    _publish(long, words, walls, parts)


def _time(command: list[str], environment: dict[str, str]) -> tuple[float, dict[str, float]]:
    """Wall time of the whole process, and of its parts."""
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - began
    content = json.loads(done.stdout.splitlines()[-1])
    return wall, content.get("seconds", content)


def _publish(
    long: bool, words: list[str], walls: dict[str, list[float]], parts: dict[str, list[dict[str, float]]]
) -> None:
    kinds = [kind for kind in KINDS if walls[kind]]
    rows = []
    for stage in STAGES:
        cells = [spread([part.get(stage, 0.0) for part in parts[kind]]) for kind in kinds]
        rows.append(f"| {stage} | " + " | ".join(cells) + " |")
    around = [
        spread(
            [
                wall - sum(part.get(stage, 0.0) for stage in STAGES)
                for wall, part in zip(walls[kind], parts[kind], strict=True)
            ]
        )
        for kind in kinds
    ]
    rows.append("| imports, servers, between the stages | " + " | ".join(around) + " |")
    rows.append("| **whole process** | " + " | ".join(f"**{spread(walls[kind])}**" for kind in kinds) + " |")
    base = statistics.median(walls[kinds[0]])
    added = [statistics.median(walls[kind]) - base for kind in kinds]
    rows.append("| **added** | " + " | ".join(f"**{value:.1f} s, {value / base:.1%}**" for value in added) + " |")
    what = f"`{' '.join(words)}`" if words else "the default experiment (digits, 15 epochs)"
    publish(
        f"What orchestration and tracking add to a {'five-minute' if long else 'short'} training",
        f"Seconds of wall time of {what}: median (range) of {len(walls[kinds[0]])} interleaved runs, one thread.\n\n"
        f"{machine()}\n\n| | {' | '.join(kinds)} |\n|{' --- |' * (len(kinds) + 1)}\n" + "\n".join(rows) + "\n\n"
        f"`python benchmarks/orchestration_cost.py{' --long' if long else ''}`",
    )


if __name__ == "__main__":
    main()
