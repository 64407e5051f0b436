"""A small U-Net: down to see the whole image, up again to say for each pixel what it is.

Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015: two 3x3
convolutions a stage, twice the channels at half the size, and on the way up the map of the same size from the way down
beside the enlarged one. With what came later: convolutions are padded, so that the answer has the image's size, and
followed by batch normalisation (Ioffe and Szegedy 2015).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture

UNITS = 16
MOST_HALVINGS = 4
SMALLEST_FITTED, SMALLEST = 8, 2
"""Side of the smallest map, pixels: as we choose it, and at least."""


def build(architecture: Architecture) -> nn.Module:
    """Build a U-Net of ``units`` channels at full size and ``depth`` halvings, with a dropout at the bottom.

    0 units are 16; a depth of 0 leaves a map of at least 8 pixels a side, after at most 4 halvings.

    Raises:
        ValueError: the depth leaves less than 2 pixels of the shorter side.
    """
    a = architecture
    side = min(a.height, a.width)
    depth = a.depth or max(1, min(MOST_HALVINGS, (side // SMALLEST_FITTED).bit_length() - 1))
    if side < SMALLEST * 2**depth:
        deepest = (side // SMALLEST).bit_length() - 1
        fewer = f"set model.depth to at most {deepest}, or " if deepest > 0 else ""
        raise ValueError(
            f"unet halves images {depth} times, which leaves nothing of {a.height}x{a.width} pixels: {fewer}set "
            f"data.image_size to at least {SMALLEST * 2**depth}"
        )
    return UNet(a.image_channels, 1 + a.outputs, a.units or UNITS, depth, a.batch_norm, a.dropout)


class UNet(nn.Module):
    """Images, float (N, channels, H, W), to logits, float (N, outputs, H, W), for any H and W."""

    def __init__(
        self, channels: int, outputs: int, units: int, depth: int, batch_norm: bool = True, dropout: float = 0.0
    ) -> None:
        """Choose the size.

        Args:
            channels: of the images.
            outputs: classes, background among them.
            units: channels of the first stage; each halving doubles them.
            depth: halvings.
            batch_norm: after each 3x3 convolution.
            dropout: share of the numbers at the bottom that are left out while training.
        """
        super().__init__()
        widths = [units * 2**stage for stage in range(depth + 1)]
        self.down = nn.ModuleList(
            _convolutions(incoming, outgoing, batch_norm)
            for incoming, outgoing in zip([channels, *widths], widths, strict=False)
        )
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(_Up(width, batch_norm) for width in widths[-2::-1])
        self.head = nn.Conv2d(units, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        multiple = 2 ** len(self.up)
        # up to a size that halves evenly; what is added at the right and the bottom is cut off again
        maps = F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        passed = []
        for number, stage in enumerate(self.down):
            maps = stage(maps if number == 0 else F.max_pool2d(maps, 2))
            passed.append(maps)
        maps = self.dropout(passed.pop())
        for stage in self.up:
            maps = stage(maps, passed.pop())
        logits: Tensor = self.head(maps)[..., :height, :width]
        return logits


class _Up(nn.Module):
    """A stage of the way up: twice the size, half the channels, and beside them the map from the way down."""

    def __init__(self, width: int, batch_norm: bool) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.convolutions = _convolutions(2 * width, width, batch_norm)

    def forward(self, maps: Tensor, passed: Tensor) -> Tensor:
        together: Tensor = self.convolutions(torch.cat([passed, self.enlarge(maps)], dim=1))
        return together


def _convolutions(incoming: int, outgoing: int, batch_norm: bool) -> nn.Sequential:
    """Two 3x3 convolutions, each with its normalisation and ReLU."""
    layers: list[nn.Module] = []
    for width in (incoming, outgoing):
        layers.append(nn.Conv2d(width, outgoing, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outgoing))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
