"""The DCGAN: noise through strided transposed convolutions to an image, and a convolutional network that judges it.

Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", ICLR 2016. A conditional generator reads the class as a one-hot vector joined to the noise (Mirza and
Osindero, "Conditional generative adversarial nets", 2014); the discriminator then adds the inner product of its
features with the class's own vector (Miyato and Koyama, "cGANs with projection discriminator", ICLR 2018). The
discriminator has no batch normalisation: what steadies it is spectral normalisation (Miyato et al., ICLR 2018) or a
gradient penalty.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalised

from .architecture import Architecture

UNITS = 64
WIDEST = 8
"""Channels grow to at most so many times those of the stage nearest to the image."""
SMALLEST_MAP = 4
SLOPE = 0.2
SPREAD = 0.02
"""Standard deviation of the first weights, as in the paper."""


def build(architecture: Architecture) -> Generator:
    """Build the generator: what is kept of a GAN.

    Raises:
        ValueError: the images are too small.
    """
    return Generator(architecture)


def build_discriminator(architecture: Architecture, spectral_norm: bool) -> Discriminator:
    """Build the discriminator of the same images.

    Args:
        architecture: the generator's.
        spectral_norm: divide each layer's weights by their largest singular value.
    """
    return Discriminator(architecture, spectral_norm)


def example_inputs(architecture: Architecture) -> tuple[Tensor, Tensor]:
    """Noise and label of one image."""
    return torch.zeros(1, architecture.code), torch.zeros(1, dtype=torch.int64)


def doublings(architecture: Architecture) -> int:
    """How often the generator's first map, of 4 to 7 pixels on its shorter side, is doubled.

    Raises:
        ValueError: the images are too small.
    """
    side = min(architecture.height, architecture.width)
    if side < SMALLEST_MAP:
        raise ValueError(
            f"dcgan makes no images of {architecture.height}x{architecture.width} pixels: set data.image_size to "
            f"{SMALLEST_MAP} or more"
        )
    return max(1, int(math.log2(side / SMALLEST_MAP)))


class Generator(nn.Module):
    """Noise, and a class where it is conditional, to images."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        stages = doublings(a)
        units = a.units or UNITS
        self._classes = a.outputs if a.conditional else 0
        self._size = a.height, a.width
        widths = [units * min(WIDEST, 2**stage) for stage in reversed(range(stages))]
        self._first = widths[0], math.ceil(a.height / 2**stages), math.ceil(a.width / 2**stages)
        self.project = nn.Linear(a.code + self._classes, math.prod(self._first), bias=False)
        self.stages = nn.Sequential()
        for incoming, outgoing in zip(widths, [*widths[1:], a.image_channels], strict=True):
            last = len(self.stages) == stages - 1
            self.stages.append(
                nn.Sequential(
                    nn.BatchNorm2d(incoming),
                    nn.ReLU(inplace=True),
                    nn.ConvTranspose2d(incoming, outgoing, 4, stride=2, padding=1, bias=last),
                )
            )
        self.apply(_initialise)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Images of noise.

        Args:
            noise: float (N, code), standard normal.
            labels: int64 (N,), 0 <= label < classes; not read when unconditional.

        Returns:
            float (N, C, H, W) in [-1, 1].
        """
        if self._classes:
            noise = torch.cat([noise, F.one_hot(labels, self._classes).to(noise.dtype)], dim=1)
        made: Tensor = self.stages(self.project(noise).view(-1, *self._first))
        height, width = self._size
        top, left = (made.shape[2] - height) // 2, (made.shape[3] - width) // 2
        return torch.tanh(made[:, :, top : top + height, left : left + width])


class Discriminator(nn.Module):
    """Images to one score each: the higher, the more real."""

    def __init__(self, architecture: Architecture, spectral_norm: bool) -> None:
        super().__init__()
        a = architecture
        units = a.units or UNITS
        self.stages = nn.Sequential()
        height, width, incoming = a.height, a.width, a.image_channels
        while not len(self.stages) or min(height, width) > SMALLEST_MAP:
            outgoing = units * min(WIDEST, 2 ** len(self.stages))
            self.stages.append(
                nn.Sequential(nn.Conv2d(incoming, outgoing, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE, inplace=True))
            )
            height, width, incoming = height // 2, width // 2, outgoing
        features = incoming * height * width
        self.score = nn.Linear(features, 1)
        self.classes = nn.Embedding(a.outputs, features) if a.conditional else None
        self.apply(_initialise)
        if spectral_norm:
            for module in list(self.modules()):
                if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
                    normalised(module)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Scores (N,) of images, float (N, C, H, W) in [-1, 1], with their labels, int64 (N,)."""
        features = self.stages(images).flatten(start_dim=1)
        scores: Tensor = self.score(features).squeeze(1)
        if self.classes is not None:
            scores = scores + (self.classes(labels) * features).sum(dim=1)
        return scores


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, 0.0, SPREAD)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, SPREAD)
