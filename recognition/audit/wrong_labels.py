"""Labels that are likely wrong: confident learning, from the probabilities of a model that has not seen the images.

Curtis Northcutt, Lu Jiang, Isaac Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels. Journal of
Artificial Intelligence Research 70 (2021), 1373-1411. The equation numbers below are the paper's.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Prune = Literal["noise_rate", "class", "both"]
Rank = Literal["normalised_margin", "self_confidence"]
Probabilities = NDArray[np.floating[Any]]

_ROWS_AT_ONCE = 1 << 16


def suspicious(
    labels: NDArray[np.int64],
    probabilities: Probabilities,
    *,
    prune: Prune = "noise_rate",
    rank: Rank = "self_confidence",
) -> NDArray[np.int64]:
    """The images whose labels are likely wrong, the likeliest first.

    Args:
        labels: int64 (N,), the given labels.
        probabilities: (N, classes), of a model that was not trained on the image it judges; rows sum up to 1.
        prune: how many of each class are taken, and by what. noise_rate: for each pair of given and other class as many
            as the joint distribution says, by margin. class: for each class as many, by least probability of the given
            label. both: what both take.
        rank: the order of the result. self_confidence: by the probability of the given label. normalised_margin: by
            that, less the highest probability of another label.

    Returns:
        Sorted by suspicion. An image whose given label is its most probable is never among them, nor is the only image
        of a class, of which a model that has not seen it can know nothing.

    Raises:
        ValueError: shapes that do not fit, labels out of range, probabilities that are none.
    """
    _check(labels, probabilities)
    if len(labels) == 0:
        return np.zeros(0, np.int64)
    joint = estimated_joint(labels, probabilities)
    taken = np.zeros(len(labels), bool) if prune == "noise_rate" else _by_class(labels, probabilities, joint)
    if prune != "class":
        by_noise_rate = _by_noise_rate(labels, probabilities, joint)
        taken = taken & by_noise_rate if prune == "both" else by_noise_rate
    own, other = _own_and_best_other(labels, probabilities)
    alone = np.bincount(labels, minlength=probabilities.shape[1])[labels] < 2
    found = np.flatnonzero(taken & (own < other) & ~alone)
    doubt = own[found] - other[found] if rank == "normalised_margin" else own[found]
    return found[np.argsort(doubt, kind="stable")].astype(np.int64)


def thresholds(labels: NDArray[np.int64], probabilities: Probabilities) -> NDArray[np.float64]:
    """For each class the mean probability that its images have of it (2); 1 for a class without images."""
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    count = np.bincount(labels, minlength=classes)
    total = np.bincount(labels, weights=own, minlength=classes)
    return np.divide(total, count, out=np.ones(classes), where=count > 0)


def confident_joint(labels: NDArray[np.int64], probabilities: Probabilities) -> NDArray[np.int64]:
    """How many images with the given label i are confidently of class j (1), int64 (classes, classes).

    An image is confidently of a class where its probability reaches the class's threshold; of several such classes,
    of the most probable. Images that are confidently of none are not counted.
    """
    classes = probabilities.shape[1]
    least = thresholds(labels, probabilities) - 1e-9  # a class of equal probabilities reaches its own mean
    counts = np.zeros(classes * classes, np.int64)
    for start in range(0, len(labels), _ROWS_AT_ONCE):
        given, rows = labels[start : start + _ROWS_AT_ONCE], probabilities[start : start + _ROWS_AT_ONCE]
        confident = rows >= least
        best = np.where(confident, rows, -1.0).argmax(axis=1)
        counted = confident.any(axis=1)
        counts += np.bincount(given[counted] * classes + best[counted], minlength=classes * classes)
    return counts.reshape(classes, classes)


def estimated_joint(labels: NDArray[np.int64], probabilities: Probabilities) -> NDArray[np.float64]:
    """The joint distribution of given and true labels as counts of images (3): rows sum up to the given labels.

    A class none of whose images is confidently of any class is taken to be labelled right.
    """
    counted = confident_joint(labels, probabilities).astype(np.float64)
    empty = counted.sum(axis=1) == 0
    counted[empty, empty] = 1.0
    share = counted / counted.sum(axis=1, keepdims=True)
    given = np.bincount(labels, minlength=probabilities.shape[1])
    return np.asarray(share * given[:, np.newaxis], np.float64)


def _by_class(labels: NDArray[np.int64], probabilities: Probabilities, joint: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of each class as many as are expected to be wrong, those with the least probability of their label."""
    taken = np.zeros(len(labels), bool)
    own = probabilities[np.arange(len(labels)), labels]
    for label in range(len(joint)):
        of_class = np.flatnonzero(labels == label)
        wrong = round(float(joint[label].sum() - joint[label, label]))
        taken[of_class[np.argsort(own[of_class], kind="stable")][:wrong]] = True
    return taken


def _by_noise_rate(
    labels: NDArray[np.int64], probabilities: Probabilities, joint: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Of each pair of a given and another class as many as are expected, those with the largest margin."""
    taken = np.zeros(len(labels), bool)
    expected = np.rint(joint).astype(np.int64)
    np.fill_diagonal(expected, 0)
    for label in np.flatnonzero(expected.any(axis=1)).tolist():
        of_class = np.flatnonzero(labels == label)
        for other in np.flatnonzero(expected[label]).tolist():
            margin = probabilities[of_class, other] - probabilities[of_class, label]
            taken[of_class[np.argsort(-margin, kind="stable")[: expected[label, other]]]] = True
    return taken


def _own_and_best_other(
    labels: NDArray[np.int64], probabilities: Probabilities
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The probability of the given label, and the highest of the others; each (N,)."""
    own, other = np.zeros(len(labels)), np.zeros(len(labels))
    for start in range(0, len(labels), _ROWS_AT_ONCE):
        given, rows = labels[start : start + _ROWS_AT_ONCE], probabilities[start : start + _ROWS_AT_ONCE].copy()
        end = start + len(given)
        own[start:end] = rows[np.arange(len(given)), given]
        rows[np.arange(len(given)), given] = -1.0
        other[start:end] = rows.max(axis=1)
    return own, other


def _check(labels: NDArray[np.int64], probabilities: Probabilities) -> None:
    if probabilities.ndim != 2 or labels.shape != (len(probabilities),):
        raise ValueError(f"labels {labels.shape} and probabilities {probabilities.shape} are not (N,) and (N, classes)")
    if probabilities.shape[1] < 2:
        raise ValueError("labels can only be wrong where there are at least 2 classes")
    if len(labels) and (labels.min() < 0 or labels.max() >= probabilities.shape[1]):
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}, of {probabilities.shape[1]} classes")
    for start in range(0, len(labels), _ROWS_AT_ONCE):
        rows = probabilities[start : start + _ROWS_AT_ONCE]
        if not ((rows >= -1e-6) & (rows <= 1 + 1e-6)).all() or not np.allclose(rows.sum(axis=1), 1, atol=1e-2):
            raise ValueError("probabilities must lie between 0 and 1, and sum up to 1 for each image")
