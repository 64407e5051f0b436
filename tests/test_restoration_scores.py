"""Scores of restored images are those of their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from recognition.restoration_scores import psnr, squared_errors, ssim


def flat(value: float, side: int = 16, channels: int = 1) -> torch.Tensor:
    return torch.full((1, channels, side, side), value)


def test_an_error_of_a_tenth_everywhere_is_20_decibels() -> None:
    errors = squared_errors(flat(0.3), flat(0.4))
    assert errors.item() == pytest.approx(0.01)
    assert psnr(errors).item() == pytest.approx(20)


def test_an_error_of_nothing_is_100_decibels() -> None:
    assert psnr(squared_errors(flat(0.3), flat(0.3))).item() == 100


def test_each_image_has_its_own_error() -> None:
    one = torch.cat([flat(0.0, 2), flat(1.0, 2)])
    assert squared_errors(one, torch.zeros(2, 1, 2, 2)).tolist() == [0, 1]


@pytest.mark.parametrize("side", [3, 4, 8, 11, 12, 28])
def test_the_similarity_of_flat_images_is_that_of_their_brightness(side: int) -> None:
    # no variance: (2xy + c) / (x² + y² + c) with c = 0.01²
    expected = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    assert ssim(flat(0.2, side), flat(0.8, side)).item() == pytest.approx(expected, abs=1e-4)
    assert ssim(flat(0.2, side), flat(0.2, side)).item() == pytest.approx(1, abs=1e-4)


def reference(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, with their Gaussian window; beyond its border an image is mirrored."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blurred(image: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(image, window, axis=0, mode="mirror"), window, axis=1, mode="mirror")

    x, y = blurred(one), blurred(other)
    xx, yy, xy = blurred(one * one) - x * x, blurred(other * other) - y * y, blurred(one * other) - x * y
    c, d = 0.01**2, 0.03**2
    return float(((2 * x * y + c) * (2 * xy + d) / ((x * x + y * y + c) * (xx + yy + d))).mean())


def test_the_similarity_is_that_of_the_papers_formula() -> None:
    random = np.random.default_rng(0)
    one = random.random((3, 24, 20))
    other = (one + random.normal(0, 0.2, one.shape)).clip(0, 1)
    ours = ssim(*(torch.from_numpy(images[:, None]).float() for images in (other, one)))
    np.testing.assert_allclose(ours, [reference(x, y) for x, y in zip(other, one, strict=True)], atol=1e-4)


def test_images_of_two_pixels_have_no_similarity() -> None:
    assert torch.isnan(ssim(flat(0.2, 2), flat(0.2, 2))).all()
