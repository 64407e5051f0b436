"""How near restored images are to the originals, image by image; brightness from 0 to 1."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_ERROR = 1e-10
"""What counts as no error: a PSNR of 100 dB."""
GAUSSIAN_WINDOW, WINDOW = 11, 7


def squared_errors(restored: Tensor, originals: Tensor) -> Tensor:
    """Mean squared error of each image, (N,), of images (N, C, H, W) in [0, 1]."""
    return (restored - originals).square().mean(dim=(1, 2, 3))


def psnr(errors: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels from mean squared errors: -10 log10, at most 100."""
    return -10 * errors.clamp(min=SMALLEST_ERROR).log10()


def ssim(restored: Tensor, originals: Tensor) -> Tensor:
    """Structural similarity of each image, (N,), in [-1, 1]; 1 is the same image.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE Transactions on Image
    Processing 13 (2004), by torchmetrics: a Gaussian window of 11 pixels, or a square one of at most 7 where images
    have fewer than 12 pixels a side; beyond its border an image is mirrored. NaN for images of less than 3 pixels a
    side.

    Args:
        restored: float (N, C, H, W), in [0, 1].
        originals: of the same shape.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    side = min(originals.shape[-2:])
    if side < 3:
        return torch.full((len(originals),), torch.nan)
    gaussian = side > GAUSSIAN_WINDOW
    window = GAUSSIAN_WINDOW if gaussian else min(WINDOW, side - 1 + side % 2)
    scores = structural_similarity_index_measure(
        restored,
        originals,
        gaussian_kernel=gaussian,
        kernel_size=window,
        data_range=1.0,
        reduction="none",
    )
    assert isinstance(scores, Tensor)
    return scores.reshape(len(originals))
