"""What a source says of an image, checked against the image: what is left can be trained with, the rest is told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recognition import pixels
from recognition.objects import IGNORED, FlawKind
from recognition.pixels import NotAnImageError, Pixels
from recognition.sources.annotations import Annotation, Annotations, MaskFile

ROUNDED = 0.5
"""So far out of its image a box may reach by rounding, in pixels."""

_TURNED = range(5, 9)
"""EXIF orientations that swap height and width."""


@dataclass(frozen=True)
class Checked:
    """The usable objects of an image, in pixels of the upright original."""

    boxes: NDArray[np.float64]
    """Shape (n, 4), within the image, with area."""
    labels: NDArray[np.int64]
    masks: tuple[Pixels, ...] = ()
    """Of kind instances for each object 0 and 1 within its box."""
    class_map: Pixels | None = None
    """Of kind masks, of the image's size."""
    flaws: list[tuple[FlawKind, str]] = field(default_factory=list)


def check(annotations: Annotations, index: int, shape: tuple[int, int], content: bytes) -> Checked:
    """Keep what can be used of what is said of an image.

    Args:
        annotations: of the source.
        index: of the image.
        shape: height and width of the image, upright.
        content: its file, for its EXIF orientation.
    """
    said = annotations.read(index)
    flaws = list(said.flaws)
    nothing = Checked(np.zeros((0, 4)), np.zeros(0, np.int64), flaws=flaws)
    if any(kind == "missing_annotations" for kind, _ in flaws):
        return nothing if annotations.kind != "masks" else _without_map(shape, flaws)
    turn = _Turn(shape, content)
    if annotations.kind == "boxes":
        if said.size and not turn.fits(said.size):
            told = f"has boxes for an image of {_told(said.size)}, but is of {_told(shape)}"
            flaws.append(("missing_annotations", told))
            return nothing
        turned = turn.boxes(said.boxes, said.size)
        return _checked_boxes(turned, said.labels, annotations.class_names, shape, flaws)
    if annotations.kind == "instances":
        return _checked_masks(said, turn, flaws)
    class_map = _checked_mask(said.masks[0], turn, flaws)
    if class_map is None:
        return _without_map(shape, flaws, IGNORED)
    highest = int(class_map[class_map != IGNORED].max(initial=0))
    if highest > len(annotations.class_names):
        told = f"has a mask with class {highest}, but there are {len(annotations.class_names)} classes"
        flaws.append(("invalid_masks", told))
        return _without_map(shape, flaws, IGNORED)
    return _with_map(class_map, flaws)


def digest_of_objects(checked: Checked, class_names: Sequence[str]) -> bytes:
    """SHA-256 of the usable objects and the names of their classes, whatever the order of objects and classes."""
    parts = sorted(hashlib.sha256(part).digest() for part in _parts(checked, class_names))
    return hashlib.sha256(b"".join(parts)).digest()


def _parts(checked: Checked, class_names: Sequence[str]) -> Iterator[bytes]:
    if checked.class_map is not None:
        for value in np.unique(checked.class_map).tolist():
            if value:
                name = "" if value == IGNORED else class_names[value - 1]
                yield _named(name) + np.packbits(checked.class_map == value).tobytes()
        return
    masks = checked.masks or (None,) * len(checked.labels)
    for box, label, mask in zip(checked.boxes, checked.labels.tolist(), masks, strict=True):
        bits = b"" if mask is None else np.packbits(mask).tobytes()
        # a sum of left and width is not always the number that another format gives for the right side
        yield _named(class_names[label]) + np.round(box, 6).astype("<f8").tobytes() + bits


def _named(name: str) -> bytes:
    encoded = name.encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(8, "little") + encoded


def _checked_boxes(
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    shape: tuple[int, int],
    flaws: list[tuple[FlawKind, str]],
) -> Checked:
    height, width = shape
    keep = np.zeros(len(boxes), bool)
    clipped = np.clip(np.nan_to_num(boxes), 0, np.array([width, height] * 2))
    for number, (box, inner, label) in enumerate(zip(boxes.tolist(), clipped.tolist(), labels.tolist(), strict=True)):
        sides = ", ".join(f"{side:g}" for side in box)
        named = f"box {number + 1} ({class_names[label]}, {sides})"
        left, top, right, bottom = box
        if not np.isfinite(box).all():
            flaws.append(("invalid_boxes", f"{named} has a side that is no number"))
        elif left >= right or top >= bottom:
            flaws.append(("invalid_boxes", f"{named} has no area"))
        elif inner[0] >= inner[2] or inner[1] >= inner[3]:
            flaws.append(("invalid_boxes", f"{named} is outside of the image of {_told(shape)}"))
        else:
            keep[number] = True
            if np.abs(np.subtract(inner, box)).max() > ROUNDED:
                flaws.append(("clipped_boxes", f"{named} reaches out of the image of {_told(shape)}"))
    return Checked(clipped[keep], labels[keep], flaws=flaws)


def _checked_mask(mask: MaskFile, turn: _Turn, flaws: list[tuple[FlawKind, str]]) -> Pixels | None:
    try:
        values = mask.read()
    except NotAnImageError as error:
        flaws.append(("invalid_masks", f"has the mask {mask.name}, which {error.reason}"))
        return None
    size = (values.shape[0], values.shape[1])
    if not turn.fits(size):
        told = f"has the mask {mask.name} of {_told(size)}, but is of {_told(turn.shape)}"
        flaws.append(("invalid_masks", told))
        return None
    return turn.mask(values)


def _checked_masks(said: Annotation, turn: _Turn, flaws: list[tuple[FlawKind, str]]) -> Checked:
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    inner: list[Pixels] = []
    for file, label in zip(said.masks, said.labels.tolist(), strict=True):
        # of large images with many objects only what is within the boxes fits into memory
        mask = _checked_mask(file, turn, flaws)
        if mask is None:
            continue
        box = box_of(mask)
        if box is None:
            flaws.append(("invalid_masks", f"has the mask {file.name}, which is empty"))
            continue
        left, top, right, bottom = box
        boxes.append(box)
        labels.append(label)
        inner.append(mask[top:bottom, left:right].copy())
    return Checked(
        np.array(boxes, np.float64).reshape(-1, 4), np.array(labels, np.int64), masks=tuple(inner), flaws=flaws
    )


def box_of(mask: Pixels) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of what is not 0, or nothing."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _with_map(class_map: Pixels, flaws: list[tuple[FlawKind, str]]) -> Checked:
    return Checked(np.zeros((0, 4)), np.zeros(0, np.int64), class_map=class_map, flaws=flaws)


def _without_map(shape: tuple[int, int], flaws: list[tuple[FlawKind, str]], value: int = 0) -> Checked:
    return _with_map(np.full(shape, value, np.uint8), flaws)


class _Turn:
    """Brings what was drawn on the stored pixels of an image upright, as its EXIF orientation turns the image.

    The size for which it was drawn tells: that of the stored pixels, and not that of the image upright. Where both are
    one size, it is taken to be drawn on the image as people see it.
    """

    def __init__(self, shape: tuple[int, int], content: bytes) -> None:
        self.shape = shape
        self._content = content
        self._orientation = 0

    def fits(self, size: tuple[int, int]) -> bool:
        """Whether something of a height and width was drawn on this image."""
        return size == self.shape or (size == self.shape[::-1] and self._turned() in _TURNED)

    def boxes(self, boxes: NDArray[np.float64], size: tuple[int, int] | None) -> NDArray[np.float64]:
        if size is None or size == self.shape:
            return boxes
        height, width = size
        left, top, right, bottom = boxes.T
        # as Pillow's transpose, rotate by 270, transverse and rotate by 90 move pixels
        turned = {
            5: (top, left, bottom, right),
            6: (height - bottom, left, height - top, right),
            7: (height - bottom, width - right, height - top, width - left),
            8: (top, width - right, bottom, width - left),
        }
        return np.stack(turned[self._turned()], axis=1)

    def mask(self, mask: Pixels) -> Pixels:
        if mask.shape == self.shape:
            return mask
        turn = {5: mask.T, 6: np.rot90(mask, -1), 7: mask[::-1, ::-1].T, 8: np.rot90(mask)}
        return np.ascontiguousarray(turn[self._turned()])

    def _turned(self) -> int:
        if not self._orientation:
            self._orientation = pixels.orientation(pixels.open_image(self._content, "image"))
        return self._orientation


def _told(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} pixels"
