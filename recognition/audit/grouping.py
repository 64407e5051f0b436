"""Images that belong together, by numbers: equal keys, united keys, and keys of equal content."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def groups_of(keys: Indices, images: Indices) -> list[Indices]:
    """The images that share a key with others, a sorted array for each such key, in the order of their first images.

    Args:
        keys: int64 (N,).
        images: sorted indices into ``keys``; others are not looked at.
    """
    order = images[np.argsort(keys[images], kind="stable")]
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1 if len(order) == 0 else keys[order[0]] - 1))
    ends = np.append(starts[1:], len(order))
    several = np.flatnonzero(ends - starts > 1)
    found = [order[starts[position] : ends[position]] for position in several.tolist()]
    return sorted(found, key=lambda group: int(group[0]))


def content_keys(content: NDArray[np.uint8]) -> Indices:
    """For each row of uint8 (N, 32) a number; equal rows have equal numbers. Numbers are in the order of the rows."""
    words = np.ascontiguousarray(content).view(">u8").astype(np.uint64)
    order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0]))
    ranked = words[order]
    changes = (ranked[1:] != ranked[:-1]).any(axis=1)
    keys = np.zeros(len(words), np.int64)
    keys[order[1:]] = np.cumsum(changes)
    return keys


def name_keys(names: Sequence[str]) -> Indices:
    """For each name a number from 0 on; -1 for empty text."""
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(name, len(numbers)) if name else -1 for name in names), np.int64, len(names))


def united(first: Indices, second: Indices) -> Indices:
    """Keys that are equal wherever those of ``first`` or of ``second`` are, in any number of steps; a second key of -1
    unites nothing."""
    keys = np.unique(first, return_inverse=True)[1].astype(np.int64)
    has = second >= 0
    if not has.any():
        return keys
    label = keys
    while True:  # each round hands the smallest number on; rounds are few, since chains of groups and copies are short
        new = label.copy()
        new[has] = _smallest(new[has], second[has])
        new = _smallest(new, keys)
        if (new == label).all():
            return label
        label = new


def _smallest(values: Indices, keys: Indices) -> Indices:
    """For each position the smallest value of all positions with its key."""
    smallest = np.full(int(keys.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, keys, values)
    return smallest[keys]
