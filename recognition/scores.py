"""How good predictions are: scikit-learn's scores, as plain numbers and as tables.

Everywhere N is the number of images and K, at least 2, the number of classes. ``labels`` is (N,) of whole numbers from
0 to K - 1; ``probabilities`` is (N, K) in [0, 1], and each row sums to 1 (to 1e-3, which half precision keeps).
Probabilities are scored in float64. Scores lie in [0, 1], except ``log_loss`` (in nats, at least 0) and ``support``
(in images). What is 0/0 counts as 0, as with scikit-learn's ``zero_division=0``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn import metrics  # scikit-learn ships no types

Labels = npt.NDArray[np.integer[Any]]
Probabilities = npt.NDArray[np.floating[Any]]

PER_CLASS = ("precision", "recall", "f1", "roc_auc", "average_precision", "support")
_LONGEST_NAME = 200  # MLflow stores 250 characters; the rest is for "test/average_precision/" and a suffix


def classification_scores(
    labels: Labels,
    probabilities: Probabilities,
    class_names: Sequence[str],
    threshold: float = 0.5,
    top_k: int = 5,
) -> dict[str, float]:
    """Score probabilities against labels; every value is finite.

    - ``accuracy``, ``balanced_accuracy`` (mean recall of the classes among the labels), ``log_loss``;
    - ``precision``, ``recall`` and ``f1``, each ``_macro`` and ``_weighted``: as scikit-learn's defaults, over the
      classes among the labels or the predictions;
    - ``top<k>_accuracy`` with k = ``top_k``, or K - 1 where there are no more than ``top_k`` classes; left out for
      two classes, where it says nothing;
    - ``roc_auc_macro``: one class against the rest, averaged over the classes among the labels (two classes: the area
      of the second class); ``average_precision_macro``: the same average, for two classes too;
    - one ``<score>/<class>`` for each of ``PER_CLASS``, with class names as ``metric_names`` gives them.

    A class that is absent from the labels has precision, recall and F1 of 0 and no ``roc_auc/<class>`` and
    ``average_precision/<class>``. Where all labels are of one class, no area under a ROC curve is defined and
    ``roc_auc_macro`` is left out as well.

    Raises ValueError for arrays that do not fit the module's description, and for top_k below 1.
    """
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1")
    labels, probabilities = checked_predictions(labels, probabilities, class_names)
    predictions = predicted_labels(probabilities, threshold)
    num_classes = len(class_names)
    present = np.unique(labels)
    scores = {
        "accuracy": float(metrics.accuracy_score(labels, predictions)),
        # The same as balanced_accuracy_score, which warns of predictions that are not among the labels.
        "balanced_accuracy": float(
            metrics.recall_score(labels, predictions, labels=present, average="macro", zero_division=0)
        ),
    }
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            labels, predictions, average=average, zero_division=0
        )
        scores[f"precision_{average}"] = float(precision)
        scores[f"recall_{average}"] = float(recall)
        scores[f"f1_{average}"] = float(f1)
    k = min(top_k, num_classes - 1)
    if k >= 2:
        found = metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=np.arange(num_classes))
        scores[f"top{k}_accuracy"] = float(found)

    table = per_class_table(labels, probabilities, class_names, threshold)
    areas = table["roc_auc"].dropna()
    if len(areas) > 0:
        scores["roc_auc_macro"] = float(areas.iloc[-1] if num_classes == 2 else areas.mean())
    scores["average_precision_macro"] = float(table["average_precision"].mean())
    # Single precision leaves row sums 1e-7 away from 1, of which log_loss warns.
    normalized = probabilities / probabilities.sum(axis=1, keepdims=True)
    scores["log_loss"] = float(metrics.log_loss(labels, normalized, labels=np.arange(num_classes)))
    names = metric_names(class_names)
    for score in PER_CLASS:
        for name, value in zip(names, table[score], strict=True):
            if not np.isnan(value):
                scores[f"{score}/{name}"] = float(value)
    return scores


def predicted_labels(probabilities: Probabilities, threshold: float = 0.5) -> npt.NDArray[np.int64]:
    """Choose a class for each row of (N, K) probabilities: (N,) int64.

    Two classes: the second where its probability is at least ``threshold`` (in [0, 1]). More: the likeliest, the first
    of equals. Raises ValueError for another shape or threshold.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(
            f"probabilities have shape {probabilities.shape}; (images, classes) with 2 classes or more fits"
        )
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must lie in [0, 1]")
    if probabilities.shape[1] == 2:
        return np.asarray(probabilities[:, 1] >= threshold, dtype=np.int64)
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def confusion(labels: Labels, predictions: Labels, num_classes: int) -> npt.NDArray[np.int64]:
    """Count images by true class (row) and predicted class (column): (K, K) int64, for (N,) labels and predictions.

    Raises ValueError for no images, different lengths, or a class outside 0 to ``num_classes`` - 1.
    """
    labels = _checked_classes("labels", labels, num_classes)
    predictions = _checked_classes("predictions", predictions, num_classes)
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels do not fit {len(predictions)} predictions")
    matrix = metrics.confusion_matrix(labels, predictions, labels=np.arange(num_classes))
    return np.asarray(matrix, dtype=np.int64)


def per_class_table(
    labels: Labels, probabilities: Probabilities, class_names: Sequence[str], threshold: float = 0.5
) -> pd.DataFrame:
    """One row a class, in the order of ``class_names``.

    Columns: ``class``; ``support`` and ``predicted`` (images of this class, images said to be); ``precision``,
    ``recall``, ``f1``; ``roc_auc`` and ``average_precision`` of the class against the rest (NaN where undefined: no
    image of the class, or for roc_auc of no other); ``confused_with``, the wrong class said most often for its images
    (empty: none). Raises ValueError as ``classification_scores`` does.
    """
    labels, probabilities = checked_predictions(labels, probabilities, class_names)
    predictions = predicted_labels(probabilities, threshold)
    num_classes = len(class_names)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predictions, labels=np.arange(num_classes), zero_division=0
    )
    roc_auc = np.full(num_classes, np.nan)
    average_precision = np.full(num_classes, np.nan)
    for label in np.unique(labels):
        is_class = labels == label
        average_precision[label] = metrics.average_precision_score(is_class, probabilities[:, label])
        if not is_class.all():
            roc_auc[label] = metrics.roc_auc_score(is_class, probabilities[:, label])
    matrix = confusion(labels, predictions, num_classes)
    mistakes = matrix - np.diag(np.diag(matrix))
    confused_with = [str(class_names[row.argmax()]) if row.any() else "" for row in mistakes]
    return pd.DataFrame(
        {
            "class": [str(name) for name in class_names],
            "support": support,
            "predicted": matrix.sum(axis=0),
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "roc_auc": roc_auc,
            "average_precision": average_precision,
            "confused_with": confused_with,
        }
    )


def predictions_table(
    sample_ids: Sequence[str],
    labels: Labels,
    probabilities: Probabilities,
    class_names: Sequence[str],
    threshold: float = 0.5,
) -> pd.DataFrame:
    """One row an image, as it can be written to Parquet.

    Columns: ``sample_id``; ``label`` and ``prediction`` (class names); ``correct``; ``confidence``, the probability of
    the predicted class; ``probability/<class>`` for each class, under the class's own name. Probabilities are float64,
    so that scores computed from the table equal those of ``classification_scores``. Raises ValueError as that function
    does, and when there is not one sample id an image.
    """
    labels, probabilities = checked_predictions(labels, probabilities, class_names)
    if len(sample_ids) != len(labels):
        raise ValueError(f"{len(sample_ids)} sample ids do not fit {len(labels)} labels")
    predictions = predicted_labels(probabilities, threshold)
    names = np.array([str(name) for name in class_names], dtype=object)
    columns: dict[str, Any] = {
        "sample_id": [str(sample_id) for sample_id in sample_ids],
        "label": names[labels],
        "prediction": names[predictions],
        "correct": labels == predictions,
        "confidence": probabilities[np.arange(len(labels)), predictions],
    }
    columns.update({f"probability/{name}": probabilities[:, index] for index, name in enumerate(names)})
    return pd.DataFrame(columns)


def metric_name(text: str) -> str:
    """Make text safe as (a part of) an MLflow metric name.

    Letters and digits of any script, ``_``, ``-``, ``.``, space, ``:`` and ``/`` stay, all else becomes ``_``; as
    MLflow reads names as paths, parts between slashes that are empty go, and parts of dots alone become ``_``. At most
    200 characters; ``_`` for what would be empty.
    """
    safe = re.sub(r"[^\w\-. :/]", "_", str(text))[:_LONGEST_NAME]
    parts = (part.strip() for part in safe.split("/"))
    return "/".join("_" if set(part) == {"."} else part for part in parts if part) or "_"


def metric_names(class_names: Sequence[str]) -> list[str]:
    """The ``metric_name`` of each class, made unique: a safe name stays as it is, others get ``-2``, ``-3``, ..."""
    names = [metric_name(name) for name in class_names]
    taken = {name for name, original in zip(names, class_names, strict=True) if name == original}
    unique = []
    for name, original in zip(names, class_names, strict=True):
        candidate, count = name, 1
        while name != original and candidate in taken:
            count += 1
            candidate = f"{name}-{count}"
        taken.add(candidate)
        unique.append(candidate)
    return unique


def checked_predictions(
    labels: Labels, probabilities: Probabilities, class_names: Sequence[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return labels as int64 and probabilities as float64, or raise ValueError that says what does not fit."""
    num_classes = len(class_names)
    if num_classes < 2:
        raise ValueError(f"class_names holds {num_classes} name(s); at least 2 are needed")
    if len(set(class_names)) < num_classes:
        twice = sorted({name for name in class_names if list(class_names).count(name) > 1})
        raise ValueError(f"class_names holds {twice[0]!r} more than once")
    checked = _checked_classes("labels", labels, num_classes)
    given = np.asarray(probabilities)
    if not np.issubdtype(given.dtype, np.floating):
        raise ValueError(f"probabilities are of type {given.dtype}; floating point numbers are needed")
    scored = given.astype(np.float64)
    if scored.shape != (len(checked), num_classes):
        raise ValueError(
            f"probabilities have shape {scored.shape}; {len(checked)} labels and {num_classes} class names need"
            f" {(len(checked), num_classes)}"
        )
    outside = ~((scored >= 0) & (scored <= 1))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(f"the probability at row {row}, class {column} is {scored[row, column]}; [0, 1] is allowed")
    sums = scored.sum(axis=1)
    if (np.abs(sums - 1) > 1e-3).any():
        row = int(np.abs(sums - 1).argmax())
        raise ValueError(f"the probabilities of row {row} sum to {sums[row]:.6g}, not to 1; are they logits?")
    return checked, scored


def _checked_classes(what: str, classes: Labels, num_classes: int) -> npt.NDArray[np.int64]:
    array = np.asarray(classes)
    if array.ndim != 1:
        raise ValueError(f"{what} have shape {array.shape}; one dimension is needed")
    if len(array) == 0:
        raise ValueError(f"{what} are empty; there is nothing to score")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{what} are of type {array.dtype}; whole numbers are needed")
    if array.min() < 0 or array.max() >= num_classes:
        wrong = array[(array < 0) | (array >= num_classes)][0]
        raise ValueError(f"{what} hold {wrong}; with {num_classes} classes they lie in 0 to {num_classes - 1}")
    return array.astype(np.int64)
