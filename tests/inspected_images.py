"""Images made for tests of the audit, as they are after decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from recognition.audit.inspected import Inspected
from recognition.audit.measures import MEASURES, measure
from recognition.pixels import Pixels, prepare_array
from recognition.records import Finding


def photo(seed: int, height: int = 64, width: int = 64, channels: int = 3) -> Pixels:
    """Something like a photograph: large shapes of many brightnesses, edges, and fine grain; another for each seed."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64)
    for _ in range(12):
        top, left = random.integers(0, height), random.integers(0, width)
        box = picture[top : top + height // 4, left : left + width // 4]
        box[:] = 0.4 * box + 0.6 * random.integers(0, 256, 3)
    picture += random.normal(0, 4, picture.shape)
    pixels = np.clip(picture, 0, 255).astype(np.uint8)
    return pixels if channels == 3 else pixels[:, :, :1]


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def mirrored(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[:, ::-1])


def blurred(pixels: Pixels, radius: float = 8) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def inspected(
    images: Sequence[Pixels | None],
    labels: Sequence[int] | None = None,
    *,
    names: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    class_names: Sequence[str] = ("cat", "dog"),
    remarks: Mapping[str, Sequence[int]] | None = None,
    findings: tuple[Finding, ...] = (),
    published: bool = False,
    side: int = 48,
) -> Inspected:
    """Images of a source (None for a file that is no image), labelled in turn unless ``labels`` says otherwise."""
    count = len(images)
    given = list(labels) if labels is not None else [index % len(class_names) for index in range(count)]
    rows: np.ndarray[Any, Any] = np.zeros(count, MEASURES)
    channels = next(image.shape[2] for image in images if image is not None)
    stored = np.zeros((count, side, side, channels), np.uint8)
    for index, image in enumerate(images):
        if image is not None:
            rows[index] = measure(image)
            stored[index] = prepare_array(image, side, side, channels, "stretch")
    return Inspected(
        class_names=tuple(class_names),
        sample_ids=names or [f"{class_names[label]}/{index:05}.png" for index, label in enumerate(given)],
        labels=np.array(given, np.int64),
        splits=splits or [""] * count,
        groups=groups or [""] * count,
        measures=rows,
        images=stored,
        unreadable={index: "is cut off: its end is missing" for index, image in enumerate(images) if image is None},
        remarks=remarks or {},
        findings=findings,
        published_splits=published,
    )
