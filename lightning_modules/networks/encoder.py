"""A classifier from an autoencoder: the encoder of ``conv_autoencoder`` and a linear layer on its codes.

The names of its tensors are the autoencoder's, so that ``model.weights`` takes a registered autoencoder. Like that one
it reads images in [0, 1]. With ``training.freeze: backbone`` only the linear layer learns: a linear probe (Alain and
Bengio, "Understanding intermediate layers using linear classifier probes", 2016).
"""

from __future__ import annotations

from torch import Tensor, nn

from .architecture import Architecture
from .conv_autoencoder import encoder_of


def build(architecture: Architecture) -> nn.Module:
    """Build ``[conv norm relu] * blocks, code, dropout, output``.

    Raises:
        ValueError: the feature map would shrink to nothing.
    """
    return Encoder(architecture)


class Encoder(nn.Module):
    """Images (N, C, H, W) to logits (N, outputs) by their codes."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.encoder, features = encoder_of(a)
        self.to_code = nn.Linear(features, a.code)
        self.dropout = nn.Dropout(a.dropout)
        self.head = nn.Linear(a.code, a.outputs)

    def encode(self, images: Tensor) -> Tensor:
        """Codes (N, code)."""
        codes: Tensor = self.to_code(self.encoder(images))
        return codes

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.encode(images)))
        return logits
