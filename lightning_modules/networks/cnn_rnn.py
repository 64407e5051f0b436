"""Convolutions, then a recurrent network that reads their maps column by column, from left to right.

Shi, Bai and Yao, "An end-to-end trainable neural network for image-based sequence recognition", IEEE TPAMI 39 (2017),
with one answer for the whole image in place of one a column.
"""

from __future__ import annotations

from torch import Tensor, nn

from .architecture import Architecture
from .heads import classifier_head
from .rnn import LAYERS, UNITS, Recurrence

CHANNELS = (32, 64)
"""What no ``channels`` stand for."""


class ColumnReader(nn.Module):
    """Convolution blocks, a recurrent network over the columns of the last map, and a head on its last state."""

    def __init__(self, blocks: nn.Module, recurrence: Recurrence, head: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks
        self.recurrence = recurrence
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, outputs) of float images (N, C, H, W)."""
        logits: Tensor = self.head(self.recurrence(self.columns(self.blocks(images))))
        return logits

    def columns(self, maps: Tensor) -> Tensor:
        """Feature maps (N, C, H, W) as sequences of columns (N, W, C * H)."""
        return maps.flatten(1, 2).transpose(1, 2)


def build(architecture: Architecture) -> nn.Module:
    """Build ``[conv 3x3, norm, pool, relu] * blocks``, the recurrent layers, and the head.

    Raises:
        ValueError: pooling would leave nothing of the image.
    """
    a = architecture
    channels = a.channels or CHANNELS
    blocks = nn.Sequential()
    incoming = a.image_channels
    for outgoing in channels:
        blocks.append(
            nn.Sequential(
                nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False),
                nn.BatchNorm2d(outgoing),
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            )
        )
        incoming = outgoing
    height, width = a.height // 2 ** len(channels), a.width // 2 ** len(channels)
    if min(height, width) < 1:
        raise ValueError(
            f"{len(channels)} blocks, each of which halves the maps, leave nothing of an image of {a.height}x{a.width} "
            f"pixels: name at most {min(a.height, a.width).bit_length() - 1} model.channels, or set a larger "
            "data.image_size"
        )
    recurrence = Recurrence(incoming * height, a.units or UNITS, a.depth or LAYERS, a.cell, a.bidirectional, a.dropout)
    return ColumnReader(blocks, recurrence, classifier_head(recurrence.outputs, a.dense, a.dropout, a.outputs))
