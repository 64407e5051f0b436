"""Scores of a classifier: accuracy, precision, recall, F1 and more, tables, and figures."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lightning_modules.evaluations import attention, explaining
from lightning_modules.evaluations.judged import Judged
from recognition import datasets, figures, galleries, scores, tables
from recognition.audit.wrong_labels import suspicious
from recognition.events import Emit, Progress, ignore
from recognition.experiment import Evaluation
from recognition.records import PreparedData
from recognition.scoring.classifier import Classifier


def evaluate(judged: Judged) -> dict[str, float]:
    """Score a classifier on the test split, each image once.

    Writes ``predictions.parquet``, ``per_class.csv``, ``confusion_matrix.csv``, ``likely_wrong_labels.csv`` (of test
    and validation images) and figures.
    """
    classifier = cast(Classifier, judged.scorer)
    data, evaluation, folder = judged.data, judged.evaluation, judged.folder
    test, val = judged.arrays.split("test"), judged.arrays.split("val")
    probabilities = _probabilities(classifier, test, evaluation.batch_size, judged.emit)
    labels, sample_ids = test.labels, test.sample_ids()
    metrics = scores.classification_scores(
        labels, probabilities, data.class_names, classifier.threshold, evaluation.top_k
    )
    _write_tables(folder, sample_ids, labels, probabilities, data.class_names, classifier.threshold)
    val_probabilities = _probabilities(classifier, val, evaluation.batch_size, ignore)
    metrics["likely_wrong_labels"] = float(
        _write_likely_wrong_labels(folder, {"test": (test, probabilities), "val": (val, val_probabilities)}, data)
    )
    _draw(judged.figures, test, sample_ids, labels, probabilities, data, classifier.threshold, evaluation)
    attention.draw(judged)
    explaining.draw(judged, probabilities)
    return metrics


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
) -> None:
    names = data.class_names
    predictions = scores.predicted_labels(probabilities, threshold)
    matrix = scores.confusion(labels, predictions, len(names))
    figures.confusion_matrix(matrix, names, folder / "confusion_matrix.png")
    figures.precision_recall_curves(labels, probabilities, names, folder / "precision_recall.png")
    figures.roc_curves(labels, probabilities, names, folder / "roc.png")
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
