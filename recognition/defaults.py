"""Choose what an experiment leaves open (``auto``, empty) from the prepared images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recognition.code_defaults import fit_conv_autoencoder, fit_dense_autoencoder, fit_noise
from recognition.errors import ConfigurationError
from recognition.experiment import Augmentation, Experiment, Model
from recognition.families import FAMILIES, KINDS, Kind, Task, task_of
from recognition.records import PreparedData
from recognition.sequence_defaults import fit_cnn_rnn, fit_rnn, fit_vit

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST_FLAT_MAP = 8


def resolve_task(model: Model, kind: Kind) -> Task:
    """What is learned: what the settings say, else what fits the data.

    Raises:
        ConfigurationError: the data are not of a kind that the task needs.
    """
    if model.task == "auto" and model.network == "auto":
        return _TASK_OF_KIND[kind]
    task: Task = model.task if model.task != "auto" else task_of(model.network)
    if kind not in FAMILIES[task].fits:
        wanted = " or ".join(KINDS[fitting] for fitting in FAMILIES[task].fits)
        fix = f"leave model.task and model.network out, or set model.task={_TASK_OF_KIND[kind]}"
        said = f"model.task={model.task}" if model.task != "auto" else f"model.network={model.network}"
        raise ConfigurationError(
            f"{said}: {task} learns from {wanted}, but the data hold {KINDS[kind]}: {fix}, or give other data."
        )
    return task


def require_fit(experiment: Experiment, kind: Kind) -> None:
    """Refuse, once the kind of the data is known, what does not fit it.

    Raises:
        ConfigurationError: the task needs other data, or its models have no such scores.
    """
    task = resolve_task(experiment.model, kind)
    try:
        experiment.check_scores(task)
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from None


def resolve_model(model: Model, data: PreparedData) -> Model:
    """Fill in task, network, and what belongs to the network; the result holds no ``auto``.

    Raises:
        ConfigurationError: the data are not of a kind that the task needs.
    """
    task = resolve_task(model, data.kind)
    network = FAMILIES[task].network if model.network == "auto" else model.network
    fitted = _no_fit(model, data)
    if network in _FITTED:
        fitted |= _FITTED[network](model, data)
    head = model.head
    if head == "auto":
        head = "sigmoid" if task == "classification" and data.num_classes == 2 else "softmax"
    return model.model_copy(update={"task": task, "network": network, "head": head, **fitted})


def _no_fit(model: Model, data: PreparedData) -> dict[str, Any]:
    """Nothing to fit; but ``auto`` is no neck."""
    return {"neck": "flatten" if model.neck == "auto" else model.neck, "pooled_blocks": max(0, model.pooled_blocks)}


def _fit_cnn(model: Model, data: PreparedData) -> dict[str, Any]:
    channels = model.channels or _channels_for(min(data.height, data.width))
    pooled = len(channels) if model.pooled_blocks < 0 else model.pooled_blocks
    neck = model.neck
    if neck == "auto":
        left = min(data.height, data.width) // 2**pooled
        neck = "flatten" if left <= LARGEST_FLAT_MAP or model.dense else "average"
    return {"channels": channels, "pooled_blocks": pooled, "neck": neck}


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
    """Mean and standard deviation per channel, in units of [0, 1], that pixels are normalised with.

    Args:
        augmentation: what is asked for.
        model: a resolved one.
        data: the prepared images.
    """
    choice = augmentation.normalization
    if choice == "auto" and (model.task == "autoencoding" or model.network == "encoder"):
        # images are restored in units of [0, 1]; an encoder reads what its autoencoder has read
        choice = "none"
    if choice == "auto" and model.task == "generation":
        # the generator ends in tanh
        choice = "half"
    if choice == "auto":
        # weights for cnn are those of an earlier run, not ImageNet's
        choice = "imagenet" if (model.pretrained or model.weights) and "/" in model.network else "dataset"
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


_TASK_OF_KIND: dict[Kind, Task] = {
    "classes": "classification",
    "boxes": "detection",
    "masks": "segmentation",
    "instances": "segmentation",
}
_FITTED: dict[str, Callable[[Model, PreparedData], dict[str, Any]]] = {
    "cnn": _fit_cnn,
    "rnn": fit_rnn,
    "cnn_rnn": fit_cnn_rnn,
    "vit": fit_vit,
    "dense_autoencoder": fit_dense_autoencoder,
    "conv_autoencoder": fit_conv_autoencoder,
    "encoder": fit_conv_autoencoder,
    "dcgan": fit_noise,
}
"""For a network what it leaves open, fitted to the images; others fit themselves."""
