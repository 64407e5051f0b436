"""Which copies matter: under two labels, in two of the splits that a source gives, or twice within one split.

Two images are taken for one under two labels where their pixels are the same. A near copy is where `duplicates` says
so, and the stored images also match pixel for pixel without mirroring, and both originals have at least
`LEAST_SIDE` pixels on each side: mirrored images may have different labels by right (an arrow to the left and one to
the right), and in a few pixels different things look alike (a 4 and a 9 of 8 x 8 pixels).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recognition.audit.grouping import Indices, groups_of
from recognition.audit.inspected import Inspected
from recognition.splits import SPLITS

LEAST_SIDE = 32
LEAST_CORRELATION = 0.95
LARGEST_DIFFERENCE = 12.0
"""Mean absolute difference in steps of 256; JPEG of quality 60 makes about 3."""

_COMPARED_SIDE = 32
_FLATTEST = 4.0
_MOST_COMPARED = 200
"""Larger groups of near copies are compared by content only: they are series, not pairs."""


def conflicting(inspected: Inspected, used: NDArray[np.bool_], content: Indices, units: Indices) -> list[Indices]:
    """Groups of images that show the same under several labels.

    Args:
        used: bool (N,), the images to look at.
        content: int64 (N,), equal where pixels are.
        units: int64 (N,), equal where images are copies or near copies.
    """
    labels, images = inspected.labels, np.flatnonzero(used)
    found = []
    for unit in groups_of(units, images):
        if len(set(labels[unit].tolist())) < 2:
            continue
        key = content[unit].copy()
        if len(unit) <= _MOST_COMPARED and len(set(key.tolist())) > 1:
            key = _matched(inspected, unit, key)
        found += [group for group in _groups_within(unit, key) if len(set(labels[group].tolist())) > 1]
    return sorted(found, key=lambda group: int(group[0]))


def _matched(inspected: Inspected, unit: Indices, key: Indices) -> Indices:
    """The keys of a unit, made equal for images under different labels that match."""
    measures = inspected.measures[unit]
    large = np.minimum(measures["height"], measures["width"]) >= LEAST_SIDE
    pixels = np.stack([_small_gray(image) for image in inspected.images[unit]])
    centred = pixels - pixels.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1)
    judged = large & (deviation >= _FLATTEST)
    centred /= np.maximum(deviation, _FLATTEST)[:, np.newaxis]
    alike = centred @ centred.T / pixels.shape[1] >= LEAST_CORRELATION
    for first, second in np.argwhere(np.triu(alike & judged & judged[:, np.newaxis], 1)).tolist():
        other_label = inspected.labels[unit[first]] != inspected.labels[unit[second]]
        if other_label and np.abs(pixels[first] - pixels[second]).mean() <= LARGEST_DIFFERENCE:
            key = np.where(key == key[second], key[first], key)
    return key


def _small_gray(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    side = min(_COMPARED_SIDE, *image.shape[:2])
    gray = Image.fromarray(image.astype(np.float32).mean(axis=2))
    return np.asarray(gray.resize((side, side), Image.Resampling.BOX), np.float32).ravel()


def _groups_within(images: Indices, key: Indices) -> list[Indices]:
    return [images[group] for group in groups_of(key, np.arange(len(images)))]


def held_out(given: NDArray[np.str_]) -> Indices:
    """How much each image is held out by its source: 0 train, 1 val, 2 test, and -1 where the source says nothing."""
    rank = np.full(len(given), -1, np.int64)
    for number, name in enumerate(SPLITS):
        rank[given == name] = number
    return rank


def leaking(rank: Indices, units: Indices, usable: NDArray[np.bool_]) -> list[Indices]:
    """Groups of copies in several of the splits that the source gives."""
    groups = groups_of(units, np.flatnonzero(usable & (rank >= 0)))
    return [group for group in groups if (rank[group] != rank[group[0]]).any()]


def moved(rank: Indices, units: Indices, groups: Indices, usable: NDArray[np.bool_]) -> Indices:
    """Ranks where all copies have the highest of them; a group of the user's that was in one split still is.

    Args:
        groups: int64 (N,), the user's groups, -1 for none.
    """
    may = usable & (rank >= 0)
    whole = may & (groups >= 0)
    if whole.any():
        most, least = _highest(groups[whole], rank[whole]), -_highest(groups[whole], -rank[whole])
        whole[whole] = most == least
    rank = rank.copy()
    while True:
        new = rank.copy()
        if may.any():
            new[may] = _highest(units[may], new[may])
        if whole.any():
            new[whole] = _highest(groups[whole], new[whole])
        if (new == rank).all():
            return rank
        rank = new


def repeated(
    split: NDArray[np.str_], labels: Indices, content: Indices, units: Indices
) -> tuple[list[Indices], list[Indices]]:
    """Groups with one label within one split: of equal pixels, and of near copies (with their equals).

    Images whose split is empty text are not looked at.
    """
    place = labels * len(SPLITS)
    for number, name in enumerate(SPLITS):
        place[split == name] += number
    size, used = int(place.max(initial=0)) + 1, np.flatnonzero(split != "")
    exact = groups_of(content * size + place, used)
    near = groups_of(units * size + place, used)
    return exact, [group for group in near if (content[group] != content[group[0]]).any()]


def best_of(group: Indices, inspected: Inspected, content: Indices) -> int:
    """The largest image of a group of copies; of several that with the smallest content, which no name decides."""
    measures = inspected.measures[group]
    area = measures["height"].astype(np.int64) * measures["width"].astype(np.int64)
    return int(group[np.lexsort((group, content[group], -area))[0]])


def _highest(keys: Indices, values: Indices) -> Indices:
    """For each position the highest value of all with its key."""
    highest = np.full(int(keys.max()) + 1, np.iinfo(np.int64).min)
    np.maximum.at(highest, keys, values)
    return highest[keys]
