"""Dice and IoU against counting by hand, scikit-learn and torchmetrics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score
from torchmetrics.segmentation import DiceScore, MeanIoU

from recognition import mask_figures, mask_scores
from recognition.mask_scores import confusion, dice, iou, macro, per_class_table, segmentation_scores
from recognition.objects import IGNORED

TRUTH = np.array([[1, 1, 0], [2, 0, 0]], np.uint8)
SAID = np.array([[1, 0, 0], [2, 2, 0]], np.uint8)


def random_maps(seed: int, classes: int = 4) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, (3, 16, 16)).astype(np.uint8)
    said = np.where(random.random(truth.shape) < 0.6, truth, random.integers(0, classes, truth.shape)).astype(np.uint8)
    return truth, said


def test_a_small_example_is_counted_by_hand() -> None:
    counts = confusion(TRUTH, SAID, 2)
    assert counts.tolist() == [[2, 0, 1], [1, 1, 0], [0, 0, 1]]
    # background: 2 found, 1 wrongly, 1 missed; 1: 1 found, 1 missed; 2: 1 found, 1 wrongly
    np.testing.assert_allclose(dice(counts), [4 / 6, 2 / 3, 2 / 3])
    np.testing.assert_allclose(iou(counts), [2 / 4, 1 / 2, 1 / 2])
    assert segmentation_scores(counts, ["a", "b"]) == pytest.approx(
        {
            "dice_macro": 2 / 3,
            "iou_macro": 1 / 2,
            "pixel_accuracy": 4 / 6,
            "dice/a": 2 / 3,
            "dice/b": 2 / 3,
            "iou/a": 1 / 2,
            "iou/b": 1 / 2,
        }
    )


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn_over_pixels(seed: int) -> None:
    truth, said = random_maps(seed)
    counts = confusion(truth, said, 3)
    flat = truth.ravel(), said.ravel()
    np.testing.assert_array_equal(counts, confusion_matrix(*flat, labels=range(4)))
    np.testing.assert_allclose(dice(counts), f1_score(*flat, average=None))
    np.testing.assert_allclose(iou(counts), jaccard_score(*flat, average=None))
    assert mask_scores.pixel_accuracy(counts) == pytest.approx(accuracy_score(*flat))


@pytest.mark.parametrize("seed", range(3))
def test_means_are_those_of_torchmetrics(seed: int) -> None:
    truth, said = random_maps(seed)
    tensors = torch.from_numpy(said).long().flatten()[None], torch.from_numpy(truth).long().flatten()[None]
    counts = confusion(truth, said, 3)
    theirs = DiceScore(4, include_background=False, average="macro", input_format="index")
    assert macro(dice(counts)) == pytest.approx(float(theirs(*tensors)), abs=1e-6)
    of_overlap = MeanIoU(4, include_background=False, input_format="index")
    assert macro(iou(counts)) == pytest.approx(float(of_overlap(*tensors)), abs=1e-6)


def test_ignored_pixels_do_not_count() -> None:
    truth, said = random_maps(0)
    hidden = truth.copy()
    hidden[:, :8] = IGNORED
    np.testing.assert_array_equal(confusion(hidden, said, 3), confusion(truth[:, 8:], said[:, 8:], 3))
    nothing = confusion(np.full((4, 4), IGNORED, np.uint8), np.zeros((4, 4), np.uint8), 3)
    assert not nothing.any()


def test_a_class_neither_there_nor_found_does_not_count() -> None:
    counts = confusion(TRUTH, SAID, 3)
    assert math.isnan(dice(counts)[3])
    assert math.isnan(iou(counts)[3])
    assert macro(dice(counts)) == pytest.approx(2 / 3)
    scores = segmentation_scores(counts, ["a", "b", "c"])
    assert "dice/c" not in scores
    assert "iou/c" not in scores


def test_a_class_found_where_it_is_not_counts_as_zero() -> None:
    counts = confusion(np.zeros((2, 2), np.uint8), np.array([[0, 1], [0, 0]], np.uint8), 1)
    assert macro(dice(counts)) == 0
    assert macro(iou(counts)) == 0


def test_nothing_to_find_and_nothing_found_is_right() -> None:
    counts = confusion(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 2)
    assert macro(dice(counts)) == macro(iou(counts)) == mask_scores.pixel_accuracy(counts) == 1


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"truth of shape \(4, 4\) and prediction of shape \(4, 5\) do not fit"):
        confusion(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), 1)
    with pytest.raises(ValueError, match="class number 2 is none of 0 to 1"):
        confusion(np.zeros((2, 2), np.uint8), np.full((2, 2), 2, np.uint8), 1)


def test_the_table_holds_a_row_a_class_and_the_background() -> None:
    table = per_class_table(confusion(TRUTH, SAID, 2), ["a", "b"]).set_index("class")
    assert list(table.index) == ["background", "a", "b"]
    assert table.loc["a", ["pixels", "predicted_pixels"]].tolist() == [2, 1]
    assert table.loc["a", ["precision", "recall"]].tolist() == [1.0, 0.5]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_overlays_are_drawn_for_any_number_of_images(tmp_path: Path, count: int) -> None:
    images = np.zeros((count, 20, 24, 1), np.uint8)
    maps = np.ones((count, 20, 24), np.uint8)
    maps[:, 10:] = IGNORED
    path = tmp_path / "figures" / "overlays.png"
    names = [f"class {number}" for number in range(30)]
    mask_figures.overlays(images, maps, maps, ["0.5"] * count, ["a/b.png"] * count, names, "title", path)
    with Image.open(path) as figure:
        assert figure.size[0] > 300
    with pytest.raises(ValueError, match="do not fit each other"):
        mask_figures.overlays(images, maps[:, 1:], maps, ["0.5"] * count, ["a"] * count, names, "title", path)
