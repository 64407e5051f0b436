"""Any backbone of timm and torchvision by name, with its head sized for our classes."""

from __future__ import annotations

import difflib

from torch import nn

from .architecture import Architecture

_WITH_SIDE_OUTPUTS = ("googlenet", "inception_v3")


def timm_backbone(architecture: Architecture) -> nn.Module:
    """Build ``timm/<name>`` for any number of image channels.

    Raises:
        ValueError: timm has no such model, or it does not take this image size.
    """
    import timm

    name = architecture.network.removeprefix("timm/")
    if not timm.is_model(name):
        raise ValueError(_unknown("timm", name, timm.list_models()))
    if "." in name and name not in (tagged := timm.list_pretrained(f"{name.partition('.')[0]}.*")):
        raise ValueError(_unknown("timm", name, tagged))
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
    except (AssertionError, ZeroDivisionError) as error:
        size = f"{architecture.height}x{architecture.width}"
        raise ValueError(f"timm/{name} does not take images of {size} pixels: set data.image_size to 224") from error
    return network


def torchvision_backbone(architecture: Architecture) -> nn.Module:
    """Build ``torchvision/<name>``; a first convolution is put in for other than 3 channels.

    A dropout of 0 leaves that of the published network as it is.

    Raises:
        ValueError: torchvision has no such classifier.
    """
    from torchvision import models

    name = architecture.network.removeprefix("torchvision/")
    if name not in models.list_models(module=models):
        raise ValueError(_unknown("torchvision", name, models.list_models(module=models)))
    more = {"aux_logits": False, "init_weights": True} if name in _WITH_SIDE_OUTPUTS else {}
    network: nn.Module = models.get_model(name, weights=None, num_classes=architecture.outputs, **more)
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


def _unknown(library: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {library}/{close[0]}?" if close else ""
    return f"{library} has no model {name!r}{hint}"
