"""Changing ``images.npy`` after it was written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from recognition.pixels import Pixels
from recognition.store.array_file import ArrayWriter

CHUNK_BYTES = 1 << 20


def keep_channels(path: Path, channels: int) -> None:
    """Keep only the first ``channels`` channels of an array file of images."""
    images: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    smaller = path.with_suffix(".rewritten")
    with ArrayWriter(smaller, (*images.shape[:3], channels)) as writer:
        at = 0
        for chunk in _chunks(images):
            writer.put(at, chunk[..., :channels])
            at += len(chunk)
    smaller.replace(path)


def _chunks(images: Pixels) -> Iterator[Pixels]:
    """All images, about a MB at a time: uint8 (n, H, W, C)."""
    size = max(1, CHUNK_BYTES // max(1, math.prod(images.shape[1:])))
    for start in range(0, len(images), size):
        yield images[start : start + size]
