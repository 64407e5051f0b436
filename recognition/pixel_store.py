"""``images.npy``: written image by image from several threads, read back in chunks for statistics and digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from recognition.pixels import Pixels

CHUNK_BYTES = 1 << 20


class PixelWriter:
    """Writes a uint8 array file of shape (N, height, width, channels) in any order, from any thread.

    Plain writes instead of a memory map: a full disk is then an `OSError` here, not the end of the process.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        self.shape = shape
        self._row_bytes = int(np.prod(shape[1:]))
        self._file = path.open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._offset = self._file.tell()
        self._file.truncate(self._offset + shape[0] * self._row_bytes)

    def put(self, index: int, pixels: Pixels) -> None:
        """Write one image, or several that follow each other, beginning at ``index``."""
        assert pixels.dtype == np.uint8, "images are prepared before"
        assert pixels.shape[-3:] == self.shape[1:], "images are prepared before"
        view = np.ascontiguousarray(pixels).data.cast("B")
        at = self._offset + index * self._row_bytes
        while view:
            written = os.pwrite(self._file.fileno(), view, at)
            view, at = view[written:], at + written

    def __enter__(self) -> PixelWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                os.fsync(self._file.fileno())


def rewrite(path: Path, rows: NDArray[np.int64], channels: int) -> None:
    """Keep only the given rows (sorted) and the first ``channels`` channels of an array file."""
    images: Pixels = np.load(path, mmap_mode="r")
    smaller = path.with_suffix(".rewritten")
    with PixelWriter(smaller, (len(rows), images.shape[1], images.shape[2], channels)) as writer:
        at = 0
        for chunk in chunks(images, rows):
            writer.put(at, chunk[..., :channels])
            at += len(chunk)
    smaller.replace(path)


def chunks(images: Pixels, indices: NDArray[np.int64]) -> Iterator[Pixels]:
    """The images at ``indices``, about a MB at a time: uint8 (n, H, W, C)."""
    size = max(1, CHUNK_BYTES // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, len(indices), size):
        yield images[indices[start : start + size]]


def mean_and_std(images: Pixels, indices: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel over the images at ``indices``, for pixels in [0, 1].

    Sums are of integers, so the result does not depend on the size of chunks. The standard deviation is at least
    1/255, one step of brightness, so that it can be divided by.
    """
    channels = images.shape[3]
    sums, squares, count = [0] * channels, [0] * channels, 0
    for chunk in chunks(images, indices):
        for channel in range(channels):
            values = chunk[..., channel].astype(np.uint32)
            sums[channel] += int(values.sum(dtype=np.uint64))
            squares[channel] += int((values * values).sum(dtype=np.uint64))
        count += chunk[..., 0].size
    variances = [(square * count - total * total) / count**2 for square, total in zip(squares, sums, strict=True)]
    mean = tuple(total / count / 255 for total in sums)
    return mean, tuple(max(variance**0.5, 1.0) / 255 for variance in variances)


def image_digests(images: Pixels, labels: NDArray[np.int64], class_names: Sequence[str]) -> list[bytes]:
    """For each image the SHA-256 of its class name, shape and pixels."""
    shape = "x".join(map(str, images.shape[1:]))
    starts = [hashlib.sha256(f"{name}\n{shape}\n".encode()) for name in class_names]
    digests: list[bytes] = []
    for chunk in chunks(images, np.arange(len(images))):
        for pixels in chunk:
            one = starts[labels[len(digests)]].copy()
            one.update(pixels.data)
            digests.append(one.digest())
    return digests


def digest_of_all(digests: Sequence[bytes]) -> str:
    """One SHA-256 (hex) for a set of images, independent of their order."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
