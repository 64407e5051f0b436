"""Objects on an image: boxes and masks with their classes, and what can be wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recognition.records import Record

IGNORED = 255
"""In a class map: a pixel that neither teaches nor counts."""


@dataclass(frozen=True)
class Objects:
    """The n objects of one image, in pixels of that image."""

    boxes: NDArray[np.float32]
    """Shape (n, 4): left, top, right, bottom; 0 <= left < right <= width, 0 <= top < bottom <= height."""
    labels: NDArray[np.int64]
    """Shape (n,), indices into the class names."""
    masks: NDArray[np.uint8] | None = None
    """Shape (n, height, width), 0 or 1; none where only boxes are known."""

    def __len__(self) -> int:
        return len(self.labels)


FlawKind = Literal["missing_annotations", "invalid_boxes", "invalid_masks", "clipped_boxes"]


class Flaw(Record):
    """Something wrong with what a source says of an image; what cannot be used is left out."""

    image: int
    """The index of the image."""
    kind: FlawKind
    what: str
    """The rest of a sentence that begins with the image's name."""
