"""Figures of generated images: a row a class, and each beside what it is most like.

Images are NHWC uint8 with 1 (gray) or 3 (RGB) channels. Every function makes the folder of ``path``, replaces the file
and returns nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from recognition.drawing import MUTED, RIGHT, drawing, short

Images = npt.NDArray[np.uint8]
MOST_ROWS = 20
COLUMNS = 12


def samples_by_class(
    samples: Images, labels: npt.NDArray[np.int64], class_names: Sequence[str], count: int, path: Path
) -> None:
    """Show up to ``count`` samples (N, H, W, C) of each class, in the order of ``labels`` (N,); 20 classes at most.

    With one class its samples fill rows of 12. Raises ValueError for no samples or numbers that differ.
    """
    if len(samples) == 0 or len(labels) != len(samples):
        raise ValueError(f"{len(samples)} samples and {len(labels)} labels do not fit")
    if len(class_names) == 1:
        places = np.arange(min(len(samples), count * COLUMNS))
        rows = [("", places[start : start + COLUMNS]) for start in range(0, len(places), COLUMNS)]
    else:
        rows = [(name, np.flatnonzero(labels == label)[:count]) for label, name in enumerate(class_names)]
    rows = rows[:MOST_ROWS]
    columns = max(len(places) for _, places in rows)
    with drawing(path, 0.75 * columns + 1.2, 0.8 * len(rows) + 0.4) as figure:
        figure.suptitle("Generated images", fontsize=11, fontweight="bold")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for row, (name, places) in zip(grid, rows, strict=True):
            for number, axes in enumerate(row):
                _show(axes, samples[places[number]] if number < len(places) else None)
            row[0].set_ylabel(short(name, 16), rotation=0, ha="right", va="center", fontsize=9, color=MUTED)


def beside_nearest(samples: Images, found: Images, searched: int, path: Path) -> None:
    """Show samples (n, H, W, C) and below each the image of ``found`` (n, H, W, C) that is nearest to it.

    Args:
        samples: generated images, n >= 1.
        found: the nearest of the training images to each.
        searched: among how many training images.
        path: where to write.
    """
    if len(samples) == 0 or len(samples) != len(found):
        raise ValueError(f"{len(samples)} samples and {len(found)} images found do not fit")
    bands = math.ceil(len(samples) / COLUMNS)
    columns = math.ceil(len(samples) / bands)
    with drawing(path, 0.9 * columns + 0.8, 2.0 * bands + 0.4) as figure:
        title = f"Generated images, and the nearest of {searched:,} training images to the classifier"
        figure.suptitle(title, fontsize=11, fontweight="bold")
        grid = figure.subplots(2 * bands, columns, squeeze=False)
        for axes in grid.flat:
            _show(axes, None)
        for index in range(len(samples)):
            band, column = divmod(index, columns)
            above, below = grid[2 * band, column], grid[2 * band + 1, column]
            _show(above, samples[index])
            _show(below, found[index])
            if column == 0:
                above.set_ylabel("generated", fontsize=9, color=RIGHT)
                below.set_ylabel("nearest", fontsize=9, color=MUTED)


def _show(axes: Axes, image: Images | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if image is not None:
        interpolation = "nearest" if max(image.shape[:2]) < 100 else "antialiased"
        shown = image[..., 0] if image.shape[2] == 1 else image
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation=interpolation)
