"""What every source of images answers with: labelled images, not yet decoded or brought to size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recognition.families import Kind
from recognition.pixels import Pixels
from recognition.records import Finding
from recognition.sources.annotations import Annotations

IMAGE = "image"
"""The only class of images whose objects have classes."""


@dataclass(frozen=True)
class Images:
    """Labelled images in the order of their sample ids, as decoded pixels or as files to decode."""

    class_names: tuple[str, ...]
    sample_ids: tuple[str, ...]
    labels: NDArray[np.int64]
    """Shape (N,), indices into ``class_names``."""
    splits: tuple[str, ...]
    """For each image train, val or test as the source gives it, or empty text."""
    fingerprint: str
    """Changes whenever the content does; independent of where the source lies."""
    pixels: Pixels | None = None
    """uint8 of shape (N, H, W, C), where the source is decoded already."""
    read: Callable[[int], bytes] | None = None
    """The content of the file of one image; raises `NotAnImageError` where it cannot be read."""
    reading_order: Sequence[int] = ()
    """The order in which ``read`` is fast: files of a compressed tar can only be read one after the other."""
    groups: tuple[str, ...] = ()
    """For each image the group (patient, camera, video) that no two splits may share, or empty text; () for none."""
    metadata: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further columns of a manifest: for each the text of every image."""
    published: bool = False
    """Whether this is a named data set whose splits others publish scores on."""
    findings: tuple[Finding, ...] = ()
    annotations: Annotations | None = None
    """What is said of objects on the images; all images are then of the class `IMAGE`."""
    close: Callable[[], None] = field(default=lambda: None)
    """Lets go of an archive that is being read."""

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def kind(self) -> Kind:
        """What the source says of its images."""
        return self.annotations.kind if self.annotations else "classes"

    @property
    def object_names(self) -> tuple[str, ...]:
        """The classes that are told apart: of objects, or else of images."""
        return self.annotations.class_names if self.annotations else self.class_names
