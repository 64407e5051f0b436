"""Faster R-CNN with a small residual backbone: regions are proposed first, then looked at one by one.

Ren et al., "Faster R-CNN: towards real-time object detection with region proposal networks", NeurIPS 2015;
torchvision's implementation.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from .architecture import Architecture
from .pyramid import Pyramid, adapted, anchors

SIDE, REPRESENTATION = 7, 256
"""Cells a side that a region is read in, and numbers that describe it."""


def build(architecture: Architecture) -> nn.Module:
    """Build a detector that maps normalised images to losses while training and to boxes otherwise.

    ``architecture.units`` are the channels of the first stage, ``depth`` the blocks a stage.

    Raises:
        ValueError: the images are too small.
    """
    backbone = Pyramid(architecture)
    return adapted(FasterRCNN(backbone, **two_stages(backbone, architecture.outputs)), first_label=1)


def two_stages(backbone: Pyramid, classes: int) -> dict[str, Any]:
    """Proposals and box heads, sized for small images: fewer regions than torchvision's, which are for COCO."""
    return {
        "rpn_anchor_generator": anchors(backbone.strides),
        "rpn_pre_nms_top_n_train": 600,
        "rpn_pre_nms_top_n_test": 600,
        "rpn_post_nms_top_n_train": 300,
        "rpn_post_nms_top_n_test": 300,
        "box_roi_pool": MultiScaleRoIAlign(list("0123"), SIDE, sampling_ratio=2),
        "box_head": TwoMLPHead(backbone.out_channels * SIDE**2, REPRESENTATION),
        "box_predictor": FastRCNNPredictor(REPRESENTATION, classes + 1),
        "box_batch_size_per_image": 128,
        "box_detections_per_img": 200,
    }
