"""Any backbone of timm and torchvision by name, with its head sized for our classes."""

from __future__ import annotations

import difflib

from torch import nn

from .architecture import Architecture


def timm_backbone(architecture: Architecture) -> nn.Module:
    """Build ``timm/<name>`` for any number of image channels.

    Raises:
        ValueError: timm has no such model, or it does not take this image size.
    """
    import timm

    name = architecture.network.removeprefix("timm/")
    if not timm.is_model(name):
        raise ValueError(_unknown("timm", name, timm.list_models()))
    settings = {
        "num_classes": architecture.outputs,
        "in_chans": architecture.image_channels,
        "drop_rate": architecture.dropout,
    }
    network: nn.Module
    try:
        # models with position embeddings are built for one size, the others do not take this argument
        network = timm.create_model(name, img_size=(architecture.height, architecture.width), **settings)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        network = timm.create_model(name, **settings)
    return network


def torchvision_backbone(architecture: Architecture) -> nn.Module:
    """Build ``torchvision/<name>``; a first convolution is put in for other than 3 channels.

    Raises:
        ValueError: torchvision has no such classifier.
    """
    from torchvision import models

    name = architecture.network.removeprefix("torchvision/")
    if name not in models.list_models(module=models):
        raise ValueError(_unknown("torchvision", name, models.list_models(module=models)))
    network: nn.Module = models.get_model(name, weights=None, num_classes=architecture.outputs)
    if architecture.image_channels != 3:
        _replace_first_convolution(network, architecture.image_channels)
    return network


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


def _unknown(library: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {library}/{close[0]}?" if close else ""
    return f"{library} has no model {name!r}{hint}"
