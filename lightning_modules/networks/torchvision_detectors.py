"""torchvision's own detectors by name: SSD, SSDlite, RetinaNet, FCOS, Faster R-CNN and Mask R-CNN."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from .architecture import Architecture
from .pyramid import adapted

STARTS = ("ssd", "retinanet_", "fcos_", "fasterrcnn_", "maskrcnn_")
_WITHOUT_BACKGROUND = ("retinanet_", "fcos_")
"""What counts its classes from 0; for the others 0 is the background."""


def build(architecture: Architecture, name: str) -> nn.Module:
    """Build a detector of torchvision with fresh weights, for images that are already normalised and sized.

    Args:
        architecture: with the number of classes, without background.
        name: torchvision's, beginning with one of `STARTS`.

    Raises:
        ValueError: torchvision has no such detector, or it reads colour images only.
    """
    from torchvision import models

    known = [known for known in models.list_models(module=models.detection) if known.startswith(STARTS)]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean torchvision/{close[0]}?" if close else ""
        raise ValueError(f"torchvision has no detector {name!r}{hint}")
    if architecture.image_channels != 3:
        raise ValueError(f"torchvision/{name} reads colour images only: set data.channels=rgb")
    first_label = 0 if name.startswith(_WITHOUT_BACKGROUND) else 1
    network: Any = models.get_model(
        name, weights=None, weights_backbone=None, num_classes=architecture.outputs + first_label
    )
    return adapted(network, first_label)
