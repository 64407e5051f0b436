"""Reading back what `recognition.preparation` wrote: memory-mapped images and labels, and the indices of each split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from recognition import versions
from recognition.audit.inspected import StoredImages
from recognition.errors import DataError
from recognition.objects import Objects
from recognition.pixels import Pixels
from recognition.records import PreparedData
from recognition.splits import SPLITS
from recognition.store import image_store
from recognition.store.object_store import ObjectStore
from recognition.store.shards import ShardedImages, ShardOrder

RECORD = "dataset.json"


@dataclass(frozen=True)
class PreparedArrays:
    """The arrays of a prepared data set. Pickles as its path, so that worker processes map the same memory.

    They hold every image of the source; those that the audit left out are in no split.
    """

    path: Path
    images: StoredImages
    """uint8, shape (N, height, width, channels), read-only: memory-mapped, or decoded from shards as they are read."""
    labels: NDArray[np.int64]
    """Shape (N,), memory-mapped."""
    indices: dict[str, NDArray[np.int64]]
    """For train, val and test the sorted positions of its images, memory-mapped."""
    objects: ObjectStore | None = None
    """What is known of the objects on each image, by its position; none where images have classes instead."""

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Callable[[Path], PreparedArrays], tuple[Path]]:
        return open_arrays, (self.path,)

    def sample_ids(self) -> tuple[str, ...]:
        """The id of each image, in order: the path of its file below the source, or a number."""
        return tuple(versions.read_samples(self.path / versions.SAMPLES).sample_ids)

    def split(self, name: str) -> Split:
        """The images of train, val or test."""
        return Split(self, self.indices[name])


@dataclass(frozen=True)
class Split:
    """The images of one split by their position in it."""

    arrays: PreparedArrays
    indices: NDArray[np.int64]
    """The position of each image in the whole data set, shape (n,)."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Shape (n,)."""
        return self.arrays.labels[self.indices]

    @property
    def shard_order(self) -> ShardOrder | None:
        """In which order the images are best read when they lie in shards; none: any order."""
        images = self.arrays.images
        return ShardOrder(images, self.indices) if isinstance(images, ShardedImages) else None

    def in_batches(self, size: int) -> Iterator[NDArray[np.int64]]:
        """All positions once, at most ``size`` at a time, in the order in which they are best read."""
        order = self.shard_order
        for part in order.in_sequence() if order else [np.arange(len(self))]:
            for start in range(0, len(part), size):
                yield part[start : start + size]

    def batch(self, positions: NDArray[np.int64]) -> Pixels:
        """A copy of the images at some positions, uint8 (len(positions), height, width, channels)."""
        return self.arrays.images[self.indices[positions]]

    def objects(self, positions: NDArray[np.int64]) -> list[Objects]:
        """The objects of the images at some positions, in pixels of the prepared images; of boxes or instances."""
        store = self._objects()
        return [store.of(int(index)) for index in self.indices[positions]]

    def class_maps(self, positions: NDArray[np.int64]) -> Pixels:
        """The class of every pixel of the images at some positions; of masks or instances.

        Returns:
            uint8 (len(positions), height, width): 0 background, else a label + 1, 255 (`objects.IGNORED`) ignored.
        """
        store = self._objects()
        maps = [store.class_map(int(index)) for index in self.indices[positions]]
        return np.stack(maps) if maps else np.zeros((0, store.height, store.width), np.uint8)

    def _objects(self) -> ObjectStore:
        if self.arrays.objects is None:
            raise ValueError("the images of this data set have classes, and no objects")
        return self.arrays.objects

    def sample_ids(self) -> list[str]:
        """The id of each image, in order."""
        everything = self.arrays.sample_ids()
        return [everything[int(index)] for index in self.indices]


def load(path: Path) -> PreparedData:
    """The record of the prepared data set in a folder, wherever the folder has been moved to.

    Raises:
        DataError: the folder holds no whole prepared data set.
    """
    try:
        record = PreparedData.model_validate_json((path / RECORD).read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} holds no prepared data set: prepare it again.") from error
    images = record.images if record.images.is_dir() else path.parent.parent / "images" / record.images.name
    return record.model_copy(update={"path": path, "images": images})


def open_arrays(path: Path) -> PreparedArrays:
    """Map the arrays of the prepared data set in a folder.

    Raises:
        DataError: a file is missing or damaged.
    """
    try:
        store = image_store.open_store(load(path).images)
        images, objects = store.images(), store.objects()
        labels: NDArray[np.int64] = np.load(path / "labels.npy", mmap_mode="r", allow_pickle=False)
        indices = {name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in SPLITS}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}): remove this folder, and prepare the data again.") from error
    return PreparedArrays(path, images, labels, indices, objects)
