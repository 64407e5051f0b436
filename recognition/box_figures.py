"""Objects drawn on images: right, missed and false ones for an evaluation, and labelled ones for an answer."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from recognition.box_scores import Found, matched
from recognition.drawing import MUTED, PALETTE, RIGHT, WRONG, drawing, short
from recognition.objects import Objects
from recognition.pixels import Pixels

MISSED = PALETTE[1]
COLUMNS = 4
_KINDS: dict[str, tuple[str, Literal["-", ":", "--"]]] = {
    "right": (RIGHT, "-"),
    "missed": (MISSED, ":"),
    "false": (WRONG, "--"),
}


def detections(
    images: Pixels,
    true: Sequence[Objects],
    found: Sequence[Found],
    class_names: Sequence[str],
    titles: Sequence[str],
    threshold: float,
    path: Path,
) -> None:
    """Show images with what was found on them: right boxes, missed ones and false ones, each in a colour of its own.

    Masks are outlined where they are known. A found box is right when it overlaps a true one of its class by half.

    Args:
        images: uint8 (N, H, W, 1 or 3), N >= 1.
        true: the objects of each image.
        found: what a model finds on each image; those from ``threshold`` on are drawn.
        class_names: by label.
        titles: one an image.
        threshold: the confidence.
        path: the file, which is replaced.
    """
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    height = 2.9 * images.shape[1] / images.shape[2] + 0.35
    with drawing(path, max(2.9 * columns, 4.5), height * rows + 0.6) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(images) :]:
            axes.set_visible(False)
        told = dict.fromkeys(_KINDS, 0)
        for axes, image, truth, everything, title in zip(grid.flat, images, true, found, titles, strict=False):
            _show(axes, image)
            counts = _mark(axes, truth, everything.sure(threshold), class_names)
            told = {kind: told[kind] + counts[kind] for kind in told}
            text = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing there or found"
            axes.set_title(text, fontsize=8.5, fontweight="normal", loc="center", pad=4)
            axes.set_xlabel(short(title, 34, keep_end=True), fontsize=6.5, color=MUTED, labelpad=3)
        figure.suptitle(f"Objects found with a confidence from {threshold:g} on", fontsize=11, fontweight="bold")
        handles = [
            Line2D([], [], color=colour, linestyle=line, linewidth=1.8, label=f"{kind} ({told[kind]})")
            for kind, (colour, line) in _KINDS.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    # photographs make large files, which a page of Prefect does not take; rare colours, the lines, are kept
    with Image.open(path) as drawn:
        small = drawn.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(path, "PNG", optimize=True)


def _show(axes: Axes, image: Pixels) -> None:
    axes.imshow(image[..., 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def _mark(axes: Axes, true: Objects, found: Found, class_names: Sequence[str]) -> dict[str, int]:
    """Draw each object as its kind asks; how many there are of each kind."""
    taken = matched(true, found)
    missed = np.setdiff1d(np.arange(len(true)), taken)
    counts = {"right": int((taken >= 0).sum()), "missed": len(missed), "false": int((taken < 0).sum())}
    named = len(class_names) > 1
    for index in missed:
        mask = None if true.masks is None else true.masks[index]
        _outline(axes, true.boxes[index], mask, "missed", class_names[true.labels[index]] if named else "")
    for index in range(len(found)):
        mask = None if found.masks is None else found.masks[index]
        kind = "right" if taken[index] >= 0 else "false"
        confidence = f"{found.confidences[index]:.2f}" if kind == "false" else ""
        name = class_names[found.labels[index]] if named else ""
        _outline(axes, found.boxes[index], mask, kind, f"{name} {confidence}".strip())
    return counts


def _outline(axes: Axes, box: NDArray[np.float32], mask: NDArray[np.uint8] | None, kind: str, text: str) -> None:
    colour, line = _KINDS[kind]
    left, top, right, bottom = (float(value) - 0.5 for value in box)  # a pixel's middle is its whole number here
    if mask is None or not 0 < mask.mean() < 1:
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, color=colour, linestyle=line, linewidth=1.2)
        )
    else:
        axes.contour(mask, levels=[0.5], colors=[colour], linestyles=[line], linewidths=1.0)
    if text:
        axes.text(left, top, short(text, 16), color=colour, fontsize=5.5, va="bottom", clip_on=True)


def answered(content: bytes, objects: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw a detector's answer on its image: each object's box, label and confidence, and its mask if it has one.

    Args:
        content: the image's file.
        objects: each with ``label``, ``confidence``, ``box`` and perhaps ``mask``, as ``Detector.answers`` gives them.

    Returns:
        A PNG of the image's size.
    """
    from recognition import pixels

    decoded = pixels.decode(content, "image")
    picture = Image.fromarray(np.broadcast_to(decoded, (*decoded.shape[:2], 3)).copy())
    colours = {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(sorted({o["label"] for o in objects}))}
    width = max(1, round(min(picture.size) / 250))
    size = max(9.0, min(picture.size) / 40)
    font = ImageFont.load_default(size)
    for one in objects:
        if "mask" in one:
            half = Image.open(io.BytesIO(base64.b64decode(one["mask"]))).convert("L").point(lambda value: value // 2)
            picture.paste(Image.new("RGB", picture.size, colours[one["label"]]), mask=half)
    pen = ImageDraw.Draw(picture)
    for one in objects:
        colour = colours[one["label"]]
        left, top, right, bottom = one["box"]
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)
        text = f"{one['label']} {one['confidence']:.2f}"
        place = (left, max(0, top - size - 2))
        pen.rectangle(pen.textbbox(place, text, font=font), fill=colour)
        pen.text(place, text, fill="white", font=font)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
