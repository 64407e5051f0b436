"""Many small images as one."""

from __future__ import annotations

import math

import numpy as np

from recognition.pixels import Pixels

GAP = 2
LEAST_SIDE = 56
"""Smaller images are enlarged, by whole pixels, to about this side."""


def tiled(images: Pixels, columns: int) -> Pixels:
    """Images beside and below each other on white, row by row.

    Args:
        images: uint8 (N, H, W, C), N >= 1.
        columns: images a row, at least 1.

    Returns:
        uint8 (height, width, C).
    """
    scale = max(1, round(LEAST_SIDE / max(images.shape[1:3])))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = (
            GAP + place * (side + GAP) for place, side in zip(divmod(number, columns), (height, width), strict=True)
        )
        sheet[top : top + height, left : left + width] = image
    return sheet
