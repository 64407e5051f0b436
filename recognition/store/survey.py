"""The first look at images: headers only, to fit size and channels to them and to note what is odd about them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median_low

from recognition.experiment import Data
from recognition.images import read_header
from recognition.pixels import NotAnImageError
from recognition.progress import Progress
from recognition.sources.labelled import Images

LARGEST_AUTOMATIC_SIDE = 224


@dataclass
class Survey:
    """What the headers of all files tell."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How many images are of each (height, width)."""
    all_gray: bool = True
    unreadable: dict[int, str] = field(default_factory=dict)
    """Index of a file that has no header of an image, and what it is."""
    remarks: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Kind of remark (see `recognition.images.Header`) and the images it is about."""


def survey(images: Images, on_progress: Progress) -> Survey:
    """Read the headers of all files of a source, or the shape of its decoded pixels."""
    seen = Survey()
    if images.pixels is not None:
        _, height, width, channels = images.pixels.shape
        seen.sizes[(height, width)] = len(images)
        seen.all_gray = channels == 1
        return seen
    assert images.read is not None, "a source has pixels or files"
    for count, index in enumerate(images.reading_order, start=1):
        name = images.sample_ids[index]
        try:
            header = read_header(images.read(index), name)
        except NotAnImageError as error:
            seen.unreadable[index] = error.reason
            continue
        seen.sizes[(header.height, header.width)] += 1
        seen.all_gray &= header.gray
        for remark in header.remarks:
            seen.remarks[remark].append(index)
        if count % 256 == 0 or count == len(images):
            on_progress(count, len(images), "looking at images")
    return seen


def target_shape(seen: Survey, data: Data) -> tuple[int, int, int]:
    """Height, width and channels to prepare images at; what the settings leave open is fitted to the images.

    All of one size: that size. Otherwise a square: half of the images have a short side at least that long, rounded
    down to a multiple of 32 (from 32 on), 224 at most.
    """
    channels = {"gray": 1, "rgb": 3, "auto": 1 if seen.all_gray else 3}[data.channels]
    if data.image_size:
        return data.image_size, data.image_size, channels
    if len(seen.sizes) == 1:
        height, width = next(iter(seen.sizes))
        return height, width, channels
    side = median_low(_short_sides(seen.sizes))
    side = side // 32 * 32 if side >= 32 else side
    return min(side, LARGEST_AUTOMATIC_SIDE), min(side, LARGEST_AUTOMATIC_SIDE), channels


def _short_sides(sizes: Counter[tuple[int, int]]) -> Iterable[int]:
    return (min(size) for size in sizes.elements())
