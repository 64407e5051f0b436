"""The evaluation stage: a model bundle on the test images, its scores, figures and tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_modules.evaluations.judged import Judged
from lightning_modules.families import EVALUATORS
from recognition import bundle, datasets, figures
from recognition.errors import DataError
from recognition.events import Emit, ignore
from recognition.experiment import Evaluation
from recognition.families import Task
from recognition.records import PreparedData, Scores


def evaluate(
    data: PreparedData,
    model: Path,
    evaluation: Evaluation,
    folder: Path,
    history: dict[str, list[float]] | None = None,
    best_epoch: int | None = None,
    accelerator: str = "auto",
    *,
    emit: Emit = ignore,
) -> Scores:
    """Score a bundle on the test split with the code that travels in the bundle.

    Writes ``scores.json``, and the tables and figures of the model's task.

    Args:
        data: the prepared data set.
        model: the bundle's folder.
        evaluation: what is measured and shown.
        folder: where to write.
        history: epoch metrics for the learning curves; none: no such figure.
        best_epoch: marked in them, counted from 0.
        accelerator: ``cpu`` keeps the scoring off a GPU.
        emit: called with progress.

    Raises:
        DataError: the data set's classes or image shape are not the model's.
        ModelError: the bundle is not whole.
    """
    device = "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    scorer = bundle.load(model, device)
    check_fit(data, scorer.description, model)
    task: Task = scorer.description["task"]
    judged = Judged(scorer, data, datasets.open_arrays(data.path), evaluation, folder, emit, history or {})
    judged.figures.mkdir(parents=True, exist_ok=True)
    metrics = EVALUATORS[task](judged)
    if history:
        figures.learning_curves(history, judged.figures / "learning_curves.png", best_epoch)
    (folder / "scores.json").write_text(json.dumps(metrics, indent=2))
    return Scores(
        path=folder,
        task=task,
        test_digest=scored_against(data, evaluation, scorer.description),
        metrics={f"test/{name}": value for name, value in metrics.items()},
    )


def scored_against(data: PreparedData, evaluation: Evaluation, description: Mapping[str, Any]) -> str:
    """A digest of what two scores must share to be compared.

    The test images; for what is made also the judge's weights and the number of samples, for what is restored the
    noise.
    """
    whole = hashlib.sha256(data.test_digest.encode())
    if description["task"] == "generation":
        whole.update((Path(evaluation.judge) / "weights.safetensors").read_bytes())
        whole.update(str(evaluation.samples).encode())
    elif description["task"] == "autoencoding" and description["noise"]:
        whole.update(str(description["noise"]).encode())
    else:
        return data.test_digest
    return whole.hexdigest()


def check_fit(data: PreparedData, description: dict[str, object], model: Path) -> None:
    expected = description["class_names"]
    if list(data.class_names) != expected:
        raise DataError(f"The data set's classes {list(data.class_names)} are not the model's {expected} ({model}).")
    preprocessing = description["preprocessing"]
    assert isinstance(preprocessing, dict)
    shape = tuple(preprocessing[key] for key in ("height", "width", "channels"))
    if shape != (data.height, data.width, data.channels):
        raise DataError(
            f"The data set is prepared at {data.height}x{data.width}x{data.channels}, the model reads "
            f"{shape[0]}x{shape[1]}x{shape[2]}: set data.image_size and data.channels to the model's."
        )
