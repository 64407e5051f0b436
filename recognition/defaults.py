"""Choose what an experiment leaves open (``auto``, empty) from the prepared images."""

from __future__ import annotations

from recognition.experiment import Augmentation, Model
from recognition.records import PreparedData

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST_FLAT_MAP = 8


def resolve_model(model: Model, data: PreparedData) -> Model:
    """Fill in network, head, channels, pools and neck; the result holds no ``auto``."""
    network = "cnn" if model.network == "auto" else model.network
    channels = model.channels or _channels_for(min(data.height, data.width))
    pooled = len(channels) if model.pooled_blocks < 0 else model.pooled_blocks
    neck = model.neck
    if neck == "auto":
        left = min(data.height, data.width) // 2**pooled
        neck = "flatten" if left <= LARGEST_FLAT_MAP or model.dense else "average"
    head = model.head
    if head == "auto":
        head = "sigmoid" if data.num_classes == 2 else "softmax"
    return model.model_copy(
        update={"network": network, "channels": channels, "pooled_blocks": pooled, "neck": neck, "head": head}
    )


def _channels_for(side: int) -> tuple[int, ...]:
    """Blocks that leave a map of about 2 to 7 pixels; larger images start narrower, where a pixel costs most."""
    if side < 4:
        return (32,)
    if side <= 12:
        return (32, 64)
    if side <= 48:
        return (32, 64, 128)
    if side <= 80:
        return (32, 64, 128, 128)
    if side <= 160:
        return (8, 16, 32, 64, 128)
    return (8, 16, 32, 64, 128, 128)


def normalization(
    augmentation: Augmentation, model: Model, data: PreparedData
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in units of [0, 1], that pixels are normalised with."""
    choice = augmentation.normalization
    if choice == "auto":
        # weights for cnn are those of an earlier run, not ImageNet's
        choice = "imagenet" if (model.pretrained or model.weights) and model.network != "cnn" else "dataset"
    if choice == "imagenet":
        if data.channels == 3:
            return IMAGENET_MEAN, IMAGENET_STD
        return (sum(IMAGENET_MEAN) / 3,), (sum(IMAGENET_STD) / 3,)
    if choice == "half":
        return (0.5,) * data.channels, (0.5,) * data.channels
    if choice == "none":
        return (0.0,) * data.channels, (1.0,) * data.channels
    # a constant channel has no spread to divide by
    return data.mean, tuple(max(value, 1 / 255) for value in data.std)
