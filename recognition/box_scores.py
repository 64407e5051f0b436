"""How well objects are found: COCO's mean average precision, and what is right, missed and false on an image.

Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; https://cocodataset.org/#detection-eval. Average
precisions are the means over 101 recalls, of at most 100 objects an image and class, and over the classes there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from recognition.objects import Objects
from recognition.scores import metric_names

OVERLAP = 0.5
"""Intersection over union from which a box counts as found, where one number is needed."""
_50, _75 = 0, 5
"""Where 0.5 and 0.75 lie among COCO's overlaps 0.5, 0.55, ..., 0.95."""


@dataclass(frozen=True)
class Found:
    """The n objects that a model finds on one image, in pixels of that image."""

    boxes: NDArray[np.float32]
    """Shape (n, 4): left, top, right, bottom."""
    labels: NDArray[np.int64]
    """Shape (n,), indices into the class names."""
    confidences: NDArray[np.float32]
    """Shape (n,), 0 to 1."""
    masks: NDArray[np.uint8] | None = None
    """Shape (n, height, width), 0 or 1; none where only boxes are known."""

    def __len__(self) -> int:
        return len(self.labels)

    def without_masks(self) -> Found:
        return Found(self.boxes, self.labels, self.confidences)

    def sure(self, threshold: float) -> Found:
        """Those from a confidence on."""
        kept = self.confidences >= threshold
        masks = None if self.masks is None else self.masks[kept]
        return Found(self.boxes[kept], self.labels[kept], self.confidences[kept], masks)


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's scores by overlap (0.5, 0.55, ..., 0.95) and class; NaN for a class that is on no image."""

    precision: NDArray[np.float64]
    """Shape (10, classes), 0 to 1."""
    recall: NDArray[np.float64]
    """Shape (10, classes), 0 to 1: of at most 100 objects an image and class."""

    def summary(self) -> dict[str, float]:
        """``map``, ``map_50``, ``map_75`` and ``mar_100``."""
        return {
            "map": float(np.nanmean(self.precision)),
            "map_50": float(np.nanmean(self.precision[_50])),
            "map_75": float(np.nanmean(self.precision[_75])),
            "mar_100": float(np.nanmean(self.recall)),
        }

    def by_class(self) -> dict[str, NDArray[np.float64]]:
        """``ap``, ``ap_50`` and ``ap_75``, each of shape (classes,)."""
        return {"ap": self.precision.mean(axis=0), "ap_50": self.precision[_50], "ap_75": self.precision[_75]}


class ObjectScores:
    """Average precisions, computed by torchmetrics and faster-coco-eval, and how well masks cover their classes.

    Images are added a few at a time; masks are kept compressed.
    """

    def __init__(self, num_classes: int, masks: bool = False) -> None:
        """Begin with no images.

        Args:
            num_classes: labels lie below.
            masks: score masks beside boxes.
        """
        from torchmetrics.detection import MeanAveragePrecision

        self._masks = masks
        self._metric = MeanAveragePrecision(
            iou_type=("bbox", "segm") if masks else "bbox",
            # torchmetrics' own are single-precision numbers, which a recall of 3/5 just misses
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
            extended_summary=True,
            backend="faster_coco_eval",
        )
        self._metric.warn_on_many_detections = False
        self._objects = np.zeros(num_classes, dtype=np.int64)
        self._pixels = np.zeros((3, num_classes), dtype=np.int64)

    def add(self, true: Sequence[Objects], found: Sequence[Found]) -> None:
        """Add images.

        Args:
            true: the objects of each image.
            found: what a model finds on each image, of any confidence.

        Raises:
            ValueError: the numbers of images differ.
        """
        if len(true) != len(found):
            raise ValueError(f"{len(true)} images with objects do not fit {len(found)} with what was found")
        self._metric.update(
            [self._tensors(one) | {"scores": torch.from_numpy(one.confidences)} for one in found],
            [self._tensors(one) for one in true],
        )
        for one in true:
            self._objects += np.bincount(one.labels, minlength=len(self._objects))

    def add_regions(self, true: Sequence[Objects], found: Sequence[Found], threshold: float) -> None:
        """Add the pixels that all objects of a class cover together, of those found from a confidence on."""
        for truth, everything in zip(true, found, strict=True):
            sure = everything.sure(threshold)
            for label in np.union1d(truth.labels, sure.labels):
                there, said = _union(truth, label), _union(sure, label)
                self._pixels[:, label] += ((there & said).sum(), there.sum(), said.sum())

    def result(self) -> dict[str, AveragePrecision]:
        """Of boxes under the prefix "", of masks under ``mask_``.

        Raises:
            ValueError: there are no objects to find.
        """
        if not self._objects.any():
            raise ValueError("there are no objects to find")
        computed = self._metric.compute()
        prefixes = {"": "bbox_", "mask_": "segm_"} if self._masks else {"": ""}
        return {ours: self._averages(computed, theirs) for ours, theirs in prefixes.items()}

    def regions(self) -> dict[str, float]:
        """``dice_macro`` and ``iou_macro``: means over the classes that are there."""
        shared, there, said = self._pixels[:, self._pixels[1] > 0]
        return {
            "dice_macro": float((2 * shared / (there + said)).mean()),
            "iou_macro": float((shared / (there + said - shared)).mean()),
        }

    def _averages(self, computed: dict[str, torch.Tensor], prefix: str) -> AveragePrecision:
        precision, recall = (np.full((10, len(self._objects)), np.nan) for _ in range(2))
        classes = computed["classes"].reshape(-1).numpy()
        # (overlaps, recalls, classes, areas, most objects) and (overlaps, classes, areas, most objects)
        precision[:, classes] = computed[f"{prefix}precision"].double().numpy()[:, :, :, 0, -1].mean(axis=1)
        recall[:, classes] = computed[f"{prefix}recall"].double().numpy()[:, :, 0, -1]
        precision[:, self._objects == 0] = np.nan
        recall[:, self._objects == 0] = np.nan
        return AveragePrecision(precision, recall)

    def _tensors(self, one: Objects | Found) -> dict[str, torch.Tensor]:
        tensors = {"labels": torch.from_numpy(one.labels), "boxes": torch.from_numpy(one.boxes)}
        if self._masks:
            assert one.masks is not None
            tensors["masks"] = torch.from_numpy(one.masks).bool()
        return tensors


def _union(one: Objects | Found, label: int) -> NDArray[np.bool_]:
    assert one.masks is not None
    union: NDArray[np.bool_] = one.masks[one.labels == label].any(axis=0)
    return union


def named_scores(average: AveragePrecision, class_names: Sequence[str], prefix: str = "") -> dict[str, float]:
    """The summary, and ``ap/<class>`` and ``ap_50/<class>`` of each class that is there."""
    scores = {f"{prefix}{name}": value for name, value in average.summary().items()}
    by_class = average.by_class()
    for index, name in enumerate(metric_names(class_names)):
        for kind in ("ap", "ap_50"):
            if not np.isnan(by_class[kind][index]):
                scores[f"{prefix}{kind}/{name}"] = float(by_class[kind][index])
    return scores


def overlaps(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of each of n boxes (n, 4) with each of m others (m, 4), shape (n, m)."""
    a, b = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(axis=2)
    areas = (a[..., 2:] - a[..., :2]).prod(axis=2) + (b[..., 2:] - b[..., :2]).prod(axis=2)
    union = areas - shared
    ratios: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratios


def matched(true: Objects, found: Found, overlap: float = OVERLAP) -> NDArray[np.int64]:
    """For each found object the index of the true one that it stands for, -1 for none; shape (len(found),).

    The surest chooses first; each takes the true object of its class that it overlaps most and that is still free.
    """
    shared = overlaps(found.boxes, true.boxes)
    shared[found.labels[:, None] != true.labels[None]] = 0
    taken = np.full(len(found), -1, dtype=np.int64)
    for index in np.argsort(-found.confidences, kind="stable"):
        if len(true) and shared[index].max() >= overlap:
            taken[index] = shared[index].argmax()
            shared[:, taken[index]] = -1
    return taken


def per_class_table(
    true: Sequence[Objects],
    found: Sequence[Found],
    class_names: Sequence[str],
    threshold: float,
    averages: dict[str, AveragePrecision],
) -> pd.DataFrame:
    """One row a class: objects, those found from a confidence on, precision and recall of these, average precisions.

    Args:
        true: the objects of each image.
        found: what a model finds on each image.
        class_names: by label.
        threshold: the confidence.
        averages: by the prefix of their columns.
    """
    kinds = len(class_names)
    objects, shown, right = (np.zeros(kinds, dtype=np.int64) for _ in range(3))
    for truth, everything in zip(true, found, strict=True):
        sure = everything.sure(threshold)
        objects += np.bincount(truth.labels, minlength=kinds)
        shown += np.bincount(sure.labels, minlength=kinds)
        right += np.bincount(sure.labels[matched(truth, sure) >= 0], minlength=kinds)
    columns: dict[str, object] = {
        "class": list(class_names),
        "objects": objects,
        "found": shown,
        "right": right,
        "missed": objects - right,
        "false": shown - right,
        "precision": _share(right, shown),
        "recall": _share(right, objects),
    }
    for prefix, average in averages.items():
        columns |= {f"{prefix}{name}": values for name, values in average.by_class().items()}
    return pd.DataFrame(columns)


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """NaN where there is no whole."""
    share: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return share


def detections_table(
    sample_ids: Sequence[str], found: Sequence[Found], class_names: Sequence[str], threshold: float
) -> pd.DataFrame:
    """One row a found object: sample_id, label, confidence, shown (from the threshold on), left, top, right, bottom.

    Boxes are in pixels of the prepared images; each image's objects stand by falling confidence.
    """
    parts = []
    for sample_id, one in zip(sample_ids, found, strict=True):
        order = np.argsort(-one.confidences, kind="stable")
        boxes = one.boxes[order]
        parts.append(
            pd.DataFrame(
                {
                    "sample_id": pd.Series([sample_id] * len(one), dtype=object),
                    "label": pd.Series([class_names[label] for label in one.labels[order]], dtype=object),
                    "confidence": one.confidences[order].astype(np.float64),
                    "shown": one.confidences[order] >= threshold,
                }
                | {name: boxes[:, place] for place, name in enumerate(("left", "top", "right", "bottom"))}
            )
        )
    return pd.concat(parts, ignore_index=True)
