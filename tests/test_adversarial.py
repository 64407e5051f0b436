"""The losses of GANs by hand, and the gradient penalty of a critic whose gradient is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_modules.adversarial import fake_loss, generator_loss, gradient_penalty, real_loss

SCORES = torch.tensor([-2.0, 0.0, 0.5, 3.0])


def test_hinge_counts_what_is_on_the_wrong_side_of_the_margin() -> None:
    # 1 - score: 3, 1, 0.5 and none; 1 + score: none, 1, 1.5 and 4
    assert float(real_loss("hinge", SCORES)) == pytest.approx(4.5 / 4)
    assert float(fake_loss("hinge", SCORES)) == pytest.approx(6.5 / 4)
    assert float(generator_loss("hinge", SCORES)) == pytest.approx(-1.5 / 4)


def test_wasserstein_is_the_difference_of_means() -> None:
    assert float(real_loss("wgan_gp", SCORES)) == pytest.approx(-0.375)
    assert float(fake_loss("wgan_gp", SCORES)) == pytest.approx(0.375)
    assert float(generator_loss("wgan_gp", SCORES)) == pytest.approx(-0.375)


def test_non_saturating_is_the_cross_entropy_of_real_and_generated() -> None:
    real = sum(math.log(1 + math.exp(-score)) for score in SCORES.tolist()) / 4
    fake = sum(math.log(1 + math.exp(score)) for score in SCORES.tolist()) / 4
    assert float(real_loss("non_saturating", SCORES)) == pytest.approx(real)
    assert float(fake_loss("non_saturating", SCORES)) == pytest.approx(fake)
    assert float(generator_loss("non_saturating", SCORES)) == pytest.approx(real)


@pytest.mark.parametrize("length", [0.0, 0.5, 1.0, 3.0])
def test_the_penalty_of_a_linear_critic_is_its_distance_from_length_1_squared(length: float) -> None:
    direction = torch.randn(3 * 5 * 5, dtype=torch.float64)
    weight = (length * direction / direction.norm()).requires_grad_()

    def critic(images: Tensor) -> Tensor:
        return images.flatten(start_dim=1) @ weight

    real, fake = torch.randn(2, 7, 3, 5, 5, dtype=torch.float64)
    penalty = gradient_penalty(critic, real, fake)
    assert float(penalty.detach()) == pytest.approx((length - 1) ** 2, abs=1e-12)
    if length:
        # d (|w| - 1)^2 / dw = 2 (|w| - 1) w / |w|, which is what the critic learns by
        penalty.backward()
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, 2 * (length - 1) * weight.detach() / length)


def test_the_penalty_is_taken_between_real_and_generated() -> None:
    seen: list[Tensor] = []

    def critic(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return images.flatten(start_dim=1).sum(dim=1)

    real, fake = torch.zeros(64, 1, 4, 4), torch.ones(64, 1, 4, 4)
    gradient_penalty(critic, real, fake)
    shares = seen[0].flatten(start_dim=1)
    assert (shares == shares[:, :1]).all()
    assert 0 <= float(shares.min()) < 0.2
    assert 0.8 < float(shares.max()) <= 1


def test_the_penalty_reaches_neither_images_nor_the_generator() -> None:
    real = torch.randn(4, 6)
    fake = torch.randn(4, 6, requires_grad=True)
    weight = torch.randn(6, requires_grad=True)
    gradient_penalty(lambda images: images @ weight, real, fake).backward()
    assert fake.grad is None
    assert weight.grad is not None
