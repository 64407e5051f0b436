"""Networks in plain torch, built from a JSON-like architecture; this package travels inside every registered model.

It therefore imports nothing of this project outside itself. A network is one file with a function ``build`` from
``Architecture`` to a module, and an entry of the file's name in ``recognition/families.py``. What modules map:

- classification: float images (N, C, H, W) to logits (N, outputs);
- autoencoding: ``encode`` images in [0, 1] to codes (N, code), ``decode`` codes to images in [0, 1];
- generation: noise (N, code) and labels (N,) to images (N, C, H, W) in [-1, 1];
- detection and instance_segmentation: images, and targets while training, as torchvision's detectors;
- segmentation: images to logits (N, 1 + outputs, H, W), the first for the background.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from .architecture import Architecture

_LIBRARIES = {"timm": "timm_backbones", "torchvision": "torchvision_networks"}


def build_network(architecture: Architecture) -> nn.Module:
    """Build a network with freshly initialised weights.

    Raises:
        ValueError: the network is unknown, or too deep for the image size.
    """
    network: nn.Module = import_module(_module_of(architecture.network)).build(architecture)
    return network


def example_inputs(architecture: Architecture) -> tuple[Tensor, ...]:
    """What the network is called with for one image, as zeros; a network's file may have its own."""
    own = getattr(import_module(_module_of(architecture.network)), "example_inputs", None)
    if own is not None:
        inputs: tuple[Tensor, ...] = own(architecture)
        return inputs
    return (torch.zeros(1, architecture.image_channels, architecture.height, architecture.width),)


def _module_of(network: str) -> str:
    family = network.partition("/")[0]
    name = f"{__name__}.{_LIBRARIES.get(family, family)}"
    if not family.isidentifier() or find_spec(name) is None:
        raise ValueError(f"{network!r}: there is no file {family}.py among the networks")
    return name


__all__ = ["Architecture", "build_network", "example_inputs"]
