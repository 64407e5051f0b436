"""Reading back what `recognition.preparation` wrote: memory-mapped images and labels, and the indices of each split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from recognition.errors import DataError
from recognition.pixels import Pixels
from recognition.records import PreparedData
from recognition.splits import SPLITS

RECORD = "dataset.json"


@dataclass(frozen=True)
class PreparedArrays:
    """The arrays of a prepared data set. Pickles as its path, so that worker processes map the same memory."""

    path: Path
    images: Pixels
    """uint8, shape (N, height, width, channels), memory-mapped, read-only."""
    labels: NDArray[np.int64]
    """Shape (N,)."""
    indices: dict[str, NDArray[np.int64]]
    """For train, val and test the sorted positions of its images."""

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Callable[[Path], PreparedArrays], tuple[Path]]:
        return open_arrays, (self.path,)

    def sample_ids(self) -> tuple[str, ...]:
        """The id of each image, in order: the path of its file below the source, or a number."""
        import pandas as pd

        return tuple(pd.read_parquet(self.path / "samples.parquet", columns=["sample_id"])["sample_id"])

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

    def batch(self, positions: NDArray[np.int64]) -> Pixels:
        """A copy of the images at some positions, uint8 (len(positions), height, width, channels)."""
        images: Pixels = self.arrays.images[self.indices[positions]]
        return images

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
    return record.model_copy(update={"path": path})


def open_arrays(path: Path) -> PreparedArrays:
    """Map the arrays of the prepared data set in a folder.

    Raises:
        DataError: a file is missing or damaged.
    """
    try:
        images: Pixels = np.load(path / "images.npy", mmap_mode="r", allow_pickle=False)
        labels: NDArray[np.int64] = np.load(path / "labels.npy", allow_pickle=False)
        indices = {name: np.load(path / f"{name}.npy", allow_pickle=False) for name in SPLITS}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}): remove this folder, and prepare the data again.") from error
    return PreparedArrays(path, images, labels, indices)
