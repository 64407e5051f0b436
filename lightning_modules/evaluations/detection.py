"""Scores of a detector: mean average precision of boxes (and masks), tables, and images with what was found."""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np

from lightning_modules.evaluations.judged import Judged
from recognition import box_figures, box_scores, tables
from recognition.box_scores import Found, ObjectScores
from recognition.errors import DataError
from recognition.events import Progress
from recognition.objects import Objects
from recognition.scoring.detector import Detector

MOST_AT_ONCE = 16
"""Images scored at once: masks of hundreds of objects an image would fill the memory."""
Marked = tuple[Objects, Found]
"""The objects of an image and what was found on it."""


def evaluate(judged: Judged) -> dict[str, float]:
    """Score a detector on the test split: COCO's scores of boxes and, for instance segmentation, of masks.

    Writes ``detections.parquet``, ``per_class.csv`` and ``detections.png``. With masks, ``dice_macro`` and
    ``iou_macro`` are those of all masks of a class together, from the confidence on that is answered.

    Raises:
        DataError: the test images hold no objects.
    """
    detector = cast(Detector, judged.scorer)
    names, folder, threshold = judged.data.class_names, judged.folder, judged.evaluation.score_threshold
    test = judged.arrays.split("test")
    # evenly spread
    shown = np.unique(np.linspace(0, len(test) - 1, judged.evaluation.examples).astype(np.int64)).tolist()
    scores = ObjectScores(len(names), detector.with_masks)
    marked, drawn = _found(judged, detector, scores, set(shown))
    true, found = [marked[index][0] for index in range(len(test))], [marked[index][1] for index in range(len(test))]
    if not any(map(len, true)):
        raise DataError("The test images hold no objects: give more data, or another data.split_seed.")
    averages = scores.result()
    metrics: dict[str, float] = {}
    for prefix, average in averages.items():
        metrics |= box_scores.named_scores(average, names, prefix)
    if detector.with_masks:
        metrics |= scores.regions()
    sample_ids = test.sample_ids()
    tables.write_csv(box_scores.per_class_table(true, found, names, threshold, averages), folder / "per_class.csv")
    table = box_scores.detections_table(sample_ids, found, names, threshold)
    table.to_parquet(folder / "detections.parquet", index=False)
    box_figures.detections(
        test.batch(np.array(shown)),
        [drawn[index][0] for index in shown],
        [drawn[index][1] for index in shown],
        names,
        [sample_ids[index] for index in shown],
        threshold,
        judged.figures / "detections.png",
    )
    return metrics


def _found(
    judged: Judged, detector: Detector, scores: ObjectScores, shown: set[int]
) -> tuple[dict[int, Marked], dict[int, Marked]]:
    """Score all test images; by position all objects without masks, and those of some images with them."""
    test = judged.arrays.split("test")
    everything: dict[int, Marked] = {}
    drawn: dict[int, Marked] = {}
    for positions in test.in_batches(min(MOST_AT_ONCE, judged.evaluation.batch_size)):
        true = test.objects(positions)
        found = [Found(**one) for one in detector.detections(test.batch(positions))]
        scores.add(true, found)
        if detector.with_masks:
            scores.add_regions(true, found, judged.evaluation.score_threshold)
        for position, truth, one in zip(positions.tolist(), true, found, strict=True):
            everything[position] = dataclasses.replace(truth, masks=None), one.without_masks()
            if position in shown:
                drawn[position] = truth, one
        judged.emit(Progress("evaluate", len(everything), len(test), "images"))
    return everything, drawn
