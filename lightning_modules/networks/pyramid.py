"""A small residual backbone with a feature pyramid, and what else our detectors share.

He et al., "Deep residual learning for image recognition", CVPR 2016 (torchvision's basic blocks); Lin et al., "Feature
pyramid networks for object detection", CVPR 2017 (torchvision's pyramid).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from .architecture import Architecture

UNITS, BLOCKS = 32, 1
"""Channels of the first stage and blocks a stage, where the architecture leaves them open."""
LARGE = 192
"""From this side on, in pixels, the pyramid begins at an eighth of the image; below, at a quarter."""
RATIOS = (0.5, 1.0, 2.0)
ANCHOR = 2.5
"""Side of a level's smallest anchor, in steps of its grid: 20 pixels where features lie 8 pixels apart."""


class Pyramid(nn.Module):
    """Four levels of features, each half as fine as the one before.

    Maps float images (N, C, H, W) to maps of ``out_channels`` channels under the names "0" to "3".
    """

    def __init__(self, architecture: Architecture) -> None:
        """Build for images of the architecture's size.

        Raises:
            ValueError: the images are too small for four levels.
        """
        super().__init__()
        a = architecture
        units, blocks = a.units or UNITS, a.depth or BLOCKS
        if min(a.height, a.width) < 32:
            raise ValueError(
                f"a pyramid of four levels needs images of at least 32 pixels, not {a.height}x{a.width}: set a larger "
                "data.image_size"
            )
        large = min(a.height, a.width) >= LARGE
        self.strides = (8, 16, 32, 64) if large else (4, 8, 16, 32)
        self._first = 1 if large else 0
        self.stem = nn.Sequential(
            nn.Conv2d(a.image_channels, units, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(units),
            nn.ReLU(inplace=True),
        )
        widths = [units, 2 * units, 4 * units, 8 * units][: 4 if large else 3]
        self.stages = nn.ModuleList()
        incoming = units
        for width in widths:
            self.stages.append(_stage(incoming, width, blocks))
            incoming = width
        self.out_channels = 2 * units
        self.pyramid = FeaturePyramidNetwork(
            widths[self._first :],
            self.out_channels,
            extra_blocks=LastLevelMaxPool(),
            norm_layer=nn.BatchNorm2d,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        x = self.stem(images)
        features: OrderedDict[str, Tensor] = OrderedDict()
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number >= self._first:
                features[str(number - self._first)] = x
        levels: OrderedDict[str, Tensor] = OrderedDict(
            zip("0123", self.pyramid(features).values(), strict=True)  # the last has a name of its own
        )
        return levels


def _stage(incoming: int, width: int, blocks: int) -> nn.Sequential:
    """Residual blocks, the first of which halves the size."""
    shortcut = nn.Sequential(nn.Conv2d(incoming, width, 1, stride=2, bias=False), nn.BatchNorm2d(width))
    first = BasicBlock(incoming, width, stride=2, downsample=shortcut)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))


def anchors(strides: tuple[int, ...]) -> AnchorGenerator:
    """Nine anchors a place: three sizes an octave, three shapes; together from 2.5 to 32 steps of the finest grid."""
    sizes = tuple(tuple(ANCHOR * stride * 2 ** (third / 3) for third in range(3)) for stride in strides)
    return AnchorGenerator(sizes, (RATIOS,) * len(sizes))


def group_norm(channels: int) -> nn.GroupNorm:
    """Eight channels a group; for heads that see levels of different statistics."""
    return nn.GroupNorm(max(1, channels // 8), channels)


class AsPrepared(GeneralizedRCNNTransform):
    """Takes images as they come: already normalised and of the right size; only pads them to whole grids."""

    def __init__(self, size_divisible: int) -> None:
        super().__init__(1, 1, [0.0], [1.0], size_divisible)

    def normalize(self, image: Tensor) -> Tensor:
        return image

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def adapted(network: Any, first_label: int) -> nn.Module:
    """A detector of torchvision that takes prepared images, and tells the number of its first class and its head.

    Args:
        network: as torchvision builds it.
        first_label: of its labels; 1 where 0 is the background.
    """
    network.transform = AsPrepared(network.transform.size_divisible)
    network.first_label = first_label
    network.head_name = "roi_heads" if hasattr(network, "roi_heads") else "head"
    module: nn.Module = network
    return module


__all__ = ["AsPrepared", "Pyramid", "adapted", "anchors", "group_norm"]
