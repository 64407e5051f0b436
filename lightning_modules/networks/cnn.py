"""The small convolutional family: blocks of convolution, normalisation, pooling and ReLU, then dense layers.

LeCun et al., "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86 (1998), with the
parts that came later as options: ReLU, batch normalisation (Ioffe and Szegedy 2015), dropout (Srivastava et al. 2014).
"""

from __future__ import annotations

from torch import nn

from .architecture import Architecture
from .heads import classifier_head


def build(architecture: Architecture) -> nn.Module:
    """Build ``[conv (norm) (pool) relu] * blocks, flatten or average, [dense relu dropout] * layers, output``.

    Raises:
        ValueError: the feature map would shrink to nothing.
    """
    a = architecture
    blocks = nn.Sequential()
    height, width, incoming = a.height, a.width, a.image_channels
    shrink = a.kernel_size - 1 if a.padding == "valid" else 0
    for number, outgoing in enumerate(a.channels):
        height, width = height - shrink, width - shrink
        pooled = number < a.pooled_blocks
        if min(height, width) < (2 if pooled else 1):
            raise ValueError(
                f"block {number + 1} of {len(a.channels)} has nothing left of an image of {a.height}x{a.width} pixels: "
                "fewer model.channels, fewer model.pooled_blocks, model.padding=same or a larger data.image_size"
            )
        block = nn.Sequential()
        block.append(nn.Conv2d(incoming, outgoing, a.kernel_size, padding=a.padding, bias=not a.batch_norm))
        if a.batch_norm:
            block.append(nn.BatchNorm2d(outgoing))
        if pooled:
            # ReLU is monotone, so pooling first gives the same values and gradients, on a quarter of the pixels
            block.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        block.append(nn.ReLU(inplace=True))
        blocks.append(block)
        incoming = outgoing
    if a.neck == "average":
        neck: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        features = incoming
    else:
        neck = nn.Flatten()
        features = incoming * height * width
    network = nn.Sequential()
    network.add_module("blocks", blocks)
    network.add_module("neck", neck)
    network.add_module("head", classifier_head(features, a.dense, a.dropout, a.outputs))
    return network
