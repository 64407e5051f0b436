"""What decoding has left of a source for the audit to look at: one row of measures an image, and the stored images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recognition.families import Kind
from recognition.objects import Flaw
from recognition.pixels import Pixels
from recognition.records import Finding

CLASSES_TOLD = 5
Measures = NDArray[Any]
"""Rows of `recognition.audit.measures.MEASURES`, memory-mapped."""


class StoredImages(Protocol):
    """Prepared images by their index in the source: a memory-mapped array, or shards that are decoded as they are
    read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: NDArray[np.int64], /) -> Pixels:
        """uint8 (len(indices), H, W, C)."""
        ...


@dataclass(frozen=True)
class Annotated:
    """What is known of the objects on N images."""

    kind: Kind
    class_names: tuple[str, ...]
    """Of objects."""
    counts: NDArray[np.int64]
    """Shape (N, classes): objects that can be used; of class maps 1 for a class that the image shows."""
    digests: NDArray[np.uint8]
    """Shape (N, 32): equal where the same is said of images of one size."""
    flaws: tuple[Flaw, ...] = ()
    cropped: int = 0
    """Objects of which nothing is left on the prepared images."""

    def told(self, index: int) -> str:
        """What is said of an image, in words that change whenever it does."""
        named = [
            f"{count} {name}" if self.kind != "masks" else name
            for count, name in zip(self.counts[index].tolist(), self.class_names, strict=True)
            if count
        ]
        more = f" and {len(named) - CLASSES_TOLD} more" if len(named) > CLASSES_TOLD else ""
        return f"{', '.join(named[:CLASSES_TOLD]) or 'nothing'}{more} ({self.digests[index].tobytes().hex()[:16]})"

    def keys(self) -> NDArray[np.int64]:
        """Shape (N,), equal where `told` is."""
        return np.unique(self.digests, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


@dataclass(frozen=True)
class Inspected:
    """All N images of a source after they were decoded once, in the order of their sample ids."""

    class_names: tuple[str, ...]
    sample_ids: Sequence[str]
    labels: NDArray[np.int64]
    """Shape (N,), indices into ``class_names``."""
    splits: Sequence[str]
    """For each image train, val or test as the source gives it, or empty text."""
    groups: Sequence[str]
    """For each image the group that splits must not part, or empty text."""
    measures: Measures
    """Shape (N,); the rows of unreadable images are zeros."""
    images: StoredImages
    """Prepared images (one common size), those of unreadable files are black."""
    unreadable: Mapping[int, str]
    """Index of a file that could not be decoded, and what is wrong, as the end of a sentence that begins with its
    name."""
    remarks: Mapping[str, Sequence[int]]
    """Kind of remark (wrong_extension, animated, palette, transparent, cmyk, 16_bit) and the images it is about."""
    findings: tuple[Finding, ...] = ()
    """What the source itself has to say (files that are no images, duplicate rows of a manifest)."""
    published_splits: bool = False
    """Whether the given splits are those of a named, published data set."""
    annotated: Annotated | None = None
    """Of a set with boxes or masks, all of whose images are then of one class."""

    def __len__(self) -> int:
        return len(self.labels)
