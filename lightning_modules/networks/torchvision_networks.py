"""Any classifier, detector or segmenter of torchvision by name, with its head sized for our classes."""

from __future__ import annotations

import difflib

from torch import nn

from . import torchvision_detectors, torchvision_segmenters
from .architecture import Architecture

_WITH_SIDE_OUTPUTS = ("googlenet", "inception_v3")


def build(architecture: Architecture) -> nn.Module:
    """Build ``torchvision/<name>``; a first convolution is put in for other than 3 channels.

    A dropout of 0 leaves that of the published network as it is.

    Raises:
        ValueError: torchvision has no such network.
    """
    from torchvision import models

    name = architecture.network.removeprefix("torchvision/")
    if name.startswith(torchvision_detectors.STARTS):
        return torchvision_detectors.build(architecture, name)
    if name.startswith(torchvision_segmenters.STARTS):
        network = torchvision_segmenters.build(architecture, name)
    elif name in models.list_models(module=models):
        more = {"aux_logits": False, "init_weights": True} if name in _WITH_SIDE_OUTPUTS else {}
        network = models.get_model(name, weights=None, num_classes=architecture.outputs, **more)
    else:
        raise ValueError(_unknown(name, models.list_models(module=models)))
    if architecture.dropout:
        _set_dropout(network, architecture.dropout)
    if architecture.image_channels != 3:
        _replace_first_convolution(network, architecture.image_channels)
    return network


def _set_dropout(network: nn.Module, share: float) -> None:
    """Set the network's own dropouts before the output, or put one before the last linear layer."""
    own = [module for module in network.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    if own:
        for module in own:
            module.p = share
        return
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if linear:
        parent = network.get_submodule(linear[-1].rpartition(".")[0])
        own_name = linear[-1].rpartition(".")[2]
        setattr(parent, own_name, nn.Sequential(nn.Dropout(share), getattr(parent, own_name)))


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            parent = network.get_submodule(name.rpartition(".")[0])
            replacement = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]  # torch types a pair as any tuple
                module.stride,  # type: ignore[arg-type]  # as above
                module.padding,  # type: ignore[arg-type]  # as above
                bias=module.bias is not None,
            )
            setattr(parent, name.rpartition(".")[2], replacement)
            return
    raise ValueError(
        f"{type(network).__name__} has no convolution to adapt to {channels} channels: use data.channels=rgb"
    )


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean torchvision/{close[0]}?" if close else ""
    return f"torchvision has no model {name!r}{hint}"
