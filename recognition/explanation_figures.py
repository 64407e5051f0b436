"""Images beside what a network looked at, in groups: right, wrong and uncertain ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from recognition.drawing import MUTED, drawing, short
from recognition.galleries import Images
from recognition.scores import Labels, Probabilities, predicted_labels

Maps = npt.NDArray[np.float32]

ROLLOUT = "attention rollout"
FOR, AGAINST = "#d9480f", "#5f3dc4"
_TILE, _GAP, _CAPTION = 1.0, 0.06, 0.24
"""Parts of a tile's side: a picture, what is between two, and the line above a row."""
_TALLEST = 22.0
_STRONGEST = 0.9
_OUTLIERS = 0.5


@dataclass(frozen=True)
class Group:
    """Images that are shown together."""

    title: str
    images: Images
    """uint8 (n, H, W, C)."""
    captions: Sequence[str]
    """One an image."""
    maps: Mapping[str, Maps]
    """By the name of the method, (n, H, W). Above 0 is for what the network said, below 0 against it."""
    nothing: str
    """What is said where there are no images."""


def choose(
    labels: Labels, probabilities: Probabilities, threshold: float, count: int
) -> dict[str, npt.NDArray[np.int64]]:
    """Choose at most ``count`` positions of images a group: ``right``, ``wrong`` and ``uncertain``.

    Right and wrong ones come with the highest confidence first, uncertain ones, which may be either, with the smallest
    distance between the two likeliest classes; of two classes, from the threshold. Each group takes one image of each
    class before it takes a second of any. No image is in two groups; of equals the first come first.

    Args:
        labels: (N,).
        probabilities: (N, K).
        threshold: the probability from which the second of two classes is said.
        count: at least 1.
    """
    predictions = predicted_labels(probabilities, threshold)
    confidences = probabilities[np.arange(len(labels)), predictions]
    if probabilities.shape[1] == 2:
        margins = np.abs(probabilities[:, 1] - threshold)
    else:
        best = np.sort(probabilities, axis=1)
        margins = best[:, -1] - best[:, -2]
    is_right = labels == predictions
    by_confidence = np.argsort(-confidences, kind="stable")
    right = _one_of_each_class_first(by_confidence[is_right[by_confidence]], labels)[:count]
    wrong = _one_of_each_class_first(by_confidence[~is_right[by_confidence]], labels)[:count]
    by_margin = np.argsort(margins, kind="stable")
    left = by_margin[~np.isin(by_margin, np.concatenate([right, wrong]))]
    return {"right": right, "wrong": wrong, "uncertain": _one_of_each_class_first(left, labels)[:count]}


def _one_of_each_class_first(order: npt.NDArray[np.int64], labels: Labels) -> npt.NDArray[np.int64]:
    """Positions in a given order, sorted by how many of the same class stand before them."""
    before = np.empty(len(order), np.int64)
    ordered = labels[order]
    for label in np.unique(ordered):
        same = ordered == label
        before[same] = np.arange(same.sum())
    return order[np.argsort(before, kind="stable")]


def explanations(groups: Sequence[Group], path: Path) -> None:
    """Draw each group as a block: a row an image, first the original, then each map laid over it.

    Each map has its own scale: full colour is its largest distance from 0, or for a map that is nowhere below 0 runs
    from its smallest value to its largest. What is weak is left uncoloured.

    Raises ValueError where nothing is to be drawn, or the parts of a group differ in length.
    """
    methods = next((tuple(group.maps) for group in groups if len(group.images)), None)
    if methods is None:
        raise ValueError("no group has images: there is nothing to explain")
    for group in groups:
        lengths = {len(group.captions), len(group.images), *(len(maps) for maps in group.maps.values())}
        if len(lengths) != 1 or (len(group.images) and tuple(group.maps) != methods):
            raise ValueError(f"the images, captions and maps of the group {group.title!r} do not fit each other")
    most = max(len(group.images) for group in groups)
    height, width = next(group.images.shape[1:3] for group in groups if len(group.images))
    tile = np.array([width, height]) / max(height, width)
    row = tile[1] + _CAPTION + _GAP
    block = (1 + len(methods)) * (tile[0] + _GAP) + 0.35
    scale = min(1.15, _TALLEST / (most * row))
    with drawing(path, max(len(groups) * block * scale, 6.0), most * row * scale + 0.9) as figure:
        axes = figure.subplots()
        for number, group in enumerate(groups):
            _draw_group(axes, group, methods, number * block, tile, row, scale)
        axes.set_xlim(0, len(groups) * block)
        axes.set_ylim(most * row, -0.62 / scale)
        axes.set_aspect("equal")
        axes.set_axis_off()
        legend = "orange: speaks for what the network said; violet: against it"
        if ROLLOUT in methods:
            legend += f"; {ROLLOUT} only tells where it looked"
        axes.text(0, most * row + 0.05 / scale, legend, fontsize=8, color=MUTED, va="top")


def _draw_group(
    axes: Axes,
    group: Group,
    methods: Sequence[str],
    left: float,
    tile: npt.NDArray[np.float64],
    row: float,
    scale: float,
) -> None:
    axes.text(left, -0.42 / scale, group.title, fontsize=11, fontweight="bold", va="bottom")
    if not len(group.images):
        axes.text(left, row / 2, group.nothing, fontsize=9, color=MUTED, va="center")
        return
    size = float(np.clip(9 * scale, 5, 8))
    for column, method in enumerate(("original", *methods)):
        middle = left + column * (tile[0] + _GAP) + tile[0] / 2
        name = method.replace(" ", "\n")
        axes.text(
            middle, -0.04 / scale, name, fontsize=size - 1, color=MUTED, ha="center", va="bottom", linespacing=0.9
        )
    for index, (image, caption) in enumerate(zip(group.images, group.captions, strict=True)):
        top = index * row + _CAPTION
        axes.text(left, top - 0.05, caption, fontsize=size, va="bottom")
        overlays = [overlay(image, group.maps[method][index]) for method in methods]
        pictures: list[npt.NDArray[Any]] = [_in_colour(image), *overlays]
        for column, picture in enumerate(pictures):
            start = left + column * (tile[0] + _GAP)
            interpolation = "nearest" if max(image.shape[:2]) < 100 else "antialiased"
            extent = (start, start + tile[0], top + tile[1], top)
            axes.imshow(picture, extent=extent, interpolation=interpolation)


def caption(label: str, prediction: str, confidence: float) -> str:
    """ "label → prediction 0.98", each name cut to fit above a row."""
    return f"{short(label, 16)} → {short(prediction, 16)}  {confidence:.2f}"


def overlay(image: Images, values: Maps) -> npt.NDArray[np.float32]:
    """A map (H, W) over a pale gray form of its image, uint8 (H, W, C): float32 (H, W, 3) in [0, 1].

    A few values beyond all others do not set the scale: it ends at the 99.5th percentile of distances from 0.
    """
    gray = image.mean(axis=2, dtype=np.float32)[..., None] / 255
    pale = 0.45 + 0.55 * gray
    shown = values if (values < 0).any() else values - values.min()
    strength = np.abs(shown)
    # a map may be one bright pixel, of which no percentile knows
    full = np.percentile(strength, 100 - _OUTLIERS) or strength.max()
    if full > 0:
        strength = np.minimum(strength / full, 1)
    colours = np.where(shown[..., None] >= 0, to_rgb(FOR), to_rgb(AGAINST))
    alpha = _STRONGEST * strength[..., None]
    laid: npt.NDArray[np.float32] = (pale * (1 - alpha) + colours * alpha).astype(np.float32)
    return laid


def _in_colour(image: Images) -> Images:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
