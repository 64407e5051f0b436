"""Mixup and CutMix: images and labels are mixed by the same shares, drawn by key."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.mixing import mix
from recognition.randomness import BATCH, stream

N, K, SIDE = 12, 4, 10
LABELS = torch.arange(N) % K
# each image has one value of its own, so that a mixed pixel tells where it comes from
IMAGES = torch.arange(N, dtype=torch.float32).view(N, 1, 1, 1).expand(N, 3, SIDE, SIDE).contiguous()


def mixed(
    mixup: float = 0.0, cutmix: float = 0.0, seed: int = 0, epoch: int = 0, batch: int = 0
) -> tuple[Tensor, Tensor]:
    return mix(IMAGES, LABELS, K, mixup=mixup, cutmix=cutmix, seed=seed, epoch=epoch, batch=batch)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_labels_become_probabilities(mixup: float, cutmix: float) -> None:
    for batch in range(20):
        images, shares = mixed(mixup, cutmix, batch=batch)
        assert images.shape == IMAGES.shape
        assert shares.shape == (N, K)
        assert (shares >= 0).all()
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(N))


def test_mixup_is_the_weighted_sum_of_an_image_and_its_partner() -> None:
    draws = stream(5, 6, 7, BATCH)
    partners, kept = draws.permutation(N), draws.beta(0.4, 0.4)
    images, shares = mixed(mixup=0.4, seed=5, epoch=6, batch=7)
    for index in range(N):
        value = kept * index + (1 - kept) * partners[index]
        torch.testing.assert_close(images[index], torch.full((3, SIDE, SIDE), value, dtype=torch.float32))
        expected = np.zeros(K)
        expected[index % K] += kept
        expected[partners[index] % K] += 1 - kept
        np.testing.assert_allclose(shares[index].numpy(), expected, atol=1e-6)


def test_cutmix_replaces_one_box_whose_area_is_the_partners_share() -> None:
    boxes = 0
    for batch in range(30):
        images, shares = mixed(cutmix=1.0, batch=batch)
        for index in range(N):
            foreign = images[index, 0] != index
            assert bool((images[index] == images[index, 0]).all()), "all channels are cut alike"
            if not foreign.any():
                continue
            boxes += 1
            rows, columns = foreign.any(dim=1).nonzero(), foreign.any(dim=0).nonzero()
            height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
            assert int(foreign.sum()) == height * width, "a whole box"
            values = images[index, 0][foreign].unique()
            assert len(values) == 1, "from one partner"
            partner = int(values)
            area = height * width / SIDE**2
            expected = torch.zeros(K)
            expected[index % K] += 1 - area
            expected[partner % K] += area
            torch.testing.assert_close(shares[index], expected)
    assert boxes > 100


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_the_mix_is_a_function_of_seed_epoch_and_batch(mixup: float, cutmix: float) -> None:
    reference = mixed(mixup, cutmix, 1, 2, 3)
    mixed(mixup, cutmix, 9, 9, 9)
    again = mixed(mixup, cutmix, 1, 2, 3)
    assert torch.equal(reference[0], again[0])
    assert torch.equal(reference[1], again[1])
    for key in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not torch.equal(mixed(mixup, cutmix, *key)[1], reference[1])


def test_with_both_each_batch_draws_one_of_them() -> None:
    cut = 0
    for batch in range(200):
        images, _ = mixed(0.5, 1.0, batch=batch)
        # mixup makes each image one value, CutMix leaves whole numbers
        uniform = bool((images == images[:, :1, :1, :1]).all())
        assert uniform or bool((images == images.round()).all())
        cut += not uniform
    assert 60 < cut < 140


def test_the_images_given_stay_as_they_are() -> None:
    before = IMAGES.clone()
    mixed(0.5, 1.0)
    mixed(cutmix=1.0)
    assert torch.equal(IMAGES, before)


def test_memory_order_is_kept() -> None:
    channels_last = IMAGES.to(memory_format=torch.channels_last)
    for mixup, cutmix in ((0.4, 0.0), (0.0, 1.0)):
        images, _ = mix(channels_last, LABELS, K, mixup=mixup, cutmix=cutmix, seed=0, epoch=0, batch=1)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images, mixed(mixup, cutmix, batch=1)[0])
