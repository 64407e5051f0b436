"""Scores of class maps, from counts of pixels: Dice and intersection over union (IoU) by class.

A class map is uint8: 0 background, k the class k - 1, 255 ignored. With tp, fp and fn the pixels of a class that are
found, found wrongly and missed, over all images together:

- Dice = 2 tp / (2 tp + fp + fn), the F1 score of its pixels (Dice, "Measures of the amount of ecologic association
  between species", Ecology 26 (1945));
- IoU = tp / (tp + fp + fn) (Jaccard 1901).

A class that is neither in the truth nor in the prediction has no Dice and no IoU (NaN), and does not count in a mean.
Means are over the classes of objects, without the background; where none of them is in truth or prediction they are 1,
since there was nothing to find and nothing was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recognition.objects import IGNORED

if TYPE_CHECKING:
    import pandas as pd

BACKGROUND = "background"
ClassMaps = NDArray[np.uint8]
Counts = NDArray[np.int64]


def confusion(truth: ClassMaps, predicted: ClassMaps, num_classes: int) -> Counts:
    """Count pixels by true (row) and predicted (column) class, background first; ignored ones do not count.

    Args:
        truth: any shape.
        predicted: the same shape; nothing in it is ignored.
        num_classes: K, without background.

    Returns:
        Shape (1 + K, 1 + K).

    Raises:
        ValueError: the shapes differ, or a class is none of them.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth of shape {truth.shape} and prediction of shape {predicted.shape} do not fit")
    counted = truth != IGNORED
    rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    size = 1 + num_classes
    largest = max(rows.max(initial=0), columns.max(initial=0))
    if largest >= size:
        raise ValueError(f"class number {largest} is none of 0 to {num_classes}")
    return np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)


def dice(counts: Counts) -> NDArray[np.float64]:
    """Dice of each class, 0 to 1, NaN for one that is neither in truth nor in prediction; shape (1 + K,)."""
    found, either = np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1)
    return _ratio(2 * found, either)


def iou(counts: Counts) -> NDArray[np.float64]:
    """Intersection over union of each class, 0 to 1, NaN as for `dice`; shape (1 + K,)."""
    found = np.diag(counts)
    return _ratio(found, counts.sum(axis=0) + counts.sum(axis=1) - found)


def macro(by_class: NDArray[np.float64]) -> float:
    """The mean of a score, shape (1 + K,), over the classes of objects that have it; 1 where none has."""
    there = by_class[1:][~np.isnan(by_class[1:])]
    return float(there.mean()) if len(there) else 1.0


def segmentation_scores(counts: Counts, class_names: Sequence[str]) -> dict[str, float]:
    """``dice_macro``, ``iou_macro``, ``pixel_accuracy`` (with background), ``dice/<class>`` and ``iou/<class>``.

    Args:
        counts: as `confusion` gives them.
        class_names: K names, without background; classes without a score are left out.
    """
    dices, ious = dice(counts), iou(counts)
    scores = {"dice_macro": macro(dices), "iou_macro": macro(ious), "pixel_accuracy": pixel_accuracy(counts)}
    for name, values in (("dice", dices), ("iou", ious)):
        of_classes = zip(class_names, values[1:], strict=True)
        scores |= {f"{name}/{class_name}": float(value) for class_name, value in of_classes if not np.isnan(value)}
    return scores


def pixel_accuracy(counts: Counts) -> float:
    """The share of pixels with the right class, background included; 1 where none counts."""
    return float(np.trace(counts) / counts.sum()) if counts.sum() else 1.0


def per_class_table(counts: Counts, class_names: Sequence[str]) -> pd.DataFrame:
    """One row a class, background first: pixels in truth and prediction, precision, recall, Dice and IoU."""
    import pandas as pd

    found = np.diag(counts)
    return pd.DataFrame(
        {
            "class": [BACKGROUND, *class_names],
            "pixels": counts.sum(axis=1),
            "predicted_pixels": counts.sum(axis=0),
            "precision": _ratio(found, counts.sum(axis=0)),
            "recall": _ratio(found, counts.sum(axis=1)),
            "dice": dice(counts),
            "iou": iou(counts),
        }
    )


def _ratio(above: Counts, below: Counts) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)
