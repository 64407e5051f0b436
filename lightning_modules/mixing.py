"""Mixup and CutMix on whole batches, drawn by (seed, epoch, batch)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recognition.randomness import BATCH, stream


def mix(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    mixup: float,
    cutmix: float,
    seed: int,
    epoch: int,
    batch: int,
) -> tuple[Tensor, Tensor]:
    """Mix each image with another of the batch; with both alphas above 0, a batch draws one of the two.

    Mixup: Zhang et al., ICLR 2018. CutMix: Yun et al., ICCV 2019.

    Args:
        images: float (N, C, H, W).
        labels: int64 (N,).
        num_classes: K.
        mixup: alpha of mixup's Beta(alpha, alpha), 0: none.
        cutmix: the same for CutMix.
        seed, epoch, batch: the key of the draw.

    Returns:
        Mixed images (N, C, H, W) and probabilities (N, K), float.
    """
    random = stream(seed, epoch, batch, BATCH)
    use_cutmix = cutmix > 0 and (mixup == 0 or random.random() < 0.5)
    alpha = cutmix if use_cutmix else mixup
    partners = torch.from_numpy(random.permutation(len(images))).to(images.device)
    kept = float(random.beta(alpha, alpha))
    if use_cutmix:
        top, bottom, left, right = _box(kept, images.shape[2], images.shape[3], random)
        images = images.clone()
        images[:, :, top:bottom, left:right] = images[partners][:, :, top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
    else:
        images = kept * images + (1 - kept) * images[partners]
    shares = F.one_hot(labels, num_classes).to(images.dtype)
    return images, kept * shares + (1 - kept) * shares[partners]


def _box(kept: float, height: int, width: int, random: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of about (1 - kept) of the area around a uniform centre, cut at the borders."""
    half_height = int(height * np.sqrt(1 - kept)) // 2
    half_width = int(width * np.sqrt(1 - kept)) // 2
    row, column = int(random.integers(height)), int(random.integers(width))
    return (
        max(0, row - half_height),
        min(height, row + half_height),
        max(0, column - half_width),
        min(width, column + half_width),
    )
