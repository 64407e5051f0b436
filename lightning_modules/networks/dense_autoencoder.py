"""An autoencoder of dense layers: Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural
networks", Science 313 (2006), with ReLU and without their layer-by-layer pretraining.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from .architecture import Architecture
from .autoencoder import Autoencoder

LAYERS = (512, 256)
"""Units of the layers before the code when none are named."""


def build(architecture: Architecture) -> nn.Module:
    """Build ``flatten, [dense relu] * layers, code`` and the same layers in reverse; the last gives each pixel."""
    a = architecture
    widths = (a.image_channels * a.height * a.width, *(a.dense or LAYERS))
    encoder = nn.Sequential(nn.Flatten())
    for incoming, outgoing in pairwise(widths):
        encoder.append(nn.Sequential(nn.Linear(incoming, outgoing), nn.ReLU(inplace=True)))
    decoder = nn.Sequential()
    upwards = (a.code, *reversed(widths))
    for incoming, outgoing in pairwise(upwards[:-1]):
        decoder.append(nn.Sequential(nn.Linear(incoming, outgoing), nn.ReLU(inplace=True)))
    decoder.append(nn.Linear(upwards[-2], upwards[-1]))
    decoder.append(nn.Unflatten(1, (a.image_channels, a.height, a.width)))
    return Autoencoder(encoder, widths[-1], decoder, a.code, a.variational)
