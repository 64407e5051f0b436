"""Where a Vision Transformer's class token looks: each image beside one map a head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from recognition.drawing import MUTED, drawing, short

_MOST_HEADS = 12


def attention_maps(
    images: NDArray[np.uint8], attention: NDArray[np.float32], titles: Sequence[str], path: Path
) -> None:
    """Show each image and, in the columns beside it, what each head of one block takes from its patches.

    A map is as bright as the patch that its head takes most from allows; the number is that patch's share of all that
    the head takes, the class token included. At most 12 heads are shown.

    Args:
        images: uint8 (n, H, W, C), C 1 or 3, n >= 1.
        attention: (n, heads, rows, columns), from 0 to 1: of the class token to each patch.
        titles: a word for each image.
        path: the file; it is replaced.

    Raises:
        ValueError: there are no images, or the numbers differ.
    """
    if not len(images) == len(attention) == len(titles) > 0:
        raise ValueError(f"{len(images)} images, {len(attention)} maps and {len(titles)} titles do not fit each other")
    heads = min(attention.shape[1], _MOST_HEADS)
    with drawing(path, 1.25 * (heads + 1) + 0.6, 1.3 * len(images) + 0.5) as figure:
        figure.suptitle("Attention of the class token, last block", fontsize=11, fontweight="bold")
        grid = figure.subplots(len(images), heads + 1, squeeze=False)
        for axes, image, title in zip(grid[:, 0], images, titles, strict=True):
            _show(axes, image)
            axes.set_ylabel(short(title, 16), fontsize=9)
        for row, (image, maps) in enumerate(zip(images, attention, strict=True)):
            for head in range(heads):
                axes = grid[row, head + 1]
                _show(axes, image)
                _lay_over(axes, image, maps[head])
                if row == 0:
                    axes.set_title(f"head {head + 1}", fontsize=9, fontweight="normal", loc="center", pad=4)
                axes.set_xlabel(f"{maps[head].max():.2f}", fontsize=7, color=MUTED, labelpad=2)


def _show(axes: Axes, image: NDArray[np.uint8]) -> None:
    shown = image[..., 0] if image.shape[2] == 1 else image
    interpolation = "nearest" if max(image.shape[:2]) < 100 else "antialiased"
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation=interpolation)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _lay_over(axes: Axes, image: NDArray[np.uint8], weights: NDArray[np.float32]) -> None:
    height, width = image.shape[:2]
    # the corners of the image, from pixel edge to pixel edge
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(weights, cmap="inferno", vmin=0, alpha=0.65, extent=extent, interpolation="nearest")
