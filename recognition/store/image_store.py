"""The store of decoded images, as it is read: pixels at one size, and a row of measures an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from recognition.audit.inspected import Measures, StoredImages
from recognition.errors import DataError
from recognition.families import Kind
from recognition.pixels import Pixels
from recognition.records import Record
from recognition.store import shared_store
from recognition.store.object_store import ObjectStore, open_objects
from recognition.store.shards import ShardedImages

RECORD = "store.json"
_SUMMED_AT_ONCE = 1 << 16


class StoreRecord(Record):
    """What a store holds; indices are those of the source's images."""

    images: int
    height: int
    width: int
    channels: int
    storage: Literal["array", "shards"]
    unreadable: dict[int, str]
    remarks: dict[str, tuple[int, ...]]
    kind: Kind = "classes"


@dataclass(frozen=True)
class ImageStore:
    """An open store."""

    path: Path
    record: StoreRecord

    def images(self) -> StoredImages:
        """All images, uint8 (N, H, W, C); those of unreadable files are black."""
        return open_images(self.path, self.record)

    def measures(self) -> Measures:
        """Rows of `recognition.audit.measures.MEASURES`, shape (N,), memory-mapped."""
        rows: Measures = np.load(self.path / "measures.npy", mmap_mode="r", allow_pickle=False)
        return rows

    def objects(self) -> ObjectStore | None:
        """What is known of the objects on the images, memory-mapped; none where images have classes instead."""
        return open_objects(self.path, self.record.height, self.record.width)

    def mean_and_std(self, indices: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel over some images, for pixels in [0, 1].

        Sums are of integers, so the result does not depend on their order. The standard deviation is at least 1/255,
        one step of brightness, so that it can be divided by.
        """
        sums = np.load(self.path / "sums.npy", mmap_mode="r", allow_pickle=False)
        totals = np.zeros(sums.shape[1:], np.int64)
        for start in range(0, len(indices), _SUMMED_AT_ONCE):
            totals += sums[indices[start : start + _SUMMED_AT_ONCE]].sum(axis=0)
        count = len(indices) * self.record.height * self.record.width
        means: list[float] = []
        deviations: list[float] = []
        for channel in range(self.record.channels):
            total, squares = int(totals[0, channel]), int(totals[1, channel])
            means.append(total / count / 255)
            deviations.append(max(((squares * count - total * total) / count**2) ** 0.5, 1.0) / 255)
        return tuple(means), tuple(deviations)


def open_store(path: Path) -> ImageStore:
    """The store in a folder.

    Raises:
        DataError: the folder holds no whole store.
    """
    try:
        return ImageStore(path, StoreRecord.model_validate_json((path / RECORD).read_bytes()))
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} holds no decoded images: prepare the data again.") from error


def open_images(path: Path, record: StoreRecord) -> StoredImages:
    """The images of a store."""
    if record.storage == "shards":
        return ShardedImages(path / "shards", cache_bytes=shared_store.cache_bytes())
    images: Pixels = np.load(path / "images.npy", mmap_mode="r", allow_pickle=False)
    return images
