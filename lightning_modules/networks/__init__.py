"""Networks in plain torch, built from a JSON-like architecture; this package travels inside every registered model.

It therefore imports nothing of this project outside itself. A network is one entry in ``NETWORKS``: a function from
``Architecture`` to a module that maps float images (N, C, H, W) to logits (N, outputs).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from .architecture import Architecture
from .backbones import timm_backbone, torchvision_backbone
from .cnn import cnn

NETWORKS: dict[str, Callable[[Architecture], nn.Module]] = {
    "cnn": cnn,
    "timm": timm_backbone,
    "torchvision": torchvision_backbone,
}


def build_network(architecture: Architecture) -> nn.Module:
    """Build a network with freshly initialised weights.

    Raises:
        ValueError: the network is unknown, or too deep for the image size.
    """
    family = architecture.network.partition("/")[0]
    if family not in NETWORKS:
        raise ValueError(f"{architecture.network!r} is none of {', '.join(NETWORKS)}")
    return NETWORKS[family](architecture)


__all__ = ["NETWORKS", "Architecture", "build_network"]
