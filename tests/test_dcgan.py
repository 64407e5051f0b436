"""The GAN's networks fit any image size, know their classes, and are held by spectral normalisation."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.networks import Architecture, build_network, example_inputs
from lightning_modules.networks.dcgan import build, build_discriminator


def architecture(height: int = 28, width: int = 28, channels: int = 1, **more: object) -> Architecture:
    return Architecture("dcgan", 3, height, width, channels, **{"units": 4, "code": 5} | more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("height", "width", "channels"),
    [(28, 28, 1), (32, 32, 3), (8, 8, 1), (4, 4, 1), (5, 9, 3), (50, 37, 3), (64, 96, 1)],
)
@pytest.mark.parametrize("conditional", [True, False])
def test_any_size_is_made_and_judged(height: int, width: int, channels: int, conditional: bool) -> None:
    shape = architecture(height, width, channels, conditional=conditional)
    labels = torch.tensor([0, 2])
    images = build_network(shape)(torch.randn(2, 5), labels)
    assert images.shape == (2, channels, height, width)
    assert images.abs().max() <= 1
    assert build_discriminator(shape, True)(images, labels).shape == (2,)


def test_28_and_32_pixels_are_reached_by_doubling_alone() -> None:
    # 7 -> 14 -> 28 and 4 -> 8 -> 16 -> 32
    assert build(architecture(28)).project.out_features == 8 * 7 * 7
    assert build(architecture(32, 32)).project.out_features == 16 * 4 * 4
    assert [len(build(architecture(side, side)).stages) for side in (28, 32)] == [2, 3]


def test_the_number_of_parameters_is_counted_by_hand() -> None:
    # generator: (5 + 3) * 8 * 49, norms 2 * 8 and 2 * 4, 8 * 4 * 16, 4 * 1 * 16 + 1
    assert sum(p.numel() for p in build(architecture()).parameters()) == 8 * 392 + 16 + 8 + 512 + 65
    # discriminator: 28 -> 14 -> 7 -> 3 with 4, 8, 16 channels, a score and a vector a class over 16 * 9 features
    stages = (16 + 1) * 4 + (4 * 16 + 1) * 8 + (8 * 16 + 1) * 16
    discriminator = build_discriminator(architecture(), False)
    assert sum(p.numel() for p in discriminator.parameters()) == stages + (144 + 1) + 3 * 144


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no images of 3x9 pixels: set data.image_size to 4 or more"):
        build_network(architecture(3, 9))


def test_example_inputs_are_one_noise_and_one_label() -> None:
    noise, label = example_inputs(architecture())
    assert noise.shape == (1, 5)
    assert label.tolist() == [0]
    assert build(architecture()).eval()(noise, label).shape == (1, 1, 28, 28)


def test_the_class_decides_only_when_conditional() -> None:
    noise = torch.randn(1, 5)
    for conditional in (True, False):
        torch.manual_seed(0)
        shape = architecture(conditional=conditional)
        generator, discriminator = build(shape).eval(), build_discriminator(shape, False).eval()
        made = [generator(noise, torch.tensor([label])) for label in range(2)]
        scores = [discriminator(made[0], torch.tensor([label])) for label in range(2)]
        assert torch.equal(*made) != conditional
        assert torch.equal(*scores) != conditional


def test_the_projection_is_the_inner_product_with_the_classs_vector() -> None:
    discriminator = build_discriminator(architecture(), False)
    images, labels = torch.rand(4, 1, 28, 28), torch.tensor([0, 1, 2, 2])
    features = discriminator.stages(images).flatten(start_dim=1)
    assert discriminator.classes is not None
    by_hand = discriminator.score(features)[:, 0] + torch.einsum(
        "nf,nf->n", features, discriminator.classes.weight[labels]
    )
    torch.testing.assert_close(discriminator(images, labels), by_hand)


def test_spectral_normalisation_leaves_no_layer_a_singular_value_above_1() -> None:
    torch.manual_seed(0)
    discriminator = build_discriminator(architecture(), True)
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.mul_(50)
        for _ in range(50):  # each pass takes one step of the power iteration
            discriminator(torch.rand(2, 1, 28, 28), torch.tensor([0, 1]))
    weights = [
        *(stage[0].weight for stage in discriminator.stages),
        discriminator.score.weight,
        discriminator.classes.weight,
    ]  # type: ignore[index,union-attr]
    for weight in weights:
        largest = torch.linalg.matrix_norm(weight.detach().flatten(start_dim=1), ord=2)
        assert float(largest) == pytest.approx(1.0, abs=0.02)


def test_the_discriminator_sees_each_image_alone() -> None:
    discriminator = build_discriminator(architecture(), True).eval()
    images, labels = torch.rand(5, 1, 28, 28), torch.arange(5) % 3
    together = discriminator(images, labels)
    alone = torch.cat([discriminator(images[k : k + 1], labels[k : k + 1]) for k in range(5)])
    torch.testing.assert_close(together, alone)
