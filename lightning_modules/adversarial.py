"""Losses of generative adversarial networks, as functions of the discriminator's scores: the higher, the more real.

- ``wgan_gp``: Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017;
- ``hinge``: Lim and Ye, "Geometric GAN", 2017, as used by Miyato et al., ICLR 2018;
- ``non_saturating``: Goodfellow et al., "Generative adversarial nets", NeurIPS 2014.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Adversarial = Literal["wgan_gp", "hinge", "non_saturating"]


def real_loss(kind: Adversarial, scores: Tensor) -> Tensor:
    """The discriminator's mean loss on real images, of scores (N,); without the gradient penalty."""
    if kind == "wgan_gp":
        return -scores.mean()
    return F.relu(1 - scores).mean() if kind == "hinge" else F.softplus(-scores).mean()


def fake_loss(kind: Adversarial, scores: Tensor) -> Tensor:
    """The discriminator's mean loss on generated images, of scores (N,)."""
    if kind == "wgan_gp":
        return scores.mean()
    return F.relu(1 + scores).mean() if kind == "hinge" else F.softplus(scores).mean()


def generator_loss(kind: Adversarial, scores: Tensor) -> Tensor:
    """The generator's mean loss, of the scores (N,) of its images."""
    return F.softplus(-scores).mean() if kind == "non_saturating" else -scores.mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """How far the critic's gradient is from length 1 between real and generated images: mean (|gradient| - 1)^2.

    Args:
        critic: images (N, ...) to scores (N,).
        real: images (N, ...).
        fake: images of the same shape; each is mixed with a real one in a random proportion.

    Returns:
        A scalar that can be differentiated with respect to the critic's weights.
    """
    share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach(), real.detach(), share).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (gradient.flatten(start_dim=1).norm(dim=1) - 1).square().mean()
    return penalty
