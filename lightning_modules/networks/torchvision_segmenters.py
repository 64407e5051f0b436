"""torchvision's networks for segmentation by name: LR-ASPP, DeepLabV3 and FCN, with their heads sized for our classes.

Howard et al., "Searching for MobileNetV3", ICCV 2019; Chen et al., "Rethinking atrous convolution for semantic image
segmentation", 2017; Long et al., "Fully convolutional networks for semantic segmentation", CVPR 2015.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from torch import Tensor, nn

from .architecture import Architecture

STARTS = ("lraspp_", "deeplabv3_", "fcn_")


def build(architecture: Architecture, name: str) -> nn.Module:
    """Build one of torchvision's for colour images, without weights: images to logits (N, 1 + outputs, H, W).

    Raises:
        ValueError: torchvision has no such network, or it has no dropout to set.
    """
    from torchvision import models

    known = models.list_models(module=models.segmentation)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean torchvision/{close[0]}?" if close else ""
        raise ValueError(f"torchvision has no network for segmentation {name!r}{hint}")
    network: nn.Module = models.get_model(
        name, weights=None, weights_backbone=None, num_classes=1 + architecture.outputs
    )
    if architecture.dropout and not any(isinstance(module, nn.Dropout) for module in network.modules()):
        raise ValueError(f"torchvision/{name} has no dropout to set: leave model.dropout out")
    # a hook and no module around it, so that the weights keep torchvision's names
    network.register_forward_hook(_logits_alone)
    return network


def _logits_alone(network: nn.Module, images: tuple[Tensor, ...], answers: Mapping[str, Tensor]) -> Tensor:
    return answers["out"]
