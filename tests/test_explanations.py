"""Explanations are what their papers say, on networks whose answer can be worked out by hand, and figures for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import folder_of
from torch import Tensor, nn

from lightning_modules.evaluations import explaining
from lightning_modules.evaluations.judged import Judged
from lightning_modules.explanations import (
    blurred,
    evidence,
    explain,
    grad_cam,
    integrated_gradients,
    occlusion,
)
from lightning_modules.networks import Architecture, build_network
from lightning_modules.training import NETWORKS_FOLDER
from recognition import bundle, datasets
from recognition.events import ignore
from recognition.experiment import Data, Evaluation
from recognition.explanation_figures import Group, choose, explanations, overlay
from recognition.preparation import prepare
from recognition.records import PreparedData
from recognition.scoring.classifier import Classifier

SIZE = 16
FAMILIES = {
    "cnn": Architecture("cnn", 3, SIZE, SIZE, 3, channels=(4, 6), pooled_blocks=2),
    "cnn without batch norm": Architecture(
        "cnn", 3, SIZE, SIZE, 1, channels=(4,), pooled_blocks=1, batch_norm=False, dense=(5,), padding="valid"
    ),
    "sigmoid head": Architecture("cnn", 1, SIZE, SIZE, 3, channels=(4, 6), pooled_blocks=2),
    "rnn": Architecture("rnn", 3, SIZE, SIZE, 1, units=8),
    "cnn_rnn": Architecture("cnn_rnn", 3, SIZE, SIZE, 1, channels=(4, 6), units=8, cell="gru", bidirectional=True),
    "vit": Architecture("vit", 3, SIZE, SIZE, 3, units=8, depth=2, heads=2, patch_size=4),
    "resnet of timm": Architecture("timm/test_resnet", 3, SIZE, SIZE, 3),
    "vit of timm": Architecture("timm/test_vit", 3, 2 * SIZE, 2 * SIZE, 1),
    "mobilenet of torchvision": Architecture("torchvision/mobilenet_v3_small", 3, 2 * SIZE, 2 * SIZE, 3),
}
EVERYWHERE = {"integrated gradients", "occlusion"}
METHODS = {
    "cnn": EVERYWHERE | {"Grad-CAM"},
    "cnn without batch norm": EVERYWHERE | {"Grad-CAM"},
    "sigmoid head": EVERYWHERE | {"Grad-CAM"},
    "rnn": EVERYWHERE,
    "cnn_rnn": EVERYWHERE | {"Grad-CAM"},
    "vit": EVERYWHERE | {"attention rollout"},
    "resnet of timm": EVERYWHERE | {"Grad-CAM"},
    "vit of timm": EVERYWHERE | {"attention rollout"},
    "mobilenet of torchvision": EVERYWHERE | {"Grad-CAM"},
}


def network_of(architecture: Architecture) -> nn.Module:
    torch.manual_seed(0)
    return build_network(architecture).eval()


def images_of(count: int, channels: int = 3, size: int = SIZE) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


class Linear(nn.Module):
    """Logits are weighted sums of the pixels."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", images, self.weights)


def test_evidence_is_the_logit_and_of_one_logit_its_negative_for_the_first_class() -> None:
    images = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)
    two = Linear(torch.tensor([10.0, -1.0]).view(2, 1, 1, 1))
    assert evidence(two, images, torch.tensor([0, 1, 0])).tolist() == [10, -2, 30]
    one = Linear(torch.ones(1, 1, 1, 1))
    assert evidence(one, images, torch.tensor([1, 0, 1])).tolist() == [1, -2, 3]


def test_a_blurred_image_keeps_flat_colour_and_loses_stripes() -> None:
    flat = torch.full((1, 3, 28, 28), 0.7)
    torch.testing.assert_close(blurred(flat), flat)
    stripes = torch.tensor([1.0, -1.0]).repeat(14).expand(1, 1, 28, 28)
    assert blurred(stripes).abs().max() < 0.2


# integrated gradients


def test_integrated_gradients_of_a_linear_network_are_weight_times_difference() -> None:
    weights = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    images, baseline = images_of(4, 2, 5), images_of(4, 2, 5) / 3
    classes = torch.tensor([2, 0, 1, 2])
    shares = integrated_gradients(Linear(weights), images, classes, baseline)
    torch.testing.assert_close(shares, weights[classes] * (images - baseline))


@pytest.mark.parametrize("family", ["cnn", "sigmoid head", "rnn", "vit", "resnet of timm"])
def test_integrated_gradients_sum_to_the_difference_from_the_baseline(family: str) -> None:
    architecture = FAMILIES[family]
    network = network_of(architecture)
    images = images_of(5, architecture.image_channels)
    classes = torch.arange(5) % max(2, architecture.outputs)
    baseline = blurred(images)
    shares = integrated_gradients(network, images, classes, baseline, steps=200).sum(dim=(1, 2, 3))
    with torch.no_grad():
        difference = evidence(network, images, classes) - evidence(network, baseline, classes)
    torch.testing.assert_close(shares, difference, rtol=0.02, atol=0.02 * float(difference.abs().max()))


# Grad-CAM


class TwoChannels(nn.Module):
    """Its feature map is the image, cut at 0 in place; logits are weighted sums of the two channels' means."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.ReLU(inplace=True))
        weight = torch.zeros(2, 2, 3, 3)
        weight[0, 0, 1, 1] = weight[1, 1, 1, 1] = 1.0
        self.maps[0].weight.data = weight
        self.head = nn.Linear(2, 2)
        self.head.weight.data = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.maps(images).mean(dim=(2, 3)))
        return logits


def test_grad_cam_of_a_network_that_can_be_worked_out() -> None:
    images = torch.zeros(2, 2, 4, 4)
    images[:, 0, :, 0] = 1.0
    images[:, 1, :, 3] = 5.0
    images[:, 0, :, 1] = -4.0
    maps = grad_cam(TwoChannels().eval(), images, torch.tensor([0, 1]))
    # the gradient of a mean of 16 values is 1/16 each; class 0 weighs its channels 2 and -1, class 1 0 and 3
    expected = torch.zeros(2, 4, 4)
    expected[0, :, 0] = 2 / 16 * 1.0  # the second channel speaks against it, and is cut
    expected[1, :, 3] = 3 / 16 * 5.0
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("family", ["cnn", "cnn without batch norm", "sigmoid head"])
def test_grad_cam_is_captums_of_the_last_block(family: str) -> None:
    from captum.attr import LayerGradCam

    architecture = FAMILIES[family]
    network = network_of(architecture)
    images = images_of(4, architecture.image_channels)
    classes = torch.tensor([0, 1, 1, 0])
    layer = network.get_submodule("blocks")
    reference = LayerGradCam(lambda some: evidence(network, some, classes), layer).attribute(
        images, relu_attributions=True
    )
    expected = LayerGradCam.interpolate(reference, (SIZE, SIZE), "bilinear")[:, 0].detach()
    torch.testing.assert_close(grad_cam(network, images, classes), expected)


def test_grad_cam_finds_the_last_stage_of_a_residual_network() -> None:
    from captum.attr import LayerGradCam

    torch.manual_seed(0)
    network = build_network(Architecture("torchvision/resnet18", 3, 64, 64, 3)).eval()
    images, classes = images_of(2, size=64), torch.tensor([0, 2])
    reference = LayerGradCam(network, network.get_submodule("layer4")).attribute(
        images, target=classes, relu_attributions=True
    )
    expected = LayerGradCam.interpolate(reference, (64, 64), "bilinear")[:, 0].detach()
    torch.testing.assert_close(grad_cam(network, images, classes), expected)


@pytest.mark.parametrize("family", ["rnn", "vit", "vit of timm"])
def test_networks_that_do_not_convolve_have_no_grad_cam(family: str) -> None:
    architecture = FAMILIES[family]
    images = images_of(2, architecture.image_channels, architecture.height)
    assert grad_cam(network_of(architecture), images, torch.tensor([0, 1])) is None


# occlusion


@pytest.mark.parametrize("at", [(0, 0), (3, 5), (7, 7)])
def test_occlusion_finds_the_one_pixel_a_network_looks_at(at: tuple[int, int]) -> None:
    weights = torch.zeros(2, 3, 8, 8)
    weights[(1, 0, *at)] = 2.0
    images = torch.full((2, 3, 8, 8), 5.0)
    baseline = torch.full((2, 3, 8, 8), 1.0)
    lost = occlusion(Linear(weights), images, torch.tensor([1, 0]), baseline, window=(1, 1))
    expected = torch.zeros(2, 8, 8)
    expected[(0, *at)] = 2.0 * (5.0 - 1.0)
    torch.testing.assert_close(lost, expected)


def test_a_pixel_has_the_mean_over_the_windows_that_cover_it() -> None:
    weights = torch.zeros(1, 1, 1, 4)
    weights[0, 0, 0] = torch.tensor([1.0, 2.0, 4.0, 8.0])
    lost = occlusion(Linear(weights), torch.ones(1, 1, 1, 4), torch.tensor([1]), torch.zeros(1, 1, 1, 4), (1, 2))
    # windows lose 1+2, 2+4 and 4+8
    torch.testing.assert_close(lost[0, 0], torch.tensor([3.0, (3 + 6) / 2, (6 + 12) / 2, 12.0]))


@pytest.mark.parametrize("size", [1, 3, 8, 28, 33, 64])
def test_fitted_windows_cover_images_of_any_size_in_few_places(size: int) -> None:
    weights = torch.ones(2, 1, size, size)
    calls = []

    class Counting(Linear):
        def forward(self, images: Tensor) -> Tensor:
            calls.append(len(images))
            return super().forward(images)

    images = torch.ones(1, 1, size, size)
    lost = occlusion(Counting(weights), images, torch.tensor([1]), torch.zeros_like(images))
    assert lost.min() > 0
    assert sum(calls) <= 9 * 9 + 1


# all together


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_is_explained_by_what_fits_it(family: str) -> None:
    architecture = FAMILIES[family]
    images = images_of(3, architecture.image_channels, architecture.height)
    classes = torch.arange(3) % max(2, architecture.outputs)
    network = network_of(architecture)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    maps = explain(network, images, classes)
    assert set(maps) == METHODS[family]
    for values in maps.values():
        assert values.shape == (3, architecture.height, architecture.width)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    again = explain(network, images, classes)
    assert all(np.array_equal(maps[name], again[name]) for name in maps)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_an_image_is_explained_the_same_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, classes = network_of(FAMILIES["cnn"]), images_of(5), torch.arange(5) % 3
    together = explain(network, images, classes)
    monkeypatch.setattr("lightning_modules.explanations._MOST_IMAGES", 2)
    apart = explain(network, images, classes)
    for name, values in together.items():
        np.testing.assert_allclose(apart[name], values, atol=1e-5)


# which images


def test_the_most_confident_right_and_wrong_and_the_most_uncertain_are_chosen() -> None:
    labels = np.array([0, 0, 1, 2, 0, 1])
    probabilities = np.array(
        [
            [0.90, 0.05, 0.05],  # right
            [0.10, 0.80, 0.10],  # wrong
            [0.20, 0.60, 0.20],  # right
            [0.34, 0.33, 0.33],  # wrong, margin 0.01
            [0.42, 0.40, 0.18],  # right, margin 0.02
            [0.04, 0.95, 0.01],  # right
        ]
    )
    chosen = choose(labels, probabilities, 0.5, 1)
    assert {kind: positions.tolist() for kind, positions in chosen.items()} == {
        "right": [5],
        "wrong": [1],
        "uncertain": [3],
    }
    chosen = choose(labels, probabilities, 0.5, 2)
    # image 3 is wrong, and shown there; a second image of class 1 waits for the first of class 0
    assert chosen["right"].tolist() == [5, 0]
    assert chosen["wrong"].tolist() == [1, 3]
    assert chosen["uncertain"].tolist() == [4, 2]


def test_of_two_classes_those_near_the_threshold_are_uncertain() -> None:
    second = np.array([0.9, 0.5, 0.31, 0.05])
    probabilities = np.stack([1 - second, second], axis=1)
    assert choose(np.array([1, 1, 1, 0]), probabilities, 0.3, 1)["uncertain"].tolist() == [2]


def test_where_all_are_right_none_is_wrong() -> None:
    chosen = choose(np.array([0, 1]), np.eye(2), 0.5, 4)
    assert [len(chosen[kind]) for kind in ("right", "wrong", "uncertain")] == [2, 0, 0]


# figures


def test_an_overlay_is_orange_for_violet_against_and_gray_elsewhere() -> None:
    image = np.full((1, 3, 1), 255, np.uint8)
    red, green, blue = np.moveaxis(overlay(image, np.array([[2.0, 0.0, -2.0]], np.float32)), 2, 0)[:, 0]
    assert red[0] > green[0] > blue[0]
    assert red[1] == green[1] == blue[1] == 1.0
    assert blue[2] > red[2] > green[2]


def test_a_map_that_is_nowhere_negative_runs_from_its_smallest_value() -> None:
    image = np.zeros((1, 2, 1), np.uint8)
    assert np.ptp(overlay(image, np.array([[0.25, 0.26]], np.float32))[0, 0]) < 1e-6
    assert np.ptp(overlay(image, np.array([[0.5, 0.5]], np.float32))) < 1e-6


def group(title: str, count: int, channels: int = 3, **changes: Any) -> Group:
    content: dict[str, Any] = {
        "images": np.zeros((count, 8, 8, channels), np.uint8),
        "captions": ["a → $b 0.90"] * count,
        "maps": {"occlusion": np.zeros((count, 8, 8), np.float32)},
    }
    return Group(title, **content | changes, nothing="All 9 images\nare classified right.")


@pytest.mark.parametrize(("right", "wrong", "channels"), [(4, 0, 1), (1, 1, 3), (32, 32, 3)])
def test_figures_have_a_sensible_size_for_few_and_many_images(
    tmp_path: Path, right: int, wrong: int, channels: int
) -> None:
    path = tmp_path / "figures" / "explanations.png"
    explanations([group("Right", right, channels), group("Wrong", wrong, channels)], path)
    with Image.open(path) as image:
        assert 400 < image.width <= 3000
        assert 100 < image.height <= 3000


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to explain"):
        explanations([group("Right", 0)], tmp_path / "explanations.png")
    with pytest.raises(ValueError, match="'Wrong' do not fit"):
        explanations([group("Right", 2), group("Wrong", 2, captions=["one"])], tmp_path / "explanations.png")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("explanations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(folder / "state"))
        yield folder


def judged(base: Path, folder: Path, architecture: Architecture, count: int) -> Judged:
    """A network with its first weights, and noise to be judged on, of 2 or 3 classes."""
    size, channels = architecture.height, architecture.image_channels
    names = ["cat", "dog"] if architecture.outputs == 1 else ["cat", "dog", "eel"]
    source = base / f"{len(names)}-{size}-{channels}"
    if not source.is_dir():
        folder_of(source, *names, count=20, height=size, width=size, channels=channels)
    data: PreparedData = prepare(Data(source=str(source), image_size=size))
    content = {
        "task": "classification",
        "architecture": dataclasses.asdict(architecture),
        "class_names": names,
        "threshold": 0.5,
        "preprocessing": {
            "height": size,
            "width": size,
            "channels": channels,
            "resize": "crop",
            "mean": [0.5] * channels,
            "std": [0.25] * channels,
        },
    }
    saved = bundle.save(folder / "model", content, network_of(architecture).state_dict(), NETWORKS_FOLDER)
    evaluation = Evaluation(explanations=count)
    return Judged(bundle.load(saved), data, datasets.open_arrays(data.path), evaluation, folder, ignore)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_has_a_figure(base: Path, tmp_path: Path, family: str) -> None:
    given = judged(base, tmp_path, FAMILIES[family], 2)
    test = given.arrays.split("test")
    classifier = cast(Classifier, given.scorer)  # of the code in the bundle
    probabilities = classifier.probabilities(test.batch(np.arange(len(test))))
    explaining.draw(given, probabilities)
    with Image.open(given.figures / "explanations.png") as image:
        assert image.width > 600
        image.load()


def test_no_explanations_are_drawn_when_none_are_asked_for(base: Path, tmp_path: Path) -> None:
    given = judged(base, tmp_path, FAMILIES["cnn"], 0)
    explaining.draw(given, np.full((len(given.arrays.split("test")), 3), 1 / 3))
    assert not given.figures.exists()
