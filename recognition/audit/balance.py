"""How many images each class has: too few, far fewer than another, or too few to be judged by."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recognition.audit.ledger import number
from recognition.audit.names import listed, visible

LARGEST_RATIO = 10
FEWEST_IN_SPLIT = 5
"""One image more or less that is right changes the recall of a class by a fifth or more where there are no more."""


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


def few_in_split(
    per_split: Mapping[str, NDArray[np.int64]],
    counts: NDArray[np.int64],
    class_names: Sequence[str],
    minimum_per_class: int,
    given: Collection[str],
) -> tuple[str, str, int] | None:
    """Classes that have enough images, but hardly any to judge by in validation or test; kind, message and number.

    Classes without any image in a split are not looked at: they are another finding.

    Args:
        per_split: for val and test the number of images in use of every class.
        counts: the same for all splits together.
        given: the splits that the source gives.
    """
    few = {
        (name, label): int(numbers[label])
        for name, numbers in per_split.items()
        for label in np.flatnonzero(
            (numbers > 0) & (numbers < FEWEST_IN_SPLIT) & (counts >= minimum_per_class)
        ).tolist()
    }
    if not few:
        return None
    first = sorted(few, key=lambda place: few[place])[:10]
    named = listed(
        [f"{name} has {number(few[name, label])} of {class_names[label]}" for name, label in first], len(few), 10
    )
    fractions = [f"data.{name}_fraction" for name in per_split if name not in given and any(name in key for key in few)]
    larger = f", or set a larger {' and '.join(fractions)}" if fractions else ""
    message = f"Few images to judge a class by: {named}. Its scores there say little. Add images{larger}."
    return "few_in_split", message, len({label for _, label in few})
