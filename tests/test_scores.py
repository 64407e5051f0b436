"""Scores are what a person counts by hand, and what scikit-learn and torchmetrics compute."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from mlflow.utils.validation import _validate_metric_name
from sklearn import metrics
from torchmetrics.functional import classification as reference

from recognition.scores import (
    PER_CLASS,
    classification_scores,
    confusion,
    metric_name,
    metric_names,
    per_class_table,
    predicted_labels,
    predictions_table,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def random_predictions(count: int, num_classes: int, seed: int) -> tuple[Ints, Floats]:
    """Unbalanced labels and float32 probabilities that know something of them."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(num_classes, size=count, p=generator.dirichlet(np.full(num_classes, 2.0)))
    labels[:num_classes] = np.arange(num_classes)
    logits = generator.normal(size=(count, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    exponentials = np.exp(logits)
    return labels, (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def names_of(num_classes: int) -> list[str]:
    return [f"class {index}" for index in range(num_classes)]


# Six images: two cats and one dog are right, a cat is called a dog, a bird a cat, a bird a dog.
LABELS = np.array([0, 0, 0, 1, 2, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.9, 0.0], [0.5, 0.2, 0.3], [0.1, 0.6, 0.3]]
)
ANIMALS = ["cat", "dog", "bird"]


def test_scores_of_six_images_are_those_counted_by_hand() -> None:
    scores = classification_scores(LABELS, PROBABILITIES, ANIMALS)

    assert scores["accuracy"] == pytest.approx(3 / 6)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert (scores["precision/cat"], scores["recall/cat"]) == pytest.approx((2 / 3, 2 / 3))
    assert (scores["precision/dog"], scores["recall/dog"]) == pytest.approx((1 / 3, 1))
    assert (scores["precision/bird"], scores["recall/bird"], scores["f1/bird"]) == (0, 0, 0)
    assert scores["precision_macro"] == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert scores["recall_weighted"] == pytest.approx(scores["accuracy"])
    assert scores["f1_weighted"] == pytest.approx((3 * 2 / 3 + 1 * 1 / 2 + 2 * 0) / 6)
    assert [scores[f"support/{name}"] for name in ANIMALS] == [3, 1, 2]
    # The two best guesses miss no image.
    assert scores["top2_accuracy"] == 1
    # Dog's 0.9 is above all others' 0.1, 0.3, 0.7, 0.2, 0.6; bird's two 0.3 as well.
    assert (scores["roc_auc/dog"], scores["roc_auc/bird"]) == (1, 1)
    # Cat's 0.8, 0.6, 0.2 against 0.1, 0.5, 0.1: of 9 pairs only 0.2 < 0.5 is the wrong way round.
    assert scores["roc_auc/cat"] == pytest.approx(8 / 9)
    assert scores["roc_auc_macro"] == pytest.approx((8 / 9 + 1 + 1) / 3)
    assert scores["log_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.2, 0.9, 0.3, 0.3]).mean())


def test_confusion_has_true_classes_as_rows() -> None:
    matrix = confusion(LABELS, predicted_labels(PROBABILITIES), 3)
    assert matrix.tolist() == [[2, 1, 0], [0, 1, 0], [1, 1, 0]]
    assert matrix.dtype == np.int64


def test_confusion_keeps_a_row_for_classes_that_do_not_occur() -> None:
    assert confusion(np.array([0]), np.array([2]), 4).tolist() == [[0, 0, 1, 0], [0] * 4, [0] * 4, [0] * 4]


@pytest.mark.parametrize(("num_classes", "seed"), [(3, 0), (10, 1), (37, 2)])
def test_multiclass_scores_equal_torchmetrics(num_classes: int, seed: int) -> None:
    labels, probabilities = random_predictions(800, num_classes, seed)
    names = names_of(num_classes)
    scores = classification_scores(labels, probabilities, names, top_k=5)
    truth, guess = torch.from_numpy(labels), torch.from_numpy(probabilities).double()

    expected = {"accuracy": reference.multiclass_accuracy(guess, truth, num_classes, average="micro")}
    for average in ("macro", "weighted"):
        expected[f"precision_{average}"] = reference.multiclass_precision(guess, truth, num_classes, average)
        expected[f"recall_{average}"] = reference.multiclass_recall(guess, truth, num_classes, average)
        expected[f"f1_{average}"] = reference.multiclass_f1_score(guess, truth, num_classes, average=average)
    expected["balanced_accuracy"] = expected["recall_macro"]
    k = min(5, num_classes - 1)
    expected[f"top{k}_accuracy"] = reference.multiclass_accuracy(guess, truth, num_classes, average="micro", top_k=k)
    expected["roc_auc_macro"] = reference.multiclass_auroc(guess, truth, num_classes)
    expected["average_precision_macro"] = reference.multiclass_average_precision(guess, truth, num_classes)
    by_class = {
        "precision": reference.multiclass_precision(guess, truth, num_classes, "none"),
        "recall": reference.multiclass_recall(guess, truth, num_classes, "none"),
        "f1": reference.multiclass_f1_score(guess, truth, num_classes, average="none"),
        "roc_auc": reference.multiclass_auroc(guess, truth, num_classes, "none"),
        "average_precision": reference.multiclass_average_precision(guess, truth, num_classes, "none"),
        "support": torch.bincount(truth, minlength=num_classes),
    }
    assert tuple(by_class) == PER_CLASS
    for score, values in by_class.items():
        expected.update({f"{score}/{name}": value for name, value in zip(names, values, strict=True)})

    assert scores.keys() == expected.keys() | {"log_loss"}
    for key, value in expected.items():
        assert scores[key] == pytest.approx(float(value), abs=1e-6), key
    assert scores["log_loss"] == pytest.approx(float(torch.nn.functional.nll_loss(guess.log(), truth)), abs=1e-6)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_binary_scores_equal_torchmetrics_and_scikit_learn_at_any_threshold(threshold: float) -> None:
    labels, probabilities = random_predictions(500, 2, seed=3)
    scores = classification_scores(labels, probabilities, ["no", "yes"], threshold=threshold)
    truth, guess = torch.from_numpy(labels), torch.from_numpy(probabilities[:, 1]).double()
    predictions = (probabilities[:, 1] >= threshold).astype(int)

    expected = {
        "accuracy": reference.binary_accuracy(guess, truth, threshold),
        "precision/yes": reference.binary_precision(guess, truth, threshold),
        "recall/yes": reference.binary_recall(guess, truth, threshold),
        "f1/yes": reference.binary_f1_score(guess, truth, threshold),
        "recall/no": reference.binary_specificity(guess, truth, threshold),
        "roc_auc/yes": reference.binary_auroc(guess, truth),
        "roc_auc_macro": reference.binary_auroc(guess, truth),
        "average_precision/yes": reference.binary_average_precision(guess, truth),
        "average_precision/no": reference.binary_average_precision(1 - guess, 1 - truth),
    }
    for key, value in expected.items():
        assert scores[key] == pytest.approx(float(value), abs=1e-6), key
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predictions))
    assert scores["precision_macro"] == pytest.approx(metrics.precision_score(labels, predictions, average="macro"))
    assert scores["average_precision_macro"] == pytest.approx(
        (scores["average_precision/no"] + scores["average_precision/yes"]) / 2
    )
    assert not any(key.startswith("top") for key in scores)


def test_absent_classes_leave_no_nan_and_macro_scores_cover_the_present() -> None:
    labels, probabilities = random_predictions(300, 6, seed=4)
    kept = (labels != 2) & (labels != 5)
    labels, probabilities = labels[kept], probabilities[kept]
    scores = classification_scores(labels, probabilities, names_of(6))
    predictions = probabilities.argmax(axis=1)
    assert {2, 5} & set(predictions.tolist()), "an absent class must be predicted for this test to say anything"

    assert np.isfinite(list(scores.values())).all()
    assert "roc_auc/class 2" not in scores
    assert "average_precision/class 5" not in scores
    assert scores["support/class 2"] == scores["recall/class 2"] == scores["precision/class 5"] == 0
    present = [0, 1, 3, 4]
    areas = [metrics.roc_auc_score(labels == label, probabilities[:, label]) for label in present]
    precisions = [metrics.average_precision_score(labels == label, probabilities[:, label]) for label in present]
    assert scores["roc_auc_macro"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert scores["average_precision_macro"] == pytest.approx(np.mean(precisions), abs=1e-6)
    for average in ("macro", "weighted"):
        expected = metrics.precision_recall_fscore_support(labels, predictions, average=average, zero_division=0)
        found = [scores[f"{score}_{average}"] for score in ("precision", "recall", "f1")]
        assert found == pytest.approx(expected[:3], abs=1e-6)
    recalls = metrics.recall_score(labels, predictions, labels=present, average=None)
    assert scores["balanced_accuracy"] == pytest.approx(recalls.mean())


def test_labels_of_one_class_only_have_no_area_under_the_curve() -> None:
    scores = classification_scores(np.array([1, 1]), np.array([[0.1, 0.9], [0.7, 0.3]]), ["no", "yes"])
    assert scores["accuracy"] == 0.5
    assert not any(key.startswith("roc_auc") for key in scores)
    assert np.isfinite(list(scores.values())).all()


@pytest.mark.parametrize(
    ("num_classes", "top_k", "expected"),
    [(2, 5, []), (3, 5, ["top2_accuracy"]), (5, 5, ["top4_accuracy"]), (10, 5, ["top5_accuracy"]), (10, 1, [])],
)
def test_top_k_is_fitted_to_the_number_of_classes(num_classes: int, top_k: int, expected: list[str]) -> None:
    scores = classification_scores(*random_predictions(50, num_classes, seed=5), names_of(num_classes), top_k=top_k)
    assert [key for key in scores if key.startswith("top")] == expected


def test_threshold_is_inclusive_and_for_two_classes_only() -> None:
    assert predicted_labels(np.array([[0.5, 0.5], [0.6, 0.4], [0.2, 0.8]])).tolist() == [1, 0, 1]
    assert predicted_labels(np.array([[0.5, 0.5], [0.6, 0.4], [0.2, 0.8]]), threshold=0.4).tolist() == [1, 1, 1]
    assert predicted_labels(np.array([[0.4, 0.3, 0.3]]), threshold=0.9).tolist() == [0]


def test_half_precision_probabilities_are_scored() -> None:
    labels, probabilities = random_predictions(200, 10, seed=6)
    half = classification_scores(labels, probabilities.astype(np.float16), names_of(10))
    assert half["log_loss"] == pytest.approx(
        classification_scores(labels, probabilities, names_of(10))["log_loss"], abs=1e-3
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("T-shirt/top", "T-shirt/top"),
        ("x = 50%", "x _ 50_"),
        ("Gänseblümchen", "Gänseblümchen"),
        ("a//b/", "a/b"),
        ("../etc", "_/etc"),
        (" / ", "_"),
        ("", "_"),
        ("two\nlines", "two_lines"),
    ],
)
def test_unsafe_names_become_ones_that_mlflow_takes(text: str, expected: str) -> None:
    assert metric_name(text) == expected
    _validate_metric_name(f"test/recall/{expected}")  # type: ignore[no-untyped-call]  # MLflow leaves it untyped


def test_names_that_collide_get_a_suffix_and_safe_names_stay() -> None:
    assert metric_names(["a?", "a_", "a!", "a_-2"]) == ["a_-3", "a_", "a_-4", "a_-2"]
    scores = classification_scores(LABELS, PROBABILITIES, ["c?", "c!", "c#"])
    assert [scores[f"support/{name}"] for name in ("c_", "c_-2", "c_-3")] == [3, 1, 2]
    assert len(metric_name("x" * 1000)) <= 200


def test_per_class_table_says_what_a_class_is_taken_for() -> None:
    table = per_class_table(LABELS, PROBABILITIES, ANIMALS).set_index("class")
    assert table["predicted"].to_dict() == {"cat": 3, "dog": 3, "bird": 0}
    assert table["confused_with"].to_dict() == {"cat": "dog", "dog": "", "bird": "cat"}


def test_predictions_survive_parquet_and_give_the_same_scores() -> None:
    labels, probabilities = random_predictions(120, 4, seed=7)
    names = ["a", "b/c", "d e", "$f"]
    ids = [f"folder/{index}.png" for index in range(120)]
    stored = io.BytesIO()
    predictions_table(ids, labels, probabilities, names).to_parquet(stored)
    table = pd.read_parquet(stored)

    columns = ["sample_id", "label", "prediction", "correct", "confidence", *(f"probability/{name}" for name in names)]
    assert list(table.columns) == columns
    assert table["sample_id"].tolist() == ids
    assert table["label"].tolist() == [names[label] for label in labels]
    scores = classification_scores(labels, probabilities, names)
    assert table["correct"].mean() == scores["accuracy"]
    assert (table["confidence"] == table[columns[5:]].max(axis=1)).all()
    assert classification_scores(labels, table[columns[5:]].to_numpy(), names) == scores


@pytest.mark.parametrize(
    ("labels", "probabilities", "class_names", "message"),
    [
        ([], np.zeros((0, 2)), ["a", "b"], "empty"),
        ([0, 1], [[0.5, 0.5]], ["a", "b"], r"\(1, 2\).*\(2, 2\)"),
        ([0], [[0.5, 0.5]], ["a", "b", "c"], r"\(1, 3\)"),
        ([[0]], [[0.5, 0.5]], ["a", "b"], "one dimension"),
        ([0, 2], [[0.5, 0.5]] * 2, ["a", "b"], "hold 2.* 0 to 1"),
        ([-1], [[0.5, 0.5]], ["a", "b"], "hold -1"),
        ([0.0], [[0.5, 0.5]], ["a", "b"], "float64; whole numbers"),
        ([0], [[1, 0]], ["a", "b"], "floating point"),
        ([0, 0], [[0.5, 0.5], [0.9, 0.3]], ["a", "b"], "row 1 sum to 1.2"),
        ([0], [[2.0, -1.0]], ["a", "b"], r"row 0, class 0 is 2\.0"),
        ([0], [[np.nan, 1.0]], ["a", "b"], "is nan"),
        ([0], [[1.0]], ["a"], "at least 2"),
        ([0], [[0.5, 0.5]], ["a", "a"], "'a' more than once"),
    ],
)
def test_input_that_does_not_fit_is_named(
    labels: object, probabilities: object, class_names: list[str], message: str
) -> None:
    given = np.array(labels, dtype=np.int64) if labels == [] else np.array(labels)
    with pytest.raises(ValueError, match=message):
        classification_scores(given, np.array(probabilities), class_names)


def test_wrong_thresholds_ids_and_predictions_are_named() -> None:
    with pytest.raises(ValueError, match=r"threshold is 1\.5"):
        predicted_labels(PROBABILITIES, threshold=1.5)
    with pytest.raises(ValueError, match="top_k is 0"):
        classification_scores(LABELS, PROBABILITIES, ANIMALS, top_k=0)
    with pytest.raises(ValueError, match="5 sample ids do not fit 6"):
        predictions_table(["id"] * 5, LABELS, PROBABILITIES, ANIMALS)
    with pytest.raises(ValueError, match="predictions hold 3"):
        confusion(np.array([0]), np.array([3]), 3)
    with pytest.raises(ValueError, match="2 labels do not fit 1"):
        confusion(np.array([0, 1]), np.array([0]), 3)
