"""What is known of each task and each network before anything is loaded: names, fitting data, main scores.

A network of ours is one file in ``lightning_modules/networks`` and one entry in `NETWORKS`, both of one name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

Task = Literal["classification", "autoencoding", "generation", "detection", "segmentation", "instance_segmentation"]
TASKS: tuple[Task, ...] = get_args(Task)
Kind = Literal["classes", "boxes", "masks", "instances"]
"""What a source says of its images: a class each, boxes around objects, a mask of classes, or a mask an object."""

KINDS: dict[Kind, str] = {
    "classes": "a class for each image",
    "boxes": "boxes around objects",
    "masks": "masks of classes",
    "instances": "a mask for each object",
}


@dataclass(frozen=True)
class Family:
    """What all networks of one task share."""

    network: str
    """The network that is taken when none is named."""
    fits: tuple[Kind, ...]
    """What a source must say of its images."""
    monitor: str
    """The validation score whose best epoch is kept."""
    metric: str
    """The test score that decides about champion."""
    headline: tuple[str, ...]
    """Test scores shown first."""
    metrics: tuple[str, ...]
    """All test scores that may decide about champion."""
    monitors: tuple[str, ...]
    """All validation scores that may be monitored."""
    picture: str
    """The figure shown on the run's page in Prefect."""
    suffix: str = ""
    """Behind the data's name in the name of the registered model."""


_CLASS_SCORES = ("accuracy", "f1_macro", "f1_weighted", "recall_macro", "precision_macro", "roc_auc_macro")
_BOX_SCORES = ("map", "map_50", "map_75", "mar_100")
_MASK_SCORES = ("mask_map", "mask_map_50", "mask_map_75", "dice_macro", "iou_macro")

FAMILIES: dict[Task, Family] = {
    "classification": Family(
        network="cnn",
        fits=("classes",),
        monitor="val/loss",
        metric="f1_macro",
        headline=(
            "accuracy",
            "precision_macro",
            "recall_macro",
            "f1_macro",
            "roc_auc_macro",
            "average_precision_macro",
            "probe_accuracy",
            "prototype_accuracy",
        ),
        metrics=_CLASS_SCORES,
        monitors=("val/loss", "val/accuracy", "val/f1_macro"),
        picture="confusion_matrix.png",
    ),
    "autoencoding": Family(
        network="conv_autoencoder",
        fits=("classes", "boxes", "masks", "instances"),
        monitor="val/loss",
        metric="psnr",
        headline=("psnr", "ssim", "mse", "pca_psnr", "noisy_psnr", "probe_accuracy"),
        metrics=("psnr", "ssim", "mse", "probe_accuracy"),
        monitors=("val/loss", "val/psnr"),
        picture="reconstructions.png",
        suffix="-autoencoder",
    ),
    "generation": Family(
        network="dcgan",
        fits=("classes",),
        monitor="val/frechet_distance",
        metric="frechet_distance",
        headline=("frechet_distance", "precision", "recall", "recognised"),
        metrics=("frechet_distance", "precision", "recall", "recognised"),
        monitors=("val/loss", "val/frechet_distance"),
        picture="samples.png",
        suffix="-generator",
    ),
    "detection": Family(
        network="retinanet",
        fits=("boxes", "instances"),
        monitor="val/map_50",
        metric="map",
        headline=("map", "map_50", "map_75", "mar_100"),
        metrics=_BOX_SCORES,
        monitors=("val/loss", "val/map", "val/map_50"),
        picture="detections.png",
        suffix="-detector",
    ),
    "segmentation": Family(
        network="unet",
        fits=("masks", "instances"),
        monitor="val/dice_macro",
        metric="dice_macro",
        headline=("dice_macro", "iou_macro", "pixel_accuracy"),
        metrics=("dice_macro", "iou_macro", "pixel_accuracy"),
        monitors=("val/loss", "val/dice_macro", "val/iou_macro"),
        picture="overlays.png",
        suffix="-segmenter",
    ),
    "instance_segmentation": Family(
        network="maskrcnn",
        fits=("instances",),
        monitor="val/mask_map_50",
        metric="mask_map",
        headline=("mask_map", "mask_map_50", "map", "map_50", "dice_macro", "iou_macro"),
        metrics=_BOX_SCORES + _MASK_SCORES,
        monitors=("val/loss", "val/map", "val/map_50", "val/mask_map_50"),
        picture="detections.png",
        suffix="-instance-segmenter",
    ),
}
LOWER_IS_BETTER = frozenset({"loss", "mse", "frechet_distance"})


@dataclass(frozen=True)
class Network:
    """A network of ours."""

    task: Task
    about: str


NETWORKS: dict[str, Network] = {
    "cnn": Network("classification", "the small convolutional family, by model.channels and model.dense"),
    "rnn": Network("classification", "LSTM, GRU or simple RNN that reads an image row by row or patch by patch"),
    "cnn_rnn": Network("classification", "convolutions, then a recurrent network over the columns of their maps"),
    "vit": Network("classification", "Vision Transformer, by model.patch_size, width, depth and heads"),
    "encoder": Network("classification", "the encoder of a conv_autoencoder with a linear head; see model.weights"),
    "dense_autoencoder": Network("autoencoding", "dense layers to model.code numbers and back"),
    "conv_autoencoder": Network("autoencoding", "convolutions to model.code numbers and back"),
    "dcgan": Network("generation", "DCGAN, conditional by model.conditional"),
    "retinanet": Network("detection", "RetinaNet with a small residual backbone"),
    "fasterrcnn": Network("detection", "Faster R-CNN with a small residual backbone"),
    "unet": Network("segmentation", "U-Net, by model.width and model.depth"),
    "maskrcnn": Network("instance_segmentation", "Mask R-CNN with a small residual backbone"),
}
ENCODERS = ("conv_autoencoder", "encoder")
"""Networks whose encoder the network ``encoder`` can start with."""
LIBRARIES = ("timm", "torchvision")
_TORCHVISION_TASKS: tuple[tuple[tuple[str, ...], Task], ...] = (
    (("maskrcnn_",), "instance_segmentation"),
    (("fasterrcnn_", "retinanet_", "fcos_", "ssd"), "detection"),
    (("deeplabv3_", "lraspp_", "fcn_"), "segmentation"),
)


def task_of(network: str) -> Task:
    """The task that a network is for.

    Raises:
        ValueError: it is none of `NETWORKS` and of no library; the nearest name is given.
    """
    library, separator, name = network.partition("/")
    if separator and library in LIBRARIES and name:
        if library == "torchvision":
            for starts, task in _TORCHVISION_TASKS:
                if name.startswith(starts):
                    return task
        return "classification"
    if network not in NETWORKS:
        known = ["auto", *NETWORKS, *(f"{library}/<name>" for library in LIBRARIES)]
        close = get_close_matches(network, known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{network!r} is none of {', '.join(known)}{hint}")
    return NETWORKS[network].task


def is_better_when_lower(metric: str) -> bool:
    """Whether less is better of a score, named with or without its split."""
    return metric.rpartition("/")[2] in LOWER_IS_BETTER


def headline(metrics: Mapping[str, float], task: Task) -> list[tuple[str, str]]:
    """The main test scores as name and text, and behind them mean ± standard deviation over draws, where there are."""
    names = FAMILIES[task].headline
    shown = [(name, f"{metrics[f'test/{name}']:.4f}") for name in names if f"test/{name}" in metrics]
    spread = [
        (f"{name}, all draws", f"{metrics[f'draws/{name}_mean']:.4f} ± {metrics[f'draws/{name}_sd']:.4f}")
        for name in names
        if f"draws/{name}_mean" in metrics
    ]
    return shown + spread
