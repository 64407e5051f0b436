"""The example of docs/models.md: a network is added by one file and one entry, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PROGRAM = """
import json
from pathlib import Path
from recognition import bundle, policies, preparation
from recognition.configuration import load_experiment
from lightning_modules import evaluation, training
import recognition.families
assert Path(recognition.families.__file__).is_relative_to(Path.cwd())
experiment = load_experiment(None, ["model.network=mixer", "training.epochs=8", "evaluation.explanations=0"])
data = preparation.prepare(experiment.data)
folder = Path("var/runs/one")
policy = policies.augment(data, experiment.augmentation, experiment.seed, folder / "augmentation")
model = training.fit(data, policy, experiment, folder)
scores = evaluation.evaluate(data, model.bundle, experiment.evaluation, folder / "evaluation")
print(json.dumps({"accuracy": scores.metrics["test/accuracy"], "network": str(bundle.describe(model.bundle))}))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project with the example's file and entry in it."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("flows", "tasks", "lightning_modules", "recognition"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    shutil.copyfile(ROOT / "mlflow.yaml", tmp_path / "mlflow.yaml")
    file, entry = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(), re.DOTALL)
    assert len([line for line in file.splitlines() if line.strip()]) <= 32
    (tmp_path / "lightning_modules" / "networks" / "mixer.py").write_text(file)
    families = tmp_path / "recognition" / "families.py"
    start = "NETWORKS: dict[str, Network] = {\n"
    before = families.read_text()
    assert start in before
    families.write_text(before.replace(start, start + entry))
    return tmp_path


def run(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "RECOGNITION_HOME": str(checkout / "var")}
    return subprocess.run(
        [sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_example_trains_scores_and_is_known_by_name(checkout: Path) -> None:
    done = run(checkout, "-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    assert float(re.findall(r'"accuracy": ([0-9.]+)', done.stdout)[0]) > 0.5  # a guess would be right for a tenth
    assert "'network': 'mixer'" in done.stdout
    listed = run(checkout, "-m", "flows.cli", "list", "networks", "mixer")
    assert "classification: MLP-Mixer" in listed.stdout
    refused = run(checkout, "-m", "flows.cli", "train", "model.network=mixr")
    assert refused.returncode == 2
    assert "did you mean 'mixer'?" in refused.stderr
