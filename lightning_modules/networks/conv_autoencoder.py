"""An autoencoder of strided convolutions and their transposes: Masci et al., "Stacked convolutional auto-encoders for
hierarchical feature extraction", ICANN 2011, with DCGAN's layers (Radford et al. 2016): kernels of 4 at a stride of 2,
which cover every pixel equally often, batch normalisation, no pooling.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from .architecture import Architecture
from .autoencoder import Autoencoder

CHANNELS = (32, 64)
"""Channels of the blocks when none are named."""


def build(architecture: Architecture) -> nn.Module:
    """Build ``[conv norm relu] * blocks, code`` and ``dense norm relu, [transposed conv norm relu] * blocks``, whose
    last gives the pixels. A block halves the sides, rounding down; the decoder gives the lost row or column back.

    Raises:
        ValueError: the feature map would shrink to nothing.
    """
    a = architecture
    encoder, features = encoder_of(a)
    channels = a.channels or CHANNELS
    sizes = _sizes(a, len(channels))
    height, width = sizes[-1]
    decoder = nn.Sequential(
        nn.Sequential(
            nn.Linear(a.code, features),
            nn.Unflatten(1, (channels[-1], height, width)),
            nn.BatchNorm2d(channels[-1]),
            nn.ReLU(inplace=True),
        )
    )
    upwards = (*reversed(channels), a.image_channels)
    for number, (incoming, outgoing) in enumerate(pairwise(upwards)):
        height, width = sizes[-2 - number]
        last = number == len(channels) - 1
        block = nn.Sequential(
            nn.ConvTranspose2d(
                incoming, outgoing, 4, stride=2, padding=1, output_padding=(height % 2, width % 2), bias=last
            )
        )
        if not last:
            block.append(nn.BatchNorm2d(outgoing))
            block.append(nn.ReLU(inplace=True))
        decoder.append(block)
    return Autoencoder(encoder, features, decoder, a.code, a.variational)


def encoder_of(architecture: Architecture) -> tuple[nn.Sequential, int]:
    """The convolutions of an architecture, images (N, C, H, W) to features (N, F), and F.

    Raises:
        ValueError: the feature map would shrink to nothing.
    """
    a = architecture
    channels = a.channels or CHANNELS
    height, width = _sizes(a, len(channels))[-1]
    encoder = nn.Sequential()
    for incoming, outgoing in pairwise((a.image_channels, *channels)):
        encoder.append(
            nn.Sequential(
                nn.Conv2d(incoming, outgoing, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outgoing),
                nn.ReLU(inplace=True),
            )
        )
    encoder.append(nn.Flatten())
    return encoder, channels[-1] * height * width


def _sizes(a: Architecture, blocks: int) -> list[tuple[int, int]]:
    """Height and width of the image and after each block."""
    sizes = [(a.height, a.width)]
    for number in range(blocks):
        height, width = sizes[-1]
        if min(height, width) < 2:
            raise ValueError(
                f"block {number + 1} of {blocks} has nothing left of an image of {a.height}x{a.width} pixels: "
                "fewer model.channels or a larger data.image_size"
            )
        sizes.append((height // 2, width // 2))
    return sizes
