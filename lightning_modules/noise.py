"""Gaussian noise on images and codes, each sample's own: a function of (seed, epoch, index) alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recognition.randomness import CODE, NOISE, KeyedRandom

UNLEARNED = 0
"""The epoch of images that are not learned from: their noise is the same each time. Training counts from 1."""


def normals(shape: tuple[int, ...], positions: Tensor, seed: int, epoch: int, purpose: int) -> Tensor:
    """Standard normal numbers, float32 (N, *shape), on the CPU.

    Args:
        shape: of a sample.
        positions: int64 (N,), places in the split; a sample's numbers do not depend on the others.
        seed: 0 <= seed < 2**32.
        epoch: counted from 1 in training, else ``UNLEARNED``.
        purpose: of the stream, as in ``recognition.randomness``.
    """
    keyed = KeyedRandom(seed, purpose)
    drawn = np.empty((len(positions), *shape), np.float32)
    for row, position in enumerate(positions.tolist()):
        keyed.reset(epoch, position)
        keyed.generator.standard_normal(dtype=np.float32, out=drawn[row])
    return torch.from_numpy(drawn)


def noisy(images: Tensor, positions: Tensor, standard_deviation: float, seed: int, epoch: int) -> Tensor:
    """Images with noise on them, rounded and cut to what a file can hold.

    Args:
        images: uint8 (N, ...).
        positions: int64 (N,), places in the split.
        standard_deviation: of the noise, in units of full brightness.
        seed: of the noise.
        epoch: as for `normals`.

    Returns:
        uint8, of the images' shape and device.
    """
    drawn = normals(tuple(images.shape[1:]), positions, seed, epoch, NOISE).to(images.device)
    return (images + 255 * standard_deviation * drawn).round().clamp(0, 255).to(torch.uint8)


def code_noise(size: int, positions: Tensor, seed: int) -> Tensor:
    """What codes of ``size`` numbers are drawn with where nothing is learned, float32 (N, size)."""
    return normals((size,), positions, seed, UNLEARNED, CODE)
