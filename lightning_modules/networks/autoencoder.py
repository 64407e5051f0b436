"""What autoencoders share: images to codes, or to distributions of codes, and codes to images.

Kramer, "Nonlinear principal component analysis using autoassociative neural networks", AIChE Journal 37 (1991);
variational: Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Images in [0, 1] to codes and back; the code of a variational one is the mean of its distribution."""

    def __init__(self, encoder: nn.Sequential, features: int, decoder: nn.Sequential, code: int, variational: bool):
        """Join the parts.

        Args:
            encoder: images (N, C, H, W) to features (N, ``features``).
            features: of an image.
            decoder: codes (N, ``code``) to the logits of pixels (N, C, H, W).
            code: numbers of a code.
            variational: learn a normal distribution of codes for each image.
        """
        super().__init__()
        self.encoder = encoder
        self.to_code = nn.Linear(features, code)
        self.to_log_variance = nn.Linear(features, code) if variational else None
        self.decoder = decoder

    def distribution(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the codes of images (N, C, H, W), (N, code) each.

        Raises:
            ValueError: the network is not variational.
        """
        if self.to_log_variance is None:
            raise ValueError("this autoencoder knows codes, not distributions of codes: set model.variational=true")
        features = self.encoder(images)
        return self.to_code(features), self.to_log_variance(features)

    def encode(self, images: Tensor) -> Tensor:
        """Codes (N, code) of images (N, C, H, W)."""
        codes: Tensor = self.to_code(self.encoder(images))
        return codes

    def logits(self, codes: Tensor) -> Tensor:
        """What `decode` is the sigmoid of."""
        pixels: Tensor = self.decoder(codes)
        return pixels

    def decode(self, codes: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] from codes (N, code)."""
        return torch.sigmoid(self.logits(codes))

    def forward(self, images: Tensor) -> Tensor:
        """Restored images (N, C, H, W) in [0, 1]."""
        return self.decode(self.encode(images))

    def get_classifier(self) -> nn.Module:
        """The layer that gives pixels: the one at which depth is counted from (as timm names it in classifiers)."""
        layers = [module for module in self.decoder.modules() if isinstance(module, nn.Linear | nn.ConvTranspose2d)]
        return layers[-1]
