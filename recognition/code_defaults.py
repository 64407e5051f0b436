"""Choose what an experiment leaves open of networks with codes: autoencoders, encoder, dcgan."""

from __future__ import annotations

import math
from typing import Any

from recognition.experiment import Model
from recognition.records import PreparedData

CODE = 64
LAYERS = (512, 256)


def fit_noise(model: Model, data: PreparedData) -> dict[str, Any]:
    """A code of 64 numbers."""
    return {"code": model.code or CODE}


def fit_dense_autoencoder(model: Model, data: PreparedData) -> dict[str, Any]:
    """Two layers before a code of 64 numbers."""
    return {"dense": model.dense or LAYERS, "code": model.code or CODE}


def fit_conv_autoencoder(model: Model, data: PreparedData) -> dict[str, Any]:
    """Blocks that leave a map of 7 to 13 pixels (less of small images) before a code of 64 numbers."""
    return {"channels": model.channels or _channels_for(min(data.height, data.width)), "code": model.code or CODE}


def _channels_for(side: int) -> tuple[int, ...]:
    blocks = max(1, int(math.log2(side / 7)) if side >= 7 else 1)
    last = 64 if blocks <= 2 else 128
    # large images start narrow, where a pixel costs most
    return tuple(max(8, last >> below) for below in reversed(range(blocks)))
