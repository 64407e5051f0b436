"""Networks have the sizes that can be worked out by hand, take the images they are for, and can learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lightning_modules.networks
from lightning_modules.networks import Architecture, build_network
from recognition.defaults import resolve_model
from recognition.experiment import Model
from recognition.families import NETWORKS
from recognition.records import PreparedData


def architecture(
    network: str = "cnn", outputs: int = 10, side: int = 28, image_channels: int = 1, **more: Any
) -> Architecture:
    return Architecture(network, outputs, side, side, image_channels, **more)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolution(incoming: int, outgoing: int, kernel: int = 3) -> int:
    return outgoing * (incoming * kernel * kernel + 1)


def dense(incoming: int, outgoing: int) -> int:
    return outgoing * (incoming + 1)


BY_HAND = {
    # 28 -> 26 -> 13 -> 11 -> 5
    "mnist": (
        architecture(channels=(32, 64), pooled_blocks=2, padding="valid", batch_norm=False, dense=(64,)),
        320 + 18_496 + dense(5 * 5 * 64, 64) + 650,
    ),
    # 28 -> 26 -> 13 -> 11 -> 5 -> 3
    "mnist deep": (
        architecture(channels=(32, 64, 64), pooled_blocks=2, padding="valid", batch_norm=False, dense=(64,)),
        320 + 18_496 + 36_928 + dense(3 * 3 * 64, 64) + 650,
    ),
    # 32 -> 16 -> 8
    "cifar": (
        architecture(side=32, image_channels=3, channels=(32, 64), pooled_blocks=2, batch_norm=False, dense=(128,)),
        convolution(3, 32) + convolution(32, 64) + dense(8 * 8 * 64, 128) + dense(128, 10),
    ),
    # 64 -> 62 -> 31
    "binary": (
        architecture(
            outputs=1,
            side=64,
            image_channels=3,
            channels=(32,),
            pooled_blocks=1,
            padding="valid",
            batch_norm=False,
            dense=(128,),
        ),
        convolution(3, 32) + dense(31 * 31 * 32, 128) + dense(128, 1),
    ),
    # a normalised convolution has a scale and a shift a channel instead of its bias
    "average": (
        architecture(side=8, channels=(16, 32), pooled_blocks=1, neck="average"),
        16 * 9 + 2 * 16 + 32 * 16 * 9 + 2 * 32 + dense(32, 10),
    ),
    "kernel of 5, two dense layers": (
        architecture(side=20, channels=(4,), kernel_size=5, padding="valid", batch_norm=False, dense=(7, 6), outputs=3),
        convolution(1, 4, 5) + dense(16 * 16 * 4, 7) + dense(7, 6) + dense(6, 3),
    ),
    "no blocks": (architecture(side=8, dense=(5,)), dense(64, 5) + dense(5, 10)),
}


@pytest.mark.parametrize("name", list(BY_HAND))
def test_parameters_are_as_many_as_worked_out_by_hand(name: str) -> None:
    described, expected = BY_HAND[name]
    assert parameters(build_network(described)) == expected


def test_the_mnist_network_has_121_930_parameters() -> None:
    # 320 + 18,496 + 102,464 + 650, the sum that summaries of this network print
    assert parameters(build_network(BY_HAND["mnist"][0])) == 121_930


@pytest.mark.parametrize("name", list(BY_HAND))
@pytest.mark.parametrize("batch", [1, 3])
def test_images_become_one_row_of_logits_each(name: str, batch: int) -> None:
    described = BY_HAND[name][0]
    network = build_network(described).eval()
    images = torch.randn(batch, described.image_channels, described.height, described.width)
    assert network(images).shape == (batch, described.outputs)


def test_images_need_not_be_square() -> None:
    described = Architecture("cnn", 4, 12, 20, 3, channels=(8,), pooled_blocks=1)
    assert build_network(described)(torch.randn(2, 3, 12, 20)).shape == (2, 4)


@pytest.mark.parametrize(
    "more",
    [
        {"side": 4, "channels": (8, 8, 8), "pooled_blocks": 3},
        {"side": 8, "channels": (8, 8, 8), "pooled_blocks": 2, "padding": "valid"},
        {"side": 2, "channels": (8,), "padding": "valid"},
    ],
)
def test_a_network_too_deep_for_the_images_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"block \d of \d has nothing left of an image of .*data.image_size"):
        build_network(architecture(**more))


def test_the_deepest_network_that_fits_is_built() -> None:
    described = architecture(side=4, channels=(8, 8), pooled_blocks=2)
    assert build_network(described)(torch.randn(2, 1, 4, 4)).shape == (2, 10)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("cmm", r"'cmm': there is no file cmm\.py among the networks"),
        ("timm/resnet81", "timm has no model 'resnet81'; did you mean timm/resnet"),
        ("timm/resnet18.a1_in2k", r"timm has no model 'resnet18.a1_in2k'; did you mean timm/resnet18.a1_in1k\?"),
        ("torchvision/resnet81", "torchvision has no model 'resnet81'; did you mean torchvision/resnet18"),
        ("timm/zzzzzzzz", "timm has no model 'zzzzzzzz'$"),
    ],
)
def test_an_unknown_network_is_refused_with_the_nearest_one(network: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network(architecture(network))


@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/mobilenet_v3_small", "timm/resnet18"])
def test_backbones_take_gray_and_colour_images(name: str, image_channels: int) -> None:
    network = build_network(architecture(name, 7, 32, image_channels)).eval()
    assert network(torch.randn(2, image_channels, 32, 32)).shape == (2, 7)


def test_resnet18_is_the_published_one() -> None:
    # 11,689,512 parameters with 1000 classes, of which the output layer has 513,000
    body = 11_689_512 - 513_000
    for name in ("torchvision/resnet18", "timm/resnet18"):
        assert parameters(build_network(architecture(name, 1000, 224, 3))) == 11_689_512
        assert parameters(build_network(architecture(name, 3, 224, 3))) == body + dense(512, 3)
        gray = build_network(architecture(name, 3, 224, 1))
        assert parameters(gray) == body + dense(512, 3) - 2 * 64 * 7 * 7


def test_a_vision_transformer_is_built_for_the_size_of_the_images() -> None:
    network = build_network(architecture("timm/vit_tiny_patch16_224", 5, 32, 3)).eval()
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 5)
    # 2 x 2 patches and the class token
    assert network.get_parameter("pos_embed").shape == (1, 5, 192)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/mobilenet_v3_small", "timm/resnet18", "cnn"])
def test_dropout_acts_before_the_output(name: str) -> None:
    described = architecture(name, 4, 32, 3, channels=(8,), dropout=0.5)
    network = build_network(described)
    images = torch.randn(2, 3, 32, 32)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_side_outputs_give_logits_alone_in_training(name: str) -> None:
    with torch.device("meta"):
        network = build_network(architecture(f"torchvision/{name}", 4, 96, 3)).train()
        assert network(torch.randn(2, 3, 96, 96)).shape == (2, 4)


def test_a_network_of_ours_is_a_file_of_its_name_and_an_entry() -> None:
    folder = Path(lightning_modules.networks.__file__).parent
    for name in NETWORKS:
        assert "def build(" in (folder / f"{name}.py").read_text(), name


def data(side: int, channels: int = 3, classes: int = 3) -> PreparedData:
    names = tuple(f"class {number}" for number in range(classes))
    return PreparedData(
        path=Path("unused"),
        images=Path("unused"),
        digest="",
        test_digest="",
        source="",
        class_names=names,
        height=side,
        width=side,
        channels=channels,
        counts={},
        class_counts={},
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )


@pytest.mark.parametrize("side", [2, 3, 4, 8, 12, 13, 28, 32, 48, 64, 96, 128, 224, 320, 512])
def test_the_network_that_auto_stands_for_fits_every_size(side: int) -> None:
    model = resolve_model(Model(), data(side))
    described = Architecture(
        "cnn", 3, side, side, 3, channels=model.channels, pooled_blocks=model.pooled_blocks, neck=model.neck
    )
    network = build_network(described)
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 3, side, side)).shape == (1, 3)
    assert parameters(network) < 1_500_000


@pytest.mark.parametrize(("classes", "head"), [(2, "sigmoid"), (3, "softmax")])
def test_auto_decides_the_head_by_the_number_of_classes(classes: int, head: str) -> None:
    resolved = resolve_model(Model(), data(28, classes=classes))
    assert resolved.head == head
    assert resolved.network == "cnn"
    assert "auto" not in (resolved.neck, resolved.head, resolved.network)


CNNS: dict[str, dict[str, Any]] = {
    "plain": {"channels": (8, 16), "pooled_blocks": 2, "batch_norm": False, "padding": "valid", "dense": (16,)},
    "normalised": {"channels": (8, 16), "pooled_blocks": 2},
    "averaged": {"channels": (8, 16), "pooled_blocks": 1, "neck": "average"},
    "dropout": {"channels": (8,), "pooled_blocks": 1, "dense": (64,), "dropout": 0.2},
    "binary": {"channels": (8,), "pooled_blocks": 1, "outputs": 1},
    "even kernel": {"channels": (8,), "pooled_blocks": 1, "kernel_size": 5},
}


@pytest.mark.parametrize("name", list(CNNS))
def test_every_cnn_learns_one_batch_by_heart(name: str) -> None:
    torch.manual_seed(0)
    settings = {"outputs": 4, "side": 16, **CNNS[name]}
    network = build_network(architecture(**settings))
    images = torch.randn(12, 1, 16, 16)
    labels = torch.arange(12) % max(2, settings["outputs"])
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)

    def loss() -> torch.Tensor:
        logits = network(images)
        if settings["outputs"] == 1:
            return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
        return nn.functional.cross_entropy(logits, labels)

    first = float(loss().detach())
    for _ in range(120):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    network.eval()
    assert float(loss().detach()) < min(0.05, first / 10)
