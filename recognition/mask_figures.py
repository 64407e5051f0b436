"""Figures of class maps: each image with its truth and its prediction drawn over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

from recognition.drawing import MUTED, PALETTE, drawing, short
from recognition.objects import IGNORED
from recognition.overlays import with_map

LONGEST_LEGEND = 12
Pixels = NDArray[np.uint8]


def overlays(
    images: Pixels,
    truths: Pixels,
    predictions: Pixels,
    scores: Sequence[str],
    sample_ids: Sequence[str],
    class_names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Show images in the order given, each alone, with its truth, and with its prediction; two of them a row.

    Args:
        images: uint8 (N, H, W, 1 or 3), N >= 1.
        truths: class maps, uint8 (N, H, W).
        predictions: likewise.
        scores: a text an image, such as its Dice.
        sample_ids: a name an image.
        class_names: without background.
        title: of the figure.
        path: the PNG; its folder is made.

    Raises:
        ValueError: the numbers or sizes differ, as of masks of another size than their image.
    """
    lengths = {len(images), len(truths), len(predictions), len(scores), len(sample_ids)}
    if lengths != {len(images)} or not len(images) or not images.shape[:3] == truths.shape == predictions.shape:
        raise ValueError(
            f"images {images.shape}, truths {truths.shape}, predictions {predictions.shape}, {len(scores)} scores and "
            f"{len(sample_ids)} sample ids do not fit each other"
        )
    pairs = min(2, len(images))
    rows = math.ceil(len(images) / pairs)
    with drawing(path, 4.8 * pairs, 1.75 * rows + 0.7) as figure:
        figure.suptitle(title, fontsize=11, fontweight="bold")
        grid = figure.subplots(rows, 3 * pairs, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for index, image in enumerate(images):
            row, pair = divmod(index, pairs)
            alone, true, said = grid[row, 3 * pair : 3 * pair + 3]
            _show(alone, with_map(image, np.zeros_like(truths[index])), short(sample_ids[index], 22, keep_end=True))
            _show(true, with_map(image, truths[index]), "truth")
            _show(said, with_map(image, predictions[index]), f"predicted · {scores[index]}")
        legend = _legend(class_names, bool((truths == IGNORED).any()))
        figure.legend(handles=legend, loc="outside lower center", ncols=min(6, len(legend)))


def _show(axes: Axes, picture: Pixels, title: str) -> None:
    interpolation = "nearest" if max(picture.shape[:2]) < 100 else "antialiased"
    axes.imshow(picture, interpolation=interpolation)
    axes.set_title(title, fontsize=8, fontweight="normal", loc="center", pad=3)


def _legend(class_names: Sequence[str], ignored: bool) -> list[Patch]:
    shown = [
        Patch(color=PALETTE[number % len(PALETTE)], label=short(name))
        for number, name in enumerate(class_names[:LONGEST_LEGEND])
    ]
    if len(class_names) > LONGEST_LEGEND:
        shown.append(Patch(color="none", label=f"and {len(class_names) - LONGEST_LEGEND} more"))
    return [*shown, Patch(color=MUTED, label="ignored")] if ignored else shown
