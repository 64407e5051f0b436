"""A generator: noise and the name of a class in, an image out."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .scorer import Pixels, Scorer

MADE_AT_ONCE = 32


class Generator(Scorer):
    """A network that makes images."""

    parameters: ClassVar[Mapping[str, float | int | str]] = {"seed": 0}

    @property
    def conditional(self) -> bool:
        """Whether a class can be asked for."""
        return bool(self.description["architecture"]["conditional"])

    @torch.inference_mode()
    def generate(self, labels: NDArray[np.int64], seed: int) -> Pixels:
        """An image a label; image k of a seed is the same whatever is made with it.

        Args:
            labels: (N,), numbers of classes; not read by an unconditional generator.
            seed: of the noise, 0 or more.

        Returns:
            uint8 (N, height, width, channels).
        """
        code = int(self.description["architecture"]["code"])
        count = len(labels)
        # always batches of one size: the arithmetic, and so the last bit, could depend on it
        whole = MADE_AT_ONCE * math.ceil(count / MADE_AT_ONCE)
        drawn = np.zeros((whole, code), np.float32)
        drawn[:count] = noise(count, code, seed)
        asked = np.zeros(whole, np.int64)
        asked[:count] = labels
        p = self.preprocessing
        made = np.empty((whole, p["height"], p["width"], p["channels"]), np.uint8)
        for start in range(0, whole, MADE_AT_ONCE):
            part = slice(start, start + MADE_AT_ONCE)
            inputs = torch.from_numpy(drawn[part]), torch.from_numpy(asked[part])
            made[part] = as_pixels(self.network(*(value.to(self.device) for value in inputs)))
        return made[:count]

    def made(self, labels: Sequence[str | None], parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One new image a label, as a PNG in base64.

        Args:
            labels: names of classes; empty: each class in turn.
            parameters: ``seed``.

        Returns:
            For each its ``label`` (empty when unconditional) and ``image``.

        Raises:
            ValueError: there is no such class, the generator is unconditional, or the seed is below 0.
        """
        seed = int(parameters.get("seed", 0))
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, not {seed}")
        numbers = np.array([self._number(label, place) for place, label in enumerate(labels)], dtype=np.int64)
        names = [self.class_names[number] if self.conditional else "" for number in numbers]
        images = self.generate(numbers, seed)
        return [{"label": name, "image": _png(image)} for name, image in zip(names, images, strict=True)]

    def _number(self, label: str | None, place: int) -> int:
        if label is None or label == "" or label != label:  # a missing text in a table is no number
            return place % len(self.class_names)
        if not self.conditional:
            raise ValueError(f"this generator makes images of no class in particular: leave out the label {label!r}")
        if label not in self.class_names:
            raise ValueError(f"there is no class {label!r}; the generator makes: {', '.join(self.class_names)}")
        return self.class_names.index(label)

    def answers(
        self, images: Sequence[bytes | Pixels], names: Sequence[str], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        raise ValueError("a generator reads no images: ask it for labels")


def noise(count: int, code: int, seed: int, stream: int = 0) -> NDArray[np.float32]:
    """Standard normal noise, (count, code); row k depends on seed, stream and k alone."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))
    return generator.standard_normal((count, code)).astype(np.float32)


def as_pixels(images: Tensor) -> Pixels:
    """Images (N, C, H, W) in [-1, 1] as uint8 (N, H, W, C)."""
    scaled = (images.float() + 1) * 127.5
    pixels: Pixels = scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def _png(image: Pixels) -> str:
    target = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(target, "PNG")
    return base64.b64encode(target.getvalue()).decode()
