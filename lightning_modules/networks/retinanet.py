"""RetinaNet with a small residual backbone: one pass, focal loss, nine anchors a place.

Lin et al., "Focal loss for dense object detection", ICCV 2017; torchvision's implementation, with group normalisation
in the heads, without which training from scratch hardly begins.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead

from .architecture import Architecture
from .pyramid import Pyramid, adapted, anchors, group_norm


def build(architecture: Architecture) -> nn.Module:
    """Build a detector that maps normalised images to losses while training and to boxes otherwise.

    ``architecture.units`` are the channels of the first stage, ``depth`` the blocks a stage.

    Raises:
        ValueError: the images are too small.
    """
    backbone = Pyramid(architecture)
    generator = anchors(backbone.strides)
    places = generator.num_anchors_per_location()[0]
    head = RetinaNetHead(backbone.out_channels, places, architecture.outputs, norm_layer=group_norm)
    network = RetinaNet(backbone, architecture.outputs, anchor_generator=generator, head=head)
    return adapted(network, first_label=0)
