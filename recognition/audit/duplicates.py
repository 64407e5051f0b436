"""Which images are copies: exact ones, of the same pixels, and near ones, resized, encoded again or mirrored.

Near copies are found by their distance: the root mean square difference of the low frequencies of their brightness (8 x
8 of the discrete cosine transform, as in perceptual hashes, but with their values), in steps of brightness, to the
image or to its mirror image. Copies differ by a small share of their contrast, a few steps at most, and nowhere by
much; different photographs differ by most of their contrast. A distance alone would not do: dark and flat images are
all close to each other, and so are a bright spot here and another there.

Groups do not chain: each has one leader, all others are copies of it, and an image joins one group only. Of a series of
frames that change step by step, neighbours may therefore be told apart; such series need groups of the user's.

What these limits reach is measured by `benchmarks/duplicate_detection.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recognition.audit.grouping import Indices, content_keys, groups_of
from recognition.audit.inspected import Measures
from recognition.audit.measures import GRAY_SIDE

LEADER_SIDE: Final = 24
"""A near copy needs an original with so many pixels on its shorter side; below, different things look alike (digits of
8 x 8 pixels), and only equal pixels make copies."""
COPY_SIDE: Final = 16
"""So many pixels a reduced copy must have on its shorter side."""
SHARE_OF_CONTRAST: Final = 0.12
"""Largest distance of copies, over the lower of their contrasts. 99 of 100 copies of 32 x 32 pixels (mirrored, resized
and saved as JPEG of quality 60, all three) are below 0.09; 99 of 100 unlike photographs are above 0.35."""
FARTHEST: Final = 4.0
"""Largest distance of copies, however high their contrast; 99 of 100 such copies are below 3.9."""
FARTHEST_MEAN: Final = 3.0
"""Largest difference of their mean brightness."""
FARTHEST_PART: Final = 12.0
"""Largest difference of any of 8 x 8 parts: two shirts that differ by a small print are no copies."""
FARTHEST_CHROMA: Final = 6.0
"""Largest root mean square difference of the colours of 4 x 4 parts."""
FINE_SIDE: Final = 64
"""Where both have so many pixels on their shorter side, all 16 x 16 frequencies count; in fewer pixels, those above 8
change with every resampling."""
LEAST_CONTRAST: Final = 2.0
LEAST_PARTS: Final = 8.0
"""Images of less contrast, or whose contrast lies in fewer of 16 x 16 parts (one bright spot in the dark), show too
little to know copies by: only equal pixels make copies."""

_COPIED: Final = 8
"""Frequencies that copies share, down and across."""
_ROWS: Final = 4096
_LEADERS: Final = 128
_COMPARED: Final = 4 << 20
"""Distances computed at once."""

Values = NDArray[np.float32]


def _cosines(size: int) -> Values:
    """The orthonormal discrete cosine transform (DCT-II), (size, size): a row for each frequency."""
    numbers = np.arange(size)
    basis = np.cos(np.pi * numbers[:, np.newaxis] * (2 * numbers + 1) / (2 * size)) * np.sqrt(2 / size)
    basis[0] /= np.sqrt(2)
    result: Values = basis.astype(np.float32)
    return result


_COSINES: Final = _cosines(GRAY_SIDE) / np.float32(np.sqrt(GRAY_SIDE))
"""Divided so that the root of the sum of squares in the spectrum is the root mean square of the image."""
_PARTS: Final = _cosines(_COPIED) * np.float32(np.sqrt(_COPIED))
"""From such a spectrum to the averages of 8 x 8 parts."""


@dataclass(frozen=True)
class Duplicates:
    """Copies among N images, by index. Groups are sorted arrays of at least two, in the order of their first image."""

    exact: list[Indices]
    """Groups of equal pixels."""
    near: list[Indices]
    """Groups of near copies; each holds at least two different contents, and all exact copies of them."""
    unit: Indices
    """int64 (N,): equal for images that are in one group, exact or near."""


def find(measures: Measures) -> Duplicates:
    """Find exact and near copies.

    The groups depend on what the images show, and not on their order. Memory: about 400 bytes an image besides the
    rows. Time: grows with the square of the number, from a few seconds for 60,000 on.

    Args:
        measures: rows of `recognition.audit.measures.MEASURES`, shape (N,). Rows of zeros are images that could not be
            read: they are no copies of anything.
    """
    readable = np.flatnonzero(measures["height"] > 0)
    unit = np.arange(len(measures), dtype=np.int64)
    if len(readable) == 0:
        return Duplicates([], [], unit)
    keys = content_keys(np.ascontiguousarray(measures["content"][readable]))
    firsts = readable[np.unique(keys, return_index=True)[1]]
    leaders = firsts[_lead(measures, firsts)]
    unit[readable] = leaders[keys]
    exact = [readable[group] for group in groups_of(keys, np.arange(len(readable)))]
    several = np.zeros(len(measures), bool)
    several[leaders[leaders != firsts]] = True
    near = groups_of(unit, np.flatnonzero(several[unit]))
    return Duplicates(exact, near, unit)


@dataclass(frozen=True)
class _Hashes:
    """M images that may have near copies, sorted by their mean brightness."""

    row: Indices
    """(M,) index into the rows of measures."""
    mean: Values
    shape: Values
    """(M, 64) low frequencies of the brightness, without its mean. Those that change their sign in the mirror image are
    without sign, so that one comparison stands for both: it tells of no larger distance than there is."""
    energy: Values
    """(M,) squared length of ``shape``."""
    reach: Values
    """(M,) the farthest that a copy may be."""
    leads: NDArray[np.bool_]


def _lead(measures: Measures, images: Indices) -> Indices:
    """For each of M images of different content the position in ``images`` of the leader of its group: itself, if it
    has none."""
    position = np.full(len(measures), -1, np.int64)
    position[images] = np.arange(len(images))
    hashes = _hashes(measures, images)
    leader = np.full(len(hashes.row), -1, np.int64)
    for block in _blocks(_candidates(measures, hashes), leader, hashes):
        for one, others in _close(hashes, block):
            if leader[one] >= 0:
                continue
            others = others[(leader[others] < 0) & (others != one)]
            others = others[_are_copies(measures, hashes, one, others)]
            if len(others):
                leader[one] = one
                leader[others] = one
    result = np.arange(len(images), dtype=np.int64)
    led = leader >= 0
    result[position[hashes.row[led]]] = position[hashes.row[leader[led]]]
    return result


def _hashes(measures: Measures, images: Indices) -> _Hashes:
    """Read the descriptors, some thousand rows at a time; twice, since sorting what was read would need more memory."""
    kept: list[tuple[Any, ...]] = []
    for start in range(0, len(images), _ROWS):
        rows = images[start : start + _ROWS]
        read = measures[rows]
        side = _short_side(read)
        gray = read["gray"].astype(np.float32)
        contrast = gray.std(axis=(1, 2))
        usable = (side >= COPY_SIDE) & (contrast >= LEAST_CONTRAST) & (_parts(gray) >= LEAST_PARTS)
        reach = np.minimum(SHARE_OF_CONTRAST * contrast, FARTHEST)
        columns = (rows, gray.mean(axis=(1, 2)), reach, side >= LEADER_SIDE)
        kept.append(tuple(column[usable] for column in columns))
    row, mean, reach, leads = (np.concatenate(column) for column in zip(*kept, strict=True))
    order = np.argsort(mean, kind="stable")
    row = row[order]
    shape = np.empty((len(row), _COPIED * _COPIED), np.float32)
    for start in range(0, len(row), _ROWS):
        gray = measures[row[start : start + _ROWS]]["gray"].astype(np.float32)
        spectrum = _COSINES[:_COPIED] @ gray @ _COSINES[:_COPIED].T
        spectrum[:, 0, 0] = 0
        spectrum[:, :, 1::2] = np.abs(spectrum[:, :, 1::2])
        shape[start : start + len(gray)] = spectrum.reshape(len(gray), -1)
    energy = np.einsum("ij,ij->i", shape, shape)
    return _Hashes(row, mean[order], shape, energy, reach[order], leads[order])


def _parts(gray: Values) -> Values:
    """In how many of 16 x 16 parts the contrast lies: 256 if all differ as much from the mean, 1 if only one does."""
    squares = (gray - gray.mean(axis=(1, 2), keepdims=True)) ** 2
    parts: Values = squares.sum(axis=(1, 2)) ** 2 / np.maximum((squares**2).sum(axis=(1, 2)), 1e-6)
    return parts


def _candidates(measures: Measures, hashes: _Hashes) -> Indices:
    """All that may lead, larger images first (by doublings of the area), so that originals lead their reduced copies;
    within one doubling by brightness, so that those compared at once are alike in it. Content decides the rest."""
    may = np.flatnonzero(hashes.leads)
    rows = hashes.row[may]
    octave = np.floor(np.log2(measures["height"][rows].astype(np.float64) * measures["width"][rows]))
    content = np.ascontiguousarray(measures["content"][rows][:, :8]).view(">u8").ravel()
    return may[np.lexsort((content, hashes.mean[may], -octave))]


def _blocks(candidates: Indices, leader: Indices, hashes: _Hashes) -> Iterator[Indices]:
    """Candidates that have no leader by the time they are asked for."""
    position, count = 0, max(1, min(_LEADERS, _COMPARED // max(1, len(hashes.row))))
    while position < len(candidates):
        ahead = candidates[position : position + count]
        position += count
        yield ahead[leader[ahead] < 0]


def _close(hashes: _Hashes, block: Indices) -> Iterator[tuple[int, Indices]]:
    """For each image of a block all that are as close in their low frequencies as copies must be."""
    if len(block) == 0:
        return
    mean = hashes.mean[block]
    first = int(np.searchsorted(hashes.mean, mean.min() - FARTHEST_MEAN))
    last = int(np.searchsorted(hashes.mean, mean.max() + FARTHEST_MEAN, side="right"))
    distance = hashes.shape[block] @ hashes.shape[first:last].T
    distance *= -2
    distance += hashes.energy[first:last]
    limit = hashes.reach[block] ** 2 - hashes.energy[block] + 0.05  # what rounding may add
    rows, columns = np.nonzero(distance <= limit[:, np.newaxis])
    bounds = np.searchsorted(rows, np.arange(len(block) + 1))
    for number, one in enumerate(block.tolist()):
        if bounds[number + 1] - bounds[number] > 1:
            yield one, columns[bounds[number] : bounds[number + 1]] + first


def _are_copies(measures: Measures, hashes: _Hashes, one: int, others: Indices) -> NDArray[np.bool_]:
    """Whether images are copies of one, as they are or mirrored, by their whole descriptors."""
    reach = np.minimum(hashes.reach[one], hashes.reach[others])
    copies: NDArray[np.bool_] = np.abs(hashes.mean[others] - hashes.mean[one]) <= FARTHEST_MEAN
    original = measures[hashes.row[one]]
    for start in range(0, len(others), _ROWS):
        part = slice(start, start + _ROWS)
        rows = measures[hashes.row[others[part]]]
        fine = np.minimum(_short_side(rows), _short_side(original)) >= FINE_SIDE
        alike = np.zeros(len(rows), bool)
        for gray, chroma in (
            (original["gray"], original["chroma"]),
            (original["gray"][:, ::-1], original["chroma"][:, :, ::-1]),
        ):
            colours = rows["chroma"].astype(np.float32) - chroma
            same_colours = np.sqrt((colours**2).mean(axis=(1, 2, 3))) <= FARTHEST_CHROMA
            alike |= same_colours & _same_shapes(rows["gray"].astype(np.float32) - gray, reach[part], fine)
        copies[part] &= alike
    return copies


def _same_shapes(difference: Values, reach: Values, fine: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether differences of brightness, (n, 16, 16), are within reach as a whole and small in every part."""
    spectrum = _COSINES @ difference @ _COSINES.T
    spectrum[:, 0, 0] = 0
    coarse = spectrum[:, :_COPIED, :_COPIED]
    squares = np.where(fine, (spectrum**2).sum(axis=(1, 2)), (coarse**2).sum(axis=(1, 2)))
    parts = _PARTS.T @ coarse @ _PARTS
    within: NDArray[np.bool_] = (np.sqrt(squares) <= reach) & (np.abs(parts).max(axis=(1, 2)) <= FARTHEST_PART)
    return within


def _short_side(rows: Measures) -> NDArray[np.uint32]:
    side: NDArray[np.uint32] = np.minimum(rows["height"], rows["width"])
    return side
