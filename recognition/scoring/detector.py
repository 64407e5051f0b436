"""A detector: image in, objects with boxes (and masks) out."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .scorer import Pixels, Scorer

MASK_FROM = 0.5
"""The probability from which a pixel belongs to an object."""


class Detector(Scorer):
    """A network that finds objects; with the task ``instance_segmentation`` their masks too."""

    parameters: ClassVar[Mapping[str, float | int | str]] = {"threshold": 0.0}
    """``threshold``: the confidence from which objects are answered; 0: the model's own, ``score_threshold``."""

    @property
    def threshold(self) -> float:
        """The confidence from which objects are answered where a caller names none."""
        return float(self.description["score_threshold"])

    @property
    def with_masks(self) -> bool:
        return self.task == "instance_segmentation"

    def detections(self, images: Pixels) -> list[dict[str, NDArray[Any]]]:
        """All that the network finds on prepared images, uint8 (N, H, W, C), however unsure.

        Returns:
            For each image, by falling confidence: ``boxes`` float32 (n, 4), left, top, right, bottom in pixels of the
            prepared image; ``labels`` int64 (n,), indices into the class names; ``confidences`` float32 (n,); for
            instance segmentation ``masks`` uint8 (n, H, W), 0 or 1.
        """
        found = self._found(images)
        if self.with_masks:
            return [{**one, "masks": (one["masks"] >= MASK_FROM).astype(np.uint8)} for one in found]
        return found

    @torch.inference_mode()
    def _found(self, images: Pixels) -> list[dict[str, NDArray[Any]]]:
        """As `detections`, with masks as probabilities, float32 (n, H, W)."""
        first: Any = self.network.first_label
        found = []
        for one in self.network(self.normalised(images)):
            order = torch.argsort(one["scores"], descending=True, stable=True)
            arrays = {
                "boxes": one["boxes"][order].float().cpu().numpy(),
                "labels": (one["labels"][order] - first).cpu().numpy(),
                "confidences": one["scores"][order].float().cpu().numpy(),
            }
            if self.with_masks:
                arrays["masks"] = one["masks"][order, 0].float().cpu().numpy()
            found.append(arrays)
        return found

    def answers(
        self, images: Sequence[bytes | Pixels], names: Sequence[str], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """The objects on each image, the surest first, in pixels of the image as it was sent.

        Args:
            images: as `Scorer.answers` takes them.
            names: of the images, for messages.
            parameters: ``threshold``, the confidence from which objects are answered; 0: the model's own.

        Returns:
            For each image ``objects``, each with ``label``, ``confidence``, ``box`` (left, top, right, bottom), and for
            instance segmentation ``mask`` (PNG of the image's size in base64, 255 on the object).

        Raises:
            ValueError: an image is none, or the threshold is outside 0 to 1.
        """
        threshold = float(parameters.get("threshold", 0.0))
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie between 0 (the model's own, {self.threshold}) and 1, not {threshold}")
        return [
            self._answer(image, name, threshold or self.threshold) for image, name in zip(images, names, strict=True)
        ]

    def _answer(self, image: bytes | Pixels, name: str, threshold: float) -> dict[str, Any]:
        array = self.pixels.decode(image, name) if isinstance(image, bytes) else image
        prepared = self.prepare(array, name)
        p = self.preprocessing
        geometry = self.pixels.geometry(*array.shape[:2], p["height"], p["width"], p["resize"])
        # one image at a time: the same bits whatever the company
        found = self._found(np.expand_dims(prepared, 0))[0]
        boxes = geometry.to_original(found["boxes"])
        objects = []
        for index in range(len(boxes)):
            left, top, right, bottom = (float(value) for value in boxes[index])
            if found["confidences"][index] < threshold or left >= right or top >= bottom:
                continue
            answer: dict[str, Any] = {
                "label": self.class_names[int(found["labels"][index])],
                "confidence": float(found["confidences"][index]),
                "box": [left, top, right, bottom],
            }
            if self.with_masks:
                answer["mask"] = _png(_on_original(found["masks"][index], geometry))
            objects.append(answer)
        return {"objects": objects}


def _on_original(mask: NDArray[np.float32], geometry: Any) -> NDArray[np.bool_]:
    """A mask of probabilities (H, W) on the prepared image as a mask of the original; what was cut off is empty."""
    scale_x, scale_y = geometry.scale
    left, top = geometry.part[:2]
    on_left, on_top = geometry.place[:2]
    back = (scale_x, 0.0, on_left - left * scale_x, 0.0, scale_y, on_top - top * scale_y)
    size = (geometry.columns, geometry.rows)
    moved = Image.fromarray(mask).transform(size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
    return np.asarray(moved) >= MASK_FROM


def _png(mask: NDArray[np.bool_]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
