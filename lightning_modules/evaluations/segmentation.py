"""Scores of a segmenter: Dice and IoU by class over all test pixels, a table of images, and overlays of the worst."""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_modules.evaluations.judged import Judged
from recognition import mask_figures, mask_scores, tables
from recognition.events import Progress
from recognition.scoring.segmenter import Segmenter


def evaluate(judged: Judged) -> dict[str, float]:
    """Score a segmenter on the test split, each image once, at the size of the prepared images.

    Beside the scores over all pixels, ``dice_per_image`` is the mean of the images' own ``dice_macro``, in which a
    small object counts as much as a large one elsewhere.

    Writes ``per_class.csv``, ``per_image.csv`` (the worst first) and ``overlays.png``.
    """
    counts = _counted(judged)
    names = judged.data.class_names
    table = _per_image_table(counts, judged.arrays.split("test").sample_ids(), names)
    scores = mask_scores.segmentation_scores(counts.sum(axis=0), names)
    scores["dice_per_image"] = float(table["dice_macro"].mean())
    order = np.argsort(table["dice_macro"].to_numpy(), kind="stable")
    tables.write_csv(mask_scores.per_class_table(counts.sum(axis=0), names), judged.folder / "per_class.csv")
    tables.write_csv(table.iloc[order], judged.folder / "per_image.csv")
    _draw(judged, table, order[: judged.evaluation.examples])
    return scores


def _counted(judged: Judged) -> NDArray[np.int64]:
    """The confusion counts of each test image, (N, 1 + K, 1 + K)."""
    segmenter, test = cast(Segmenter, judged.scorer), judged.arrays.split("test")
    size = 1 + judged.data.num_classes
    counts = np.zeros((len(test), size, size), np.int64)
    done = 0
    for positions in test.in_batches(judged.evaluation.batch_size):
        predictions, truths = segmenter.class_maps(test.batch(positions)), test.class_maps(positions)
        for position, truth, predicted in zip(positions, truths, predictions, strict=True):
            counts[position] = mask_scores.confusion(truth, predicted, judged.data.num_classes)
        done += len(positions)
        judged.emit(Progress("evaluate", done, len(test), "images"))
    return counts


def _per_image_table(counts: NDArray[np.int64], sample_ids: list[str], class_names: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for sample_id, one in zip(sample_ids, counts, strict=True):
        dices, ious = mask_scores.dice(one), mask_scores.iou(one)
        rows.append(
            {
                "sample_id": sample_id,
                "dice_macro": mask_scores.macro(dices),
                "iou_macro": mask_scores.macro(ious),
                "pixel_accuracy": mask_scores.pixel_accuracy(one),
                **{f"dice/{name}": value for name, value in zip(class_names, dices[1:], strict=True)},
            }
        )
    return pd.DataFrame(rows)


def _draw(judged: Judged, table: pd.DataFrame, shown: NDArray[np.int64]) -> None:
    segmenter, test = cast(Segmenter, judged.scorer), judged.arrays.split("test")
    images = test.batch(shown)
    mask_figures.overlays(
        images,
        test.class_maps(shown),
        segmenter.class_maps(images),
        [f"Dice {table['dice_macro'][index]:.3f}" for index in shown],
        [str(table["sample_id"][index]) for index in shown],
        judged.data.class_names,
        f"Dice of the {len(shown)} worst of {len(test):,} test images",
        judged.figures / "overlays.png",
    )
