"""Any model of timm by name, with its head sized for our classes."""

from __future__ import annotations

import difflib

from torch import nn

from .architecture import Architecture


def build(architecture: Architecture) -> nn.Module:
    """Build ``timm/<name>`` for any number of image channels.

    Raises:
        ValueError: timm has no such model, or it does not take this image size.
    """
    import timm

    name = architecture.network.removeprefix("timm/")
    if not timm.is_model(name):
        raise ValueError(_unknown(name, timm.list_models()))
    if "." in name and name not in (tagged := timm.list_pretrained(f"{name.partition('.')[0]}.*")):
        raise ValueError(_unknown(name, tagged))
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


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean timm/{close[0]}?" if close else ""
    return f"timm has no model {name!r}{hint}"
