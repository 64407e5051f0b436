"""Mask R-CNN with a small residual backbone: Faster R-CNN, and a mask for each region.

He et al., "Mask R-CNN", ICCV 2017; torchvision's implementation.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from .architecture import Architecture
from .fasterrcnn import two_stages
from .pyramid import Pyramid, adapted

SIDE = 14
"""Cells a side that a region is read in for its mask, which is twice as fine."""


def build(architecture: Architecture) -> nn.Module:
    """Build a detector that maps normalised images to losses while training and to boxes and masks otherwise.

    ``architecture.units`` are the channels of the first stage, ``depth`` the blocks a stage. Masks are float
    (n, 1, H, W), the probability of each pixel.

    Raises:
        ValueError: the images are too small.
    """
    backbone = Pyramid(architecture)
    channels = backbone.out_channels
    network = MaskRCNN(
        backbone,
        mask_roi_pool=MultiScaleRoIAlign(list("0123"), SIDE, sampling_ratio=2),
        mask_head=MaskRCNNHeads(channels, (channels, channels), 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, architecture.outputs + 1),
        **two_stages(backbone, architecture.outputs),
    )
    return adapted(network, first_label=1)
