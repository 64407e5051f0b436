"""A policy tried on real images, with what belongs to them, before it is used; and the preview of what it does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recognition import datasets, galleries, overlays, policies
from recognition.augmenter import Augmenter
from recognition.errors import ConfigurationError
from recognition.experiment import Experiment
from recognition.objects import Objects
from recognition.records import Expected, PreparedData

TRIED_EPOCHS = 3
NOISES, UNTIMED = 24, 4
"""Draws of the augmentation policy on images of noise, and how many of them, the first, are not timed."""
Pixels = NDArray[np.uint8]
Belonging = Objects | Pixels | None
"""What belongs to an image: its objects, its class map, or nothing that moves."""


@dataclass(frozen=True)
class Preview:
    """Some images as they are stored and as they are drawn first, with what belongs to them."""

    originals: list[tuple[Pixels, Belonging]]
    augmented: list[tuple[Pixels, Belonging]]
    titles: list[str]

    def draw(self, path: Path) -> None:
        """Write the originals and below each its augmented form, with objects and classes drawn over them."""
        above, below = (
            np.stack([_drawn_over(image, belonging) for image, belonging in row])
            for row in (self.originals, self.augmented)
        )
        galleries.preview_grid(above, below, path, self.titles)


def tried(data: PreparedData, augmenter: Augmenter, name: str, count: int) -> Preview:
    """Draw a policy for ``count`` training images over a few epochs.

    Raises:
        ConfigurationError: it fails, changes shape or type, or leaves no object in sight.
    """
    train = datasets.open_arrays(data.path).split("train")
    # evenly spread, so that a source sorted by class shows several classes
    chosen = np.unique(np.linspace(0, len(train) - 1, count).astype(np.int64))
    originals = list(zip(train.batch(chosen), _belongings(train, data, chosen), strict=True))
    augmented: list[tuple[Pixels, Belonging]] = []
    for epoch in range(TRIED_EPOCHS):
        for (image, belonging), index in zip(originals, chosen, strict=True):
            try:
                drawn = _draw(augmenter, image, belonging, epoch, int(index))
            except Exception as error:
                raise ConfigurationError(
                    f"augmentation: the policy {name} fails on images of {data.height}x{data.width}x{data.channels}: "
                    f"{error}"
                ) from error
            _check_shape(name, image, drawn[0])
            augmented.append(drawn)
    before, after = (sum(_marked(belonging) for _, belonging in some) for some in (originals, augmented))
    if before and not after:
        raise ConfigurationError(
            f"augmentation: of the objects on {len(originals)} images the policy {name} leaves none in sight in "
            f"{TRIED_EPOCHS} draws: take smaller shifts and larger crops."
        )
    labels = train.labels[chosen]
    titles = [_title(data, belonging, int(label)) for (_, belonging), label in zip(originals, labels, strict=True)]
    return Preview(originals, augmented[: len(originals)], titles)


def _belongings(train: datasets.Split, data: PreparedData, chosen: NDArray[np.int64]) -> list[Belonging]:
    if data.kind == "classes":
        return [None] * len(chosen)
    return [*(train.class_maps(chosen) if data.kind == "masks" else train.objects(chosen))]


def _draw(
    augmenter: Augmenter, image: Pixels, belonging: Belonging, epoch: int, index: int
) -> tuple[Pixels, Belonging]:
    if belonging is None:
        return augmenter(image, epoch, index), None
    if isinstance(belonging, Objects):
        return augmenter.with_objects(image, belonging, epoch, index)
    return augmenter.with_map(image, belonging, epoch, index)


def _check_shape(name: str, original: Pixels, result: Pixels) -> None:
    if result.shape != original.shape or result.dtype != np.uint8:
        raise ConfigurationError(
            f"augmentation: the policy {name} turns uint8 images of shape {original.shape} into "
            f"{result.dtype} of shape {result.shape}: end it with a crop or resize to @height x @width, "
            "and leave normalisation to augmentation.normalization."
        )


def _marked(belonging: Belonging) -> int:
    """How many objects, or pixels of a class, there are."""
    if belonging is None or isinstance(belonging, Objects):
        return len(belonging or ())
    return int(np.count_nonzero(overlays.classified(belonging)))


def _drawn_over(image: Pixels, belonging: Belonging) -> Pixels:
    if belonging is None:
        return image
    if isinstance(belonging, Objects):
        return overlays.with_objects(image, belonging)
    return overlays.with_map(image, belonging)


def _title(data: PreparedData, belonging: Belonging, label: int) -> str:
    if belonging is None:
        return data.class_names[label]
    if isinstance(belonging, Objects):
        found = np.unique(belonging.labels)
    else:
        found = np.unique(belonging[overlays.classified(belonging)]).astype(np.int64) - 1
    return ", ".join(data.class_names[index] for index in found)


def on_noise(experiment: Experiment, expected: Expected) -> tuple[str, float]:
    """Draw the augmentation policy on images of noise: its name, and seconds an image.

    Raises:
        ConfigurationError: it cannot be built, fails on images of this size, or changes their shape.
    """
    height, width, channels = expected.height, expected.width, expected.channels
    kind = expected.kind
    name, transforms = policies.choose(experiment.augmentation, height, width, channels, kind)
    augmenter = Augmenter(policies.build(transforms, height, width, kind), experiment.seed)
    if not transforms:
        return name, 0.0
    image = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    began = time.thread_time()
    for draw in range(NOISES):
        if draw == UNTIMED:
            began = time.thread_time()
        try:
            drawn = augmenter(image, 0, draw)
        except Exception as error:  # each transform has its own
            raise ConfigurationError(
                f"augmentation.transforms: the policy {name} fails on images of {height}x{width}x{channels}: {error}"
            ) from error
        if drawn.shape != image.shape:
            after = "x".join(map(str, drawn.shape))
            raise ConfigurationError(
                f"augmentation.transforms: the policy {name} makes {after} of images of {height}x{width}x{channels}: "
                "let it end in the prepared size, @height and @width."
            )
    return name, (time.thread_time() - began) / (NOISES - UNTIMED)
