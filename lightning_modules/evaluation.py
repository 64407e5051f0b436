"""The evaluation stage: a model bundle on the test images, its scores, figures and tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recognition import bundle, datasets, figures, galleries, scores, tables
from recognition.audit.wrong_labels import suspicious
from recognition.errors import DataError
from recognition.events import Emit, Progress, ignore
from recognition.experiment import Evaluation
from recognition.records import PreparedData, Scores
from recognition.scoring import Classifier


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
    """Score a bundle on the test split, each image once, with the code that travels in the bundle.

    Writes ``scores.json``, ``predictions.parquet``, ``per_class.csv``, ``confusion_matrix.csv``,
    ``likely_wrong_labels.csv`` (of test and validation images) and figures.

    Args:
        data: the prepared data set.
        model: the bundle's folder.
        evaluation: batch size, top k, threshold, number of mistakes shown.
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
    classifier = bundle.load(model, device)
    _check_fit(data, classifier.description, model)
    arrays = datasets.open_arrays(data.path)
    test = arrays.split("test")
    probabilities = _probabilities(classifier, test, evaluation.batch_size, emit)
    labels, sample_ids = test.labels, test.sample_ids()
    metrics = scores.classification_scores(
        labels, probabilities, data.class_names, classifier.threshold, evaluation.top_k
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write_tables(folder, sample_ids, labels, probabilities, data.class_names, classifier.threshold)
    val = arrays.split("val")
    val_probabilities = _probabilities(classifier, val, evaluation.batch_size, ignore)
    metrics["likely_wrong_labels"] = float(
        _write_likely_wrong_labels(folder, {"test": (test, probabilities), "val": (val, val_probabilities)}, data)
    )
    _draw(
        folder / "figures",
        test,
        sample_ids,
        labels,
        probabilities,
        data,
        classifier.threshold,
        evaluation,
        history,
        best_epoch,
    )
    (folder / "scores.json").write_text(json.dumps(metrics, indent=2))
    return Scores(
        path=folder,
        test_digest=data.test_digest,
        metrics={f"test/{name}": value for name, value in metrics.items()},
    )


def _probabilities(classifier: Classifier, split: datasets.Split, batch_size: int, emit: Emit) -> NDArray[np.float64]:
    probabilities = np.empty((len(split), len(classifier.class_names)))
    done = 0
    for positions in split.in_batches(batch_size):
        probabilities[positions] = classifier.probabilities(split.batch(positions))
        done += len(positions)
        emit(Progress("evaluate", done, len(split), "images"))
    return probabilities


def _write_likely_wrong_labels(
    folder: Path, splits: dict[str, tuple[datasets.Split, NDArray[np.float64]]], data: PreparedData
) -> int:
    """List the images whose labels the network, which has not learned from them, doubts; count those of the test."""
    import pandas as pd

    rows = []
    for name, (split, probabilities) in splits.items():
        labels, sample_ids = split.labels, split.sample_ids()
        for index in suspicious(labels, probabilities, prune="both").tolist():
            said = int(probabilities[index].argmax())
            label, best = float(probabilities[index, labels[index]]), float(probabilities[index, said])
            names = data.class_names[labels[index]], data.class_names[said]
            rows.append((name, sample_ids[index], *names, round(label, 4), round(best, 4)))
    columns = ["split", "sample_id", "label", "looks_like", "probability_of_label", "probability_of_other"]
    table = pd.DataFrame(rows, columns=columns)
    tables.write_csv(table, folder / "likely_wrong_labels.csv")
    return int((table["split"] == "test").sum())


def _check_fit(data: PreparedData, description: dict[str, object], model: Path) -> None:
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


def _write_tables(
    folder: Path,
    sample_ids: list[str],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    class_names: tuple[str, ...],
    threshold: float,
) -> None:
    import pandas as pd

    predictions = scores.predicted_labels(probabilities, threshold)
    table = scores.predictions_table(sample_ids, labels, probabilities, class_names, threshold)
    table.to_parquet(folder / "predictions.parquet", index=False)
    tables.write_csv(scores.per_class_table(labels, probabilities, class_names, threshold), folder / "per_class.csv")
    matrix = scores.confusion(labels, predictions, len(class_names))
    counts = pd.DataFrame(matrix, index=list(class_names), columns=list(class_names))
    tables.write_csv(counts, folder / "confusion_matrix.csv", index=True)


def _draw(
    folder: Path,
    test: datasets.Split,
    sample_ids: list[str],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    data: PreparedData,
    threshold: float,
    evaluation: Evaluation,
    history: dict[str, list[float]] | None,
    best_epoch: int | None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = data.class_names
    predictions = scores.predicted_labels(probabilities, threshold)
    matrix = scores.confusion(labels, predictions, len(names))
    figures.confusion_matrix(matrix, names, folder / "confusion_matrix.png")
    figures.precision_recall_curves(labels, probabilities, names, folder / "precision_recall.png")
    figures.roc_curves(labels, probabilities, names, folder / "roc.png")
    if history:
        figures.learning_curves(history, folder / "learning_curves.png", best_epoch)
    if evaluation.mistakes:
        confidences = probabilities[np.arange(len(labels)), predictions]
        galleries.most_confident_mistakes(
            test.batch,
            labels,
            predictions,
            confidences,
            names,
            sample_ids,
            evaluation.mistakes,
            folder / "most_confident_mistakes.png",
        )
