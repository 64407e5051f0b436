"""What is measured on every image while it is decoded: one row of fixed size, all that the audit ever asks about it.

The row holds two kinds of identity. ``content`` is a digest of the decoded pixels and of their shape; three equal
channels count as one, so that a gray picture stored as colour is the same picture. ``gray`` and ``chroma`` are what
copies still share after a new size or a new encoding: brightness at 16 x 16 points and colour at 4 x 4, each the
average of its part of the image. From them `recognition.audit.duplicates` takes the low frequencies of a perceptual
hash, for the image and for its mirror image, and more than a hash of 64 bits keeps: how far two images are from each
other in steps of brightness.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from recognition.pixels import Pixels

GRAY_SIDE: Final = 16
CHROMA_SIDE: Final = 4
BOUND: Final = 256
"""Sharpness and ``gray`` are those of the image reduced to so many pixels on its longer side."""

MEASURES: Final = np.dtype(
    [
        ("content", np.uint8, (32,)),  # SHA-256 over the shape and the decoded pixels at full size
        ("file_bytes", np.uint64),  # filled by who read the file; 0 where there is none
        ("height", np.uint32),
        ("width", np.uint32),
        ("brightness", np.float32),  # mean of the luma, 0 to 255
        ("contrast", np.float32),  # its standard deviation
        ("sharpness", np.float32),  # variance of the luma's Laplacian, squared steps of brightness
        ("p01", np.uint8),  # at most 1 % of the pixels are darker
        ("p99", np.uint8),  # at most 1 % are brighter
        ("constant", np.bool_),  # every pixel is the same
        ("gray", np.uint8, (GRAY_SIDE, GRAY_SIDE)),
        ("chroma", np.uint8, (2, CHROMA_SIDE, CHROMA_SIDE)),  # Cr and Cb; 128 for gray
    ]
)
"""A row of measures, about 370 bytes. A row of zeros stands for an image that could not be decoded."""


def measure(pixels: Pixels) -> NDArray[Any]:
    """Measure one decoded image.

    Args:
        pixels: uint8 (H, W, 1) gray or (H, W, 3) RGB, at full size.

    Returns:
        An array of shape () and dtype `MEASURES`; ``file_bytes`` is left 0.
    """
    if cv2.getNumThreads() > 1:
        cv2.setNumThreads(0)  # images are measured side by side; threads within one would only wait for each other
    pixels = np.ascontiguousarray(_without_equal_channels(pixels))
    height, width, channels = pixels.shape
    row = np.zeros((), MEASURES)
    digest = hashlib.sha256(f"{height} {width} {channels}\n".encode())
    digest.update(pixels.data)
    row["content"] = np.frombuffer(digest.digest(), np.uint8)
    row["height"], row["width"] = height, width

    luma = pixels[:, :, 0] if channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    _measure_levels(row, luma)
    first = pixels[0, 0]
    row["constant"] = row["contrast"] < 1 and bool((pixels == first).all())

    small = _bounded(_halved(luma))
    deviation = cv2.meanStdDev(cv2.Laplacian(small, cv2.CV_16S))[1]
    row["sharpness"] = float(deviation.ravel()[0]) ** 2
    row["gray"] = _resized(small, GRAY_SIDE)
    row["chroma"] = 128
    if channels == 3:
        colours = cv2.cvtColor(_resized(_halved(pixels), CHROMA_SIDE), cv2.COLOR_RGB2YCrCb)
        row["chroma"] = colours[:, :, 1:].transpose(2, 0, 1)
    return row


def _without_equal_channels(pixels: Pixels) -> Pixels:
    """One channel of a gray image that is stored as colour: it is the same image."""
    if pixels.shape[2] == 3 and (pixels[0, 0] == pixels[0, 0, 0]).all():  # a look at one pixel spares most images
        one = pixels[:, :, :1]
        if (pixels[:, :, 1:] == one).all():
            return one
    return pixels


def _measure_levels(row: NDArray[Any], luma: Pixels) -> None:
    counts = cv2.calcHist([luma], [0], None, [256], [0, 256]).ravel().astype(np.float64)
    levels = np.arange(256)
    share = counts / counts.sum()
    mean = float(share @ levels)
    below = np.cumsum(share)
    row["brightness"] = mean
    row["contrast"] = np.sqrt(share @ (levels - mean) ** 2)
    row["p01"] = np.searchsorted(below, 0.01, side="right")
    row["p99"] = np.searchsorted(below, 0.99 - 1e-9)


def _halved(array: Pixels) -> Pixels:
    """The image, its sides halved while the longer one is at least twice `BOUND`: averages of 2 x 2 pixels, which cost
    a tenth of those of other areas. Of an odd number of rows or columns the last is left out."""
    while max(array.shape[:2]) >= 2 * BOUND and min(array.shape[:2]) > 1:
        height, width = array.shape[0] // 2, array.shape[1] // 2
        array = cv2.resize(array[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return array


def _bounded(array: Pixels) -> Pixels:
    """The image, or where it is larger, a smaller one of `BOUND` pixels on its longer side."""
    height, width = array.shape[:2]
    scale = BOUND / max(height, width)
    if scale >= 1:
        return array
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    bounded: Pixels = cv2.resize(array, size, interpolation=cv2.INTER_AREA)
    return bounded


def _resized(array: Pixels, side: int) -> Pixels:
    # averages where there is something to average: both sides must shrink for that
    area = min(array.shape[:2]) >= side
    resized: Pixels = cv2.resize(array, (side, side), interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)
    return resized
