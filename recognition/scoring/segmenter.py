"""A segmenter: image in, a class for each pixel out."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .scorer import Pixels, Scorer

NOT_SEEN = 255
"""In an answer's mask: a pixel that was cut off before the network looked."""
BACKGROUND = "background"


class Segmenter(Scorer):
    """A network that gives each pixel a class: 0 is the background, k the class ``class_names[k - 1]``."""

    @torch.inference_mode()
    def probabilities(self, images: Pixels) -> NDArray[np.float32]:
        """Class probabilities (N, 1 + K, H, W) of prepared images, uint8 (N, H, W, C); the background's first."""
        logits = self.network(self.normalised(images)).float()
        array: NDArray[np.float32] = torch.softmax(logits, dim=1).cpu().numpy()
        return array

    def class_maps(self, images: Pixels) -> NDArray[np.uint8]:
        """Class maps (N, H, W) of prepared images, uint8 (N, H, W, C), at their size."""
        return likeliest(self.probabilities(images), 1)

    def answer(self, probabilities: NDArray[np.float32], height: int, width: int) -> dict[str, Any]:
        """One image's mask, at the size that the image came with, and the share of each class.

        Args:
            probabilities: (1 + K, H, W) at the prepared size.
            height: of the image as it came, upright, in pixels.
            width: likewise.

        Returns:
            ``mask``: a PNG in base64 with a palette, whose pixel values are class numbers; 255 where the middle was
            cropped and the network did not look. ``shares``: the part of the other pixels that each class has,
            ``background`` among them; together 1.
        """
        mask = self._mask(probabilities, height, width)
        picture = Image.fromarray(mask)
        picture.putpalette(_palette())
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        counts = np.bincount(mask[mask != NOT_SEEN], minlength=1 + len(self.class_names))
        names = [BACKGROUND, *self.class_names]
        return {
            "mask": base64.b64encode(buffer.getvalue()).decode(),
            "shares": {name: float(count / counts.sum()) for name, count in zip(names, counts, strict=True)},
        }

    def answers(
        self, images: Sequence[bytes | Pixels], names: Sequence[str], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Mask and shares of each image."""
        answers = []
        for image, name in zip(images, names, strict=True):
            pixels = self.pixels.decode(image, name) if isinstance(image, bytes) else image
            prepared = self.prepare(pixels, name)
            # one image at a time: the same bits whatever the company
            answers.append(self.answer(self.probabilities(prepared[np.newaxis])[0], *pixels.shape[:2]))
        return answers

    def _mask(self, probabilities: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
        """The likeliest class of each pixel, uint8 (height, width): back from how the image was brought to size.

        Probabilities are enlarged, not classes, so that borders stay smooth.
        """
        rows, columns = probabilities.shape[1:]
        top, left, bottom, right = 0, 0, height, width
        if self.preprocessing["resize"] == "pad":
            scale = min(rows / height, columns / width)
            inner = max(1, round(height * scale)), max(1, round(width * scale))
            above, before = (rows - inner[0]) // 2, (columns - inner[1]) // 2
            probabilities = probabilities[:, above : above + inner[0], before : before + inner[1]]
        elif self.preprocessing["resize"] == "crop":
            scale = max(rows / height, columns / width)
            top, left = round((height - rows / scale) / 2), round((width - columns / scale) / 2)
            bottom, right = height - top, width - left
        mask = np.full((height, width), NOT_SEEN, np.uint8)
        mask[top:bottom, left:right] = _enlarged(probabilities, bottom - top, right - left)
        return mask


def likeliest(probabilities: NDArray[np.float32], axis: int) -> NDArray[np.uint8]:
    """The number of the likeliest class along an axis; of equal ones the first."""
    classes: NDArray[np.uint8] = probabilities.argmax(axis=axis).astype(np.uint8)
    return classes


def _enlarged(probabilities: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """The likeliest class of each pixel at another size, one class after the other to spare memory."""
    if probabilities.shape[1:] == (height, width):
        return likeliest(probabilities, 0)
    best = np.full((height, width), -1, np.float32)
    chosen = np.zeros((height, width), np.uint8)
    for number, plane in enumerate(probabilities):
        resized = np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
        better = resized > best
        chosen[better] = number
        best[better] = resized[better]
    return chosen


def _palette() -> list[int]:
    """The colours of Pascal VOC's masks, (R, G, B) by class number: black, dark red, dark green and so on."""
    colours = []
    for number in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
        colours.extend(channels)
    return colours
