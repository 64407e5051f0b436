"""Choose what an experiment leaves open of networks that read an image as a sequence: rnn, cnn_rnn, vit."""

from __future__ import annotations

import math
from typing import Any

from recognition.errors import ConfigurationError
from recognition.experiment import Model
from recognition.records import PreparedData

TOKENS, FEWEST_TOKENS, MOST_TOKENS = 64, 4, 400
LARGE = 128
"""From more pixels a side on, a Vision Transformer reads more patches and is wider."""


def fit_rnn(model: Model, data: PreparedData) -> dict[str, Any]:
    """One layer of 128 units."""
    return {"width": model.width or 128, "depth": model.depth or 1}


def fit_cnn_rnn(model: Model, data: PreparedData) -> dict[str, Any]:
    """Blocks that leave 7 to 13 columns to read (fewer of small images), and the recurrent part of `fit_rnn`."""
    return {"channels": model.channels or _channels_for(min(data.height, data.width)), **fit_rnn(model, data)}


def _channels_for(side: int) -> tuple[int, ...]:
    blocks = max(1, int(math.log2(side / 7)) if side >= 7 else 1)
    last = 64 if blocks <= 2 else 128
    # small images have one block; large ones start narrow, where a pixel costs most
    return (32,) if blocks == 1 else tuple(max(8, last >> below) for below in reversed(range(blocks)))


def fit_vit(model: Model, data: PreparedData) -> dict[str, Any]:
    """About 64 patches (196 of large images), and a width with one head for each 32 numbers.

    Raises:
        ConfigurationError: no patch size gives a number of patches that can be learned from.
    """
    large = min(data.height, data.width) > LARGE
    width = model.width or (192 if large else 64)
    heads = model.heads or next(heads for heads in range(max(1, width // 32), 0, -1) if width % heads == 0)
    patch_size = model.patch_size or _patch_size(data, 196 if large else TOKENS)
    return {"width": width, "depth": model.depth or (6 if large else 4), "heads": heads, "patch_size": patch_size}


def _patch_size(data: PreparedData, tokens: int) -> int:
    """The common divisor of the sides that gives the number of patches nearest to ``tokens``, by their ratio."""
    common = math.gcd(data.height, data.width)
    counts = {side: data.height * data.width // side**2 for side in range(1, common + 1) if common % side == 0}
    fitting = [side for side, count in counts.items() if FEWEST_TOKENS <= count <= MOST_TOKENS]
    if not fitting:
        nearest = max(8, round(min(data.height, data.width) / 8) * 8)
        raise ConfigurationError(
            f"model.patch_size: no patches from {FEWEST_TOKENS} to {MOST_TOKENS} divide images of "
            f"{data.height}x{data.width} pixels: set data.image_size to {nearest}, or model.patch_size yourself."
        )
    return min(fitting, key=lambda side: abs(math.log(counts[side] / tokens)))
