"""What a source says of the objects on its images, in pixels of the originals, before anything is checked."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recognition.families import Kind
from recognition.objects import FlawKind
from recognition.pixels import Pixels

Read = Callable[[str], bytes]
"""The content of a file by its path; raises `NotAnImageError` where it cannot be read. Threads may share it."""
Contents = Callable[[Collection[str]], Read]
"""Gives a reader of some files; those of a tar are read here, in the order in which they lie."""


@dataclass(frozen=True)
class MaskFile:
    """A mask as a file: ``read`` gives uint8 (H, W), and raises `NotAnImageError` where it cannot."""

    name: str
    read: Callable[[], Pixels]


@dataclass(frozen=True)
class Annotation:
    """What is said of one image."""

    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    """Shape (n, 4): left, top, right, bottom."""
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Shape (n,), indices into the class names."""
    masks: tuple[MaskFile, ...] = ()
    """Of kind instances n masks, 0 outside of the object; of kind masks a single class map."""
    size: tuple[int, int] | None = None
    """Height and width of the image as its annotation says."""
    flaws: tuple[tuple[FlawKind, str], ...] = ()
    """What was wrong before the image was looked at: kind, and words that go on after the image's name."""


@dataclass(frozen=True)
class Annotations:
    """What is said of all images of a source."""

    kind: Kind
    class_names: tuple[str, ...]
    """Of objects, without background."""
    read: Callable[[int], Annotation]
    """Of one image by its index; threads may share it."""
    files: tuple[str, ...]
    """The files that say it, sorted."""
    contents: Read
    """Reads one of ``files``."""


def missing(what: str) -> Annotation:
    """An annotation that is not there or cannot be used."""
    return Annotation(flaws=(("missing_annotations", what),))
