"""Units put into bins by a number in [0, 1), with as few moves as it takes that each class has enough units in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Membership:
    """Which classes the images of each unit have: one pair of unit and class for each, sorted by unit."""

    unit: NDArray[np.int64]
    label: NDArray[np.int64]
    classes: int

    @classmethod
    def of(cls, units: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> Membership:
        """The pairs of some images: int64 (n,) numbers of units and classes."""
        pairs = np.unique(units * max(classes, 1) + labels)
        return cls(pairs // max(classes, 1), pairs % max(classes, 1), classes)

    def units_per_class(self) -> NDArray[np.int64]:
        """int64 (classes,)."""
        return np.bincount(self.label, minlength=self.classes)

    def count(self, bins: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """Units of each class in each bin, int64 (classes, number)."""
        flat = np.bincount(self.label * number + bins[self.unit], minlength=self.classes * number)
        return flat.reshape(self.classes, number)

    def labels_of(self, unit: int) -> NDArray[np.int64]:
        """The classes of one unit."""
        first, last = np.searchsorted(self.unit, [unit, unit + 1])
        return self.label[first:last]


def spread(
    positions: NDArray[np.float64],
    edges: NDArray[np.float64],
    needs: NDArray[np.int64],
    members: Membership,
    order: Sequence[int],
) -> tuple[NDArray[np.int64], set[int]]:
    """Put each unit into the bin that its position lies in, then fill the bins that have too few units of a class.

    Such a bin gets the unit of the class that lies nearest to it, if no class of that unit then lacks it where it was.
    For units of one class each, all needs are met if their sum is at most the number of the class's units.

    Args:
        positions: (units,), in [0, 1).
        edges: (bins + 1,), ascending from 0 to 1; a bin begins at its edge and ends before the next.
        needs: (classes, bins), the least number of units of each class.
        members: the classes of the units; a unit that it does not hold is put by its position alone.
        order: all classes, in the order in which they are looked at.

    Returns:
        The bin of each unit, (units,), and the classes for which units were moved.
    """
    number = len(edges) - 1
    bins = np.clip(np.searchsorted(edges, positions, side="right") - 1, 0, number - 1).astype(np.int64)
    counts = members.count(bins, number)
    moved: set[int] = set()
    lacking = set(np.nonzero(counts < needs)[0].tolist())
    by_class = np.argsort(members.label, kind="stable")
    starts = np.searchsorted(members.label[by_class], np.arange(members.classes + 1))
    for label in (label for label in order if label in lacking):
        units = members.unit[by_class[starts[label] : starts[label + 1]]]
        for wanted in range(number):
            while counts[label, wanted] < needs[label, wanted]:
                elsewhere = units[bins[units] != wanted]
                distance = np.maximum(edges[wanted] - positions[elsewhere], positions[elsewhere] - edges[wanted + 1])
                for unit in elsewhere[np.lexsort((positions[elsewhere], distance))].tolist():
                    labels = members.labels_of(unit)
                    if (counts[labels, bins[unit]] > needs[labels, bins[unit]]).all():
                        break
                else:
                    break
                counts[labels, bins[unit]] -= 1
                counts[labels, wanted] += 1
                bins[unit] = wanted
                moved.add(label)
    return bins, moved
