"""How many images each class has: too few, or far fewer than another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from recognition.audit.names import listed, visible

LARGEST_RATIO = 10


def findings(
    counts: NDArray[np.int64], class_names: Sequence[str], minimum_per_class: int
) -> Iterator[tuple[str, str, int]]:
    """Kind, message and number of classes for each finding about the images in use of every class.

    Classes without any image are not looked at.
    """
    few = [label for label in np.argsort(counts, kind="stable").tolist() if 0 < counts[label] < minimum_per_class]
    if few:
        named = listed([f"{class_names[label]} has {counts[label]}" for label in few[:10]], len(few), 10)
        classes = "1 class has" if len(few) == 1 else f"{len(few):,} classes have"
        message = (
            f"{classes} fewer than {minimum_per_class:,} images: {named}. Scores of so few mean little: add images, or"
            " remove or merge classes."
        )
        yield "few_images", message, len(few)
    present = np.flatnonzero(counts > 0)
    if len(present) < 2:
        return
    smallest, largest = present[counts[present].argmin()], present[counts[present].argmax()]
    if counts[largest] > LARGEST_RATIO * counts[smallest]:
        small = int((counts[largest] > LARGEST_RATIO * counts[present]).sum())
        message = (
            f"The largest class has more than {LARGEST_RATIO} times the images of the smallest:"
            f" {visible(class_names[largest])} has {counts[largest]:,}, {visible(class_names[smallest])} has"
            f" {counts[smallest]:,}. Add images of the small classes, and judge by scores that weigh classes the same"
            " (macro)."
        )
        yield "imbalance", message, small
