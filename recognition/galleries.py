"""Pictures of pictures: the most confident mistakes, and originals above their augmented forms.

Images are NHWC uint8 with 1 (gray) or 3 (RGB) channels. Every function makes the folder of ``path``, replaces the file
and returns nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from recognition.drawing import MUTED, RIGHT, WRONG, drawing, short, write_message
from recognition.scores import Labels

Images = npt.NDArray[np.uint8]


def most_confident_mistakes(
    images: Images | Callable[[npt.NDArray[np.int64]], Images],
    labels: Labels,
    predictions: Labels,
    confidences: npt.NDArray[np.floating[Any]],
    class_names: Sequence[str],
    sample_ids: Sequence[str],
    count: int,
    path: Path,
) -> None:
    """Show the ``count`` wrong images with the highest confidence, each with "true → said (0.98)" and its sample id.

    ``images`` is (N, H, W, C), or a function that reads the images at some positions; only those shown are read. The
    others hold one entry an image; ``confidences`` is the probability of the prediction. Of equal confidence the first
    come first. Where nothing is wrong the figure says so. Raises ValueError for a count below 1, lengths that differ,
    or other images.
    """
    if count < 1:
        raise ValueError(f"count is {count}; at least 1 image can be shown")
    given = len(labels) if callable(images) else len(images)
    if len({given, len(labels), len(predictions), len(confidences), len(sample_ids)}) != 1:
        raise ValueError(
            f"{given} images, {len(labels)} labels, {len(predictions)} predictions, {len(confidences)} confidences and"
            f" {len(sample_ids)} sample ids do not fit each other"
        )
    wrong = np.flatnonzero(np.asarray(labels) != np.asarray(predictions))
    if len(wrong) == 0:
        write_message(path, "No mistakes", f"All {len(labels):,} images are classified right.")
        return
    shown = wrong[np.argsort(-np.asarray(confidences)[wrong], kind="stable")][:count]
    tiles = images(shown) if callable(images) else images[shown]
    _check_images("images", tiles)
    rows = math.ceil(len(shown) / (4 if len(shown) <= 16 else 8))
    columns = math.ceil(len(shown) / rows)
    with drawing(path, max(1.5 * columns, 4.5), 1.95 * rows + 0.4) as figure:
        figure.suptitle(
            f"Most confident mistakes: {len(shown)} of {len(wrong):,} among {len(labels):,} images",
            fontsize=11,
            fontweight="bold",
        )
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        for axes, tile, index in zip(grid.flat, tiles, shown, strict=False):
            show_image(axes, tile, WRONG)
            true, said = class_names[labels[index]], class_names[predictions[index]]
            text = f"{true} → {said} ({confidences[index]:.2f})"
            if len(text) > 20:
                text = f"{short(true, 20)}\n→ {short(said, 13)} ({confidences[index]:.2f})"
            axes.set_title(text, fontsize=9, fontweight="normal", loc="center", pad=4)
            axes.set_xlabel(short(str(sample_ids[index]), 24, keep_end=True), fontsize=6.5, color=MUTED, labelpad=3)


def preview_grid(originals: Images, augmented: Images, path: Path, titles: Sequence[str] = ()) -> None:
    """Show n originals (n, H, W, C) and below each the same image augmented, in bands of at most 8 columns.

    The two may differ in size. ``titles`` (one an original, such as class names, or none) stand above. Raises
    ValueError for no images, numbers that differ, or other images.
    """
    _check_images("originals", originals)
    _check_images("augmented", augmented)
    count = len(originals)
    if count == 0 or len(augmented) != count or len(titles) not in (0, count):
        raise ValueError(f"{count} originals, {len(augmented)} augmented images and {len(titles)} titles do not fit")
    bands = math.ceil(count / 8)
    columns = math.ceil(count / bands)
    with drawing(path, 1.25 * columns + 0.5, (2.5 + (0.25 if titles else 0)) * bands) as figure:
        grid = figure.subplots(2 * bands, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for index in range(count):
            band, column = divmod(index, columns)
            above, below = grid[2 * band, column], grid[2 * band + 1, column]
            show_image(above, originals[index], MUTED)
            show_image(below, augmented[index], RIGHT)
            if titles:
                above.set_title(short(titles[index], 16), fontsize=9, fontweight="normal", loc="center", pad=4)
            if column == 0:
                above.set_ylabel("original", fontsize=9, color=MUTED)
                below.set_ylabel("augmented", fontsize=9, color=RIGHT)


def _check_images(what: str, images: Images) -> None:
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
        raise ValueError(
            f"{what} are {images.dtype} of shape {images.shape}; uint8 (images, height, width, 1 or 3) fits"
        )


def show_image(axes: Axes, image: Images, frame: str) -> None:
    """Show an image (H, W, 1 or 3), uint8, without ticks, in a frame of a colour."""
    shown = image[..., 0] if image.shape[2] == 1 else image
    interpolation = "nearest" if max(image.shape[:2]) < 100 else "antialiased"
    axes.set_axis_on()
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation=interpolation)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(frame)
