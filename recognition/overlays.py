"""Boxes and masks drawn over images, by class colour; a class has one colour in all figures."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from recognition.drawing import PALETTE
from recognition.objects import IGNORED, Objects

Pixels = NDArray[np.uint8]

COLOURS: NDArray[np.float32] = np.array([to_rgb(colour) for colour in PALETTE], dtype=np.float32) * 255
"""RGB, 0 to 255, one row a class; classes beyond them begin anew."""
GRAY = np.array([128, 128, 128], dtype=np.float32)
OPACITY = 0.4


def classified(class_map: Pixels) -> NDArray[np.bool_]:
    """Which pixels of a class map, uint8 of any shape, are of an object's class: neither background nor ignored."""
    there: NDArray[np.bool_] = (class_map != 0) & (class_map != IGNORED)
    return there


def with_map(image: Pixels, class_map: Pixels) -> Pixels:
    """Tint an image by its class map, and outline each region; ignored pixels are tinted gray.

    Args:
        image: uint8 (H, W, 1 or 3).
        class_map: uint8 (H, W).

    Returns:
        uint8 (H, W, 3).
    """
    drawn = _as_rgb(image).astype(np.float32)
    tints = COLOURS[(class_map.astype(np.int64) - 1) % len(COLOURS)]
    tints[class_map == IGNORED] = GRAY
    tinted = class_map != 0
    drawn[tinted] = (1 - OPACITY) * drawn[tinted] + OPACITY * tints[tinted]
    lines = tinted & _at_border(class_map)
    drawn[lines] = tints[lines]
    return drawn.round().astype(np.uint8)


def with_objects(image: Pixels, objects: Objects) -> Pixels:
    """Draw the boxes of objects over an image, and tint their masks where they are known.

    Args:
        image: uint8 (H, W, 1 or 3).
        objects: in pixels of this image.

    Returns:
        uint8 (H, W, 3).
    """
    drawn = _as_rgb(image)
    if objects.masks is not None:
        for mask, label in zip(objects.masks, objects.labels, strict=True):
            drawn = with_map(drawn, np.where(mask != 0, label % len(COLOURS) + 1, 0).astype(np.uint8))
    picture = Image.fromarray(drawn)
    pen = ImageDraw.Draw(picture)
    width = max(1, round(min(image.shape[:2]) / 128))
    for box, label in zip(objects.boxes, objects.labels, strict=True):
        left, top, right, bottom = (float(value) for value in box)
        red, green, blue = (int(value) for value in COLOURS[label % len(COLOURS)])
        # a box ends before its right and bottom edge; the pen draws on both
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=(red, green, blue), width=width)
    return np.array(picture)


def _as_rgb(image: Pixels) -> Pixels:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _at_border(class_map: Pixels) -> NDArray[np.bool_]:
    """Pixels with another class above, below, left or right."""
    border = np.zeros(class_map.shape, dtype=np.bool_)
    down, right = class_map[1:] != class_map[:-1], class_map[:, 1:] != class_map[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border
