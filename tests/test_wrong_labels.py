"""Confident learning finds planted wrong labels, and few where there are none."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from recognition.audit.wrong_labels import Prune, Rank, confident_joint, estimated_joint, suspicious, thresholds


def out_of_sample(images: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probabilities of a logistic regression for images that it was not fitted to."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=0.1, max_iter=300)
        found: NDArray[np.float64] = cross_val_predict(model, images, labels, cv=folds, method="predict_proba")
    return found


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images / 16, labels.astype(np.int64)


@dataclass(frozen=True)
class Planted:
    """The digits with 5 % wrong labels."""

    wrong: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@pytest.fixture(scope="module")
def planted(digits: tuple[NDArray[np.float64], NDArray[np.int64]]) -> Planted:
    images, right = digits
    random = np.random.default_rng(1)
    wrong = random.choice(len(right), round(0.05 * len(right)), replace=False)
    labels = right.copy()
    labels[wrong] = (right[wrong] + random.integers(1, 10, len(wrong))) % 10
    return Planted(wrong, labels, out_of_sample(images, labels))


@pytest.mark.parametrize(
    ("prune", "recall", "precision"), [("noise_rate", 0.75, 0.8), ("class", 0.8, 0.75), ("both", 0.7, 0.85)]
)
def test_planted_wrong_labels_of_digits_are_found(
    planted: Planted, prune: Prune, recall: float, precision: float
) -> None:
    found = suspicious(planted.labels, planted.probabilities, prune=prune)
    hits = np.isin(found, planted.wrong)
    assert hits.sum() / len(planted.wrong) >= recall
    assert hits.mean() >= precision
    assert hits[:45].mean() >= 0.95, "the likeliest come first"


def test_few_are_found_where_no_label_is_wrong(digits: tuple[NDArray[np.float64], NDArray[np.int64]]) -> None:
    images, labels = digits
    assert len(suspicious(labels, out_of_sample(images, labels))) <= 0.01 * len(labels)


# two classes; the last of class 0 is confidently of class 1
LABELS = np.array([0, 0, 0, 0, 1, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7]])


def test_thresholds_and_joint_are_those_counted_by_hand() -> None:
    assert thresholds(LABELS, PROBABILITIES) == pytest.approx([0.625, 0.8])
    # of class 0 three reach 0.625 and one reaches 0.8 for class 1; of class 1 two reach 0.8
    assert confident_joint(LABELS, PROBABILITIES).tolist() == [[3, 1], [0, 2]]
    assert estimated_joint(LABELS, PROBABILITIES).tolist() == [[3, 1], [0, 3]]
    assert suspicious(LABELS, PROBABILITIES).tolist() == [3]


@pytest.mark.parametrize("rank", ["self_confidence", "normalised_margin"])
def test_the_likeliest_come_first(rank: Rank) -> None:
    labels = np.array([0] * 8 + [1] * 6 + [0, 0])
    sure = [[0.95, 0.05]] * 8 + [[0.05, 0.95]] * 6
    probabilities = np.array([*sure, [0.04, 0.96], [0.01, 0.99]])
    assert suspicious(labels, probabilities, rank=rank).tolist() == [15, 14]


def test_a_class_of_one_image_or_none_and_one_without_confident_images_do_no_harm() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 4, 4])
    sure = [[0.8, 0.1, 0.1, 0, 0], [0.9, 0.1, 0, 0, 0], [0.7, 0.3, 0, 0, 0], [0.1, 0.9, 0, 0, 0], [0.2, 0.8, 0, 0, 0]]
    unsure = [[0.1, 0.9, 0, 0, 0], [0.9, 0.1, 0, 0, 0], [0.3, 0.3, 0.3, 0.1, 0], [0.3, 0.2, 0.4, 0.1, 0]]
    probabilities = np.array([*sure, *unsure])
    prunes: tuple[Prune, ...] = ("noise_rate", "class", "both")
    for prune in prunes:
        found = suspicious(labels, probabilities, prune=prune)
        assert 6 not in found, "the only image of its class"
        assert not set(found.tolist()) & set(range(6))
    assert np.isfinite(estimated_joint(labels, probabilities)).all()


def test_no_images_give_no_suspicion_and_nonsense_is_refused() -> None:
    assert suspicious(np.zeros(0, np.int64), np.zeros((0, 3))).tolist() == []
    with pytest.raises(ValueError, match="sum up to 1"):
        suspicious(np.array([0]), np.array([[np.nan, 1.0]]))
    with pytest.raises(ValueError, match="labels reach"):
        suspicious(np.array([2]), np.array([[0.5, 0.5]]))
