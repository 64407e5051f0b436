"""Augmentation drawn per sample by key: an image alone, with its class map, or with its objects."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from recognition.errors import ConfigurationError
from recognition.objects import Objects
from recognition.randomness import SAMPLE, KeyedRandom

LEAST_VISIBLE = 0.1
"""The share of a box that must be left in the image for its object to stay."""
_NUMBERS = "numbers"


def box_parameters() -> A.BboxParams:
    """How a policy takes boxes along: in pixels, cut at the image's border.

    A box goes when less than a pixel of its width or height, or less than `LEAST_VISIBLE` of its area, is left.
    """
    return A.BboxParams(
        format="pascal_voc",
        label_fields=[_NUMBERS],
        clip=True,
        min_width=1,
        min_height=1,
        min_visibility=LEAST_VISIBLE,
    )


def takes_boxes(policy: A.Compose) -> bool:
    """Whether a policy was built with box parameters."""
    return "bboxes" in policy.processors


class Augmenter:
    """A policy whose draw for a sample depends on (seed, epoch, sample index) alone, whatever goes along.

    What moves an image moves its class map and its masks, by nearest neighbour. Pixels that come in from outside are
    background where the transform fills with one colour, and mirrored like the image where it mirrors; a transform's
    ``fill_mask: 255`` makes them ignored instead.
    """

    def __init__(self, policy: A.Compose, seed: int) -> None:
        cv2.setNumThreads(0)
        self._policy = policy
        self._random = KeyedRandom(seed, SAMPLE)
        self._policy.set_random_state(self._random.generator, self._random.python)

    def __call__(self, image: NDArray[np.uint8], epoch: int, index: int) -> NDArray[np.uint8]:
        """Augment one image, uint8 (H, W, C); the result has the same shape."""
        augmented: NDArray[np.uint8] = self._drawn(epoch, index, image=image)["image"]
        return augmented

    def with_map(
        self, image: NDArray[np.uint8], class_map: NDArray[np.uint8], epoch: int, index: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Augment an image, uint8 (H, W, C), and its class map, uint8 (H, W); both keep their shape."""
        drawn = self._drawn(epoch, index, image=image, mask=class_map)
        return drawn["image"], drawn["mask"]

    def with_objects(
        self, image: NDArray[np.uint8], objects: Objects, epoch: int, index: int
    ) -> tuple[NDArray[np.uint8], Objects]:
        """Augment an image, uint8 (H, W, C), and its objects; those of which nothing is left are no longer among them.

        Where masks are known, boxes are drawn anew around them, since the box around a turned box is too large.

        Raises:
            ConfigurationError: the policy was built without box parameters.
        """
        if not takes_boxes(self._policy):
            raise ConfigurationError(without_box_parameters("The augmentation policy"))
        more: dict[str, Any] = {"bboxes": objects.boxes, _NUMBERS: np.arange(len(objects))}
        if objects.masks is not None and len(objects):
            more["masks"] = objects.masks
        drawn = self._drawn(epoch, index, image=image, **more)
        height, width = drawn["image"].shape[:2]
        left = np.asarray(drawn[_NUMBERS], dtype=np.int64)
        if objects.masks is None:
            boxes = np.asarray(drawn["bboxes"], dtype=np.float32).reshape(-1, 4)
            # to and from shares of the image they lose a bit
            boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
            return drawn["image"], Objects(boxes, objects.labels[left])
        left = np.unique(left)
        if not len(left):
            masks = np.zeros((0, height, width), np.uint8)
        else:
            masks = np.ascontiguousarray(drawn["masks"], dtype=np.uint8)[left]
        seen = masks.any(axis=(1, 2))
        return drawn["image"], Objects(boxes_around(masks[seen]), objects.labels[left[seen]], masks[seen])

    def _drawn(self, epoch: int, index: int, **targets: Any) -> dict[str, Any]:
        self._random.reset(epoch, index)
        if takes_boxes(self._policy) and "bboxes" not in targets:
            # Albumentations insists on what it was told to take along
            targets |= {"bboxes": np.zeros((0, 4), np.float32), _NUMBERS: np.zeros(0, np.int64)}
        drawn: dict[str, Any] = self._policy(**targets)
        return drawn


def without_box_parameters(what: str) -> str:
    """What is wrong with a policy that would leave boxes behind, and the fix."""
    return (
        f"{what} has no box parameters, so that boxes would stay where they were while the image moves: it was built "
        "for images with a class each. Build it anew from the data set with boxes (recognition.policies.augment)."
    )


def boxes_around(masks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The smallest boxes, float32 (n, 4), around masks, uint8 (n, H, W), none of them empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
