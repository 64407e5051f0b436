"""Figures of autoencoders: images as they come back, the worst of them, and the map of their codes.

Images are NHWC uint8 with 1 (gray) or 3 (RGB) channels. Every function makes the folder of ``path``, replaces the file
and returns nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recognition.drawing import MUTED, PALETTE, RIGHT, WRONG, drawing, short
from recognition.galleries import Images, show_image

COLUMNS = 12
CROWD = 2_000
"""More points than these are drawn smaller."""
MOST_COLOURED = 20
"""Classes that have a colour of their own."""


def restored_rows(rows: Mapping[str, Images], title: str, path: Path) -> None:
    """Show the same n images in rows that are named, the original first, in bands of at most 12 columns.

    Raises ValueError for no images, or rows of unlike lengths.
    """
    count = len(next(iter(rows.values()), ()))
    if count == 0 or any(len(images) != count for images in rows.values()):
        raise ValueError(f"rows of {[len(images) for images in rows.values()]} images do not fit each other")
    bands = math.ceil(count / COLUMNS)
    columns = math.ceil(count / bands)
    with drawing(path, max(0.85 * columns + 1.3, 5.5), 0.9 * len(rows) * bands + 0.6) as figure:
        figure.suptitle(title, fontsize=11, fontweight="bold")
        grid = figure.subplots(len(rows) * bands, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for index in range(count):
            band, column = divmod(index, columns)
            for number, (name, images) in enumerate(rows.items()):
                axes = grid[band * len(rows) + number, column]
                show_image(axes, images[index], RIGHT if number else MUTED)
                if column == 0:
                    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, color=MUTED)


def interpolations(images: Images, path: Path) -> None:
    """Show images (rows, steps, H, W, C): in each row the way from one code to another."""
    rows, steps = images.shape[:2]
    with drawing(path, 0.75 * steps + 0.4, 0.8 * rows + 0.5) as figure:
        figure.suptitle("From the code of one test image to that of another", fontsize=11, fontweight="bold")
        grid = figure.subplots(rows, steps, squeeze=False)
        for row, way in zip(grid, images, strict=True):
            for number, (axes, image) in enumerate(zip(row, way, strict=True)):
                show_image(axes, image, RIGHT if number in (0, steps - 1) else MUTED)


def latent_map(
    points: npt.NDArray[np.float64],
    shares: Sequence[float],
    labels: npt.NDArray[np.int64] | None,
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Show codes in the plane of their two principal components, coloured by class.

    Args:
        points: (N, 2).
        shares: of the codes' variance along both axes.
        labels: int64 (N,); none: all are of one colour.
        class_names: by label; from the 21st class on they share a gray.
        path: where to write.
    """
    with drawing(path, 7.5, 5.5) as figure:
        axes = figure.subplots()
        axes.set_title(f"Codes of {len(points):,} test images")
        size = 5 if len(points) > CROWD else 14
        if labels is None:
            axes.scatter(points[:, 0], points[:, 1], s=size, alpha=0.6, linewidths=0, color=RIGHT)
        else:
            for label in np.unique(labels).tolist():
                own = label < MOST_COLOURED
                colour = PALETTE[label] if own else MUTED
                name = short(class_names[label], 20) if own else "_"
                first, second = points[labels == label].T
                axes.scatter(first, second, s=size, alpha=0.6, linewidths=0, color=colour, label=name)
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=3)
        axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
        axes.set_ylabel(f"second ({shares[1]:.0%})")


def largest_errors(
    originals: Images,
    restored: Images,
    errors: npt.NDArray[np.float64],
    titles: Sequence[str],
    total: int,
    path: Path,
) -> None:
    """Show the images that come back worst, each above what came back, with its mean squared error.

    Args:
        originals: (n, H, W, C), n >= 1, the worst first.
        restored: (n, H, W, C).
        errors: (n,).
        titles: of each image, such as its class.
        total: among how many images they were found.
        path: where to write.
    """
    count = len(originals)
    if count == 0 or {len(restored), len(errors), len(titles)} != {count}:
        raise ValueError(f"{count} originals, {len(restored)} restored, {len(errors)} errors do not fit each other")
    bands = math.ceil(count / 8)
    columns = math.ceil(count / bands)
    with drawing(path, max(1.25 * columns + 0.5, 4.5), 2.9 * bands + 0.4) as figure:
        title = f"Largest errors: {count} of {total:,} images, above what came back"
        figure.suptitle(title, fontsize=11, fontweight="bold")
        grid = figure.subplots(2 * bands, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for index in range(count):
            band, column = divmod(index, columns)
            above, below = grid[2 * band, column], grid[2 * band + 1, column]
            show_image(above, originals[index], MUTED)
            show_image(below, restored[index], WRONG)
            above.set_title(short(titles[index], 16, keep_end=True), fontsize=8, fontweight="normal", loc="center")
            below.set_xlabel(f"{errors[index]:.4f}", fontsize=8, color=MUTED, labelpad=2)
