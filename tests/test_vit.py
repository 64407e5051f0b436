"""The Vision Transformer computes what its papers say, learns, travels, and shows what it attends to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.evaluation import evaluate
from lightning_modules.evaluations.attention import class_attention
from lightning_modules.freezing import Unfreezing, depth_groups, head_of, rate_factors
from lightning_modules.networks import Architecture, build_network
from lightning_modules.networks.vit import SelfAttention, VisionTransformer, sinusoidal_positions
from lightning_modules.training import NETWORKS_FOLDER, fit
from recognition import bundle
from recognition.attention_figures import attention_maps
from recognition.defaults import resolve_model
from recognition.errors import ConfigurationError
from recognition.experiment import Data, Evaluation, Experiment, Model, Training
from recognition.preparation import prepare
from recognition.records import Policy, PreparedData, TrainedModel


def described(side: int = 12, image_channels: int = 1, **more: Any) -> Architecture:
    sizes = {"units": 16, "depth": 2, "heads": 2, "patch_size": 4}
    return Architecture("vit", 4, side, side, image_channels, **sizes | more)


def vit(**more: Any) -> VisionTransformer:
    network = build_network(described(**more)).eval()
    assert isinstance(network, VisionTransformer)
    return network


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def dense(incoming: int, outgoing: int) -> int:
    return outgoing * (incoming + 1)


@pytest.mark.parametrize(("units", "heads"), [(16, 1), (16, 4), (24, 3)])
def test_attention_is_that_of_torch(units: int, heads: int) -> None:
    torch.manual_seed(0)
    ours = SelfAttention(units, heads, dropout=0.0).eval()
    reference = nn.MultiheadAttention(units, heads, batch_first=True).eval()
    reference.in_proj_weight.data = ours.query_key_value.weight.data
    reference.in_proj_bias.data = ours.query_key_value.bias.data
    reference.out_proj.weight.data = ours.output.weight.data
    reference.out_proj.bias.data = ours.output.bias.data
    tokens = torch.randn(3, 7, units)
    expected, weights = reference(tokens, tokens, tokens, average_attn_weights=False)
    torch.testing.assert_close(ours(tokens), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.weights(tokens), weights, atol=1e-5, rtol=0)


def test_a_block_is_that_of_torchs_encoder() -> None:
    torch.manual_seed(0)
    block = vit().blocks[0]
    reference = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True, norm_first=True).eval()
    theirs = {"attention_norm": "norm1", "dense_norm": "norm2", "dense.0": "linear1", "dense.3": "linear2"}
    theirs |= {"attention.output": "self_attn.out_proj"}
    state = {
        f"{other}.{kind}": block.state_dict()[f"{ours}.{kind}"]
        for ours, other in theirs.items()
        for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias"):
        state[f"self_attn.in_proj_{kind}"] = block.state_dict()[f"attention.query_key_value.{kind}"]
    reference.load_state_dict(state)
    tokens = torch.randn(3, 7, 16)
    torch.testing.assert_close(block(tokens), reference(tokens), atol=1e-5, rtol=0)


def test_a_patch_becomes_the_same_token_wherever_it_lies() -> None:
    torch.manual_seed(0)
    network = vit(image_channels=3)
    images = torch.randn(2, 3, 12, 12)
    tokens = network.tokens(images) - network.positions
    assert tokens.shape == (2, 1 + 3 * 3, 16)
    assert torch.equal(tokens[0, 0], tokens[1, 0])
    linear = network.patches.weight.flatten(1)
    for row, column in ((0, 0), (0, 2), (1, 0), (2, 1)):
        patch = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten(1)
        expected = patch @ linear.T + network.patches.bias
        torch.testing.assert_close(tokens[:, 1 + 3 * row + column], expected, atol=1e-5, rtol=0)


def test_sinusoidal_positions_follow_their_formula() -> None:
    positions = sinusoidal_positions(2, 3, 8)
    assert positions.shape == (7, 8)
    assert positions[0].tolist() == [0.0] * 8
    for row in range(2):
        for column in range(3):
            slow_row, slow_column = row / 10_000 ** (1 / 2), column / 10_000 ** (1 / 2)
            expected = [math.sin(row), math.sin(slow_row), math.cos(row), math.cos(slow_row)]
            expected += [math.sin(column), math.sin(slow_column), math.cos(column), math.cos(slow_column)]
            assert positions[1 + 3 * row + column].tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(vit(positions="sinusoidal").positions, sinusoidal_positions(3, 3, 16))


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_parameters_are_as_many_as_worked_out_by_hand(positions: str) -> None:
    network = vit(side=28, units=64, depth=4, heads=2, positions=positions)
    tokens = 1 + 7 * 7
    block = 2 * 2 * 64 + dense(64, 3 * 64) + dense(64, 64) + dense(64, 128) + dense(128, 64)
    embedding = dense(4 * 4, 64) + 64 + (tokens * 64 if positions == "learned" else 0)
    assert parameters(network) == embedding + 4 * block + 2 * 64 + dense(64, 4)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_attention_of_every_block_sums_to_one_for_every_token(heads: int, positions: str) -> None:
    torch.manual_seed(0)
    network = vit(heads=heads, depth=3, positions=positions)
    weights = network.attention(torch.randn(2, 1, 12, 12))
    assert weights.shape == (2, 3, heads, 10, 10)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=4), torch.ones(2, 3, heads, 10), atol=1e-6, rtol=0)


def test_attention_weights_are_those_of_the_forward_pass() -> None:
    torch.manual_seed(0)
    network = vit()
    images = torch.randn(2, 1, 12, 12)
    weights = network.attention(images)
    tokens = network.tokens(images)
    for number, block in enumerate(network.blocks):
        normed = block.attention_norm(tokens)
        values = block.attention.query_key_value(normed)[..., 32:].unflatten(2, (2, 8)).transpose(1, 2)
        taken = (weights[:, number] @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(block.attention(normed), block.attention.output(taken), atol=1e-5, rtol=0)
        tokens = block(tokens)
    torch.testing.assert_close(network(images), network.head(network.norm(tokens)[:, 0]))


VITS: dict[str, dict[str, Any]] = {
    "learned": {},
    "sinusoidal": {"positions": "sinusoidal"},
    "small patches": {"patch_size": 2, "heads": 4},
    "dropout": {"dropout": 0.1},
}


@pytest.mark.parametrize("name", list(VITS))
def test_every_one_learns_one_batch_by_heart(name: str) -> None:
    torch.manual_seed(0)
    network = build_network(described(**VITS[name]))
    images, labels = torch.randn(12, 1, 12, 12), torch.arange(12) % 4
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(nn.functional.cross_entropy(network.eval()(images), labels)) < 0.02


def test_images_need_not_be_square() -> None:
    network = build_network(Architecture("vit", 4, 8, 12, 3, units=16, depth=1, heads=2, patch_size=4)).eval()
    assert network(torch.randn(2, 3, 8, 12)).shape == (2, 4)
    assert network.attention(torch.randn(2, 3, 8, 12)).shape == (2, 1, 2, 7, 7)  # type: ignore[operator]  # a method


def test_dropout_acts_in_training_only() -> None:
    network = vit(dropout=0.5).train()
    images = torch.randn(2, 1, 12, 12)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def saved(folder: Path, architecture: Architecture, network: nn.Module) -> Path:
    side = architecture.height
    preprocessing = {"height": side, "width": side, "channels": 3, "resize": "crop", "mean": [0.5] * 3}
    content = {
        "task": "classification",
        "architecture": dataclasses.asdict(architecture),
        "class_names": ["a", "b", "c", "d"],
        "threshold": 0.5,
        "preprocessing": preprocessing | {"std": [0.25] * 3},
    }
    return bundle.save(folder, content, network.state_dict(), NETWORKS_FOLDER)


@pytest.mark.parametrize("name", list(VITS))
def test_a_saved_one_answers_and_attends_the_same_and_holds_no_pickle(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture = described(image_channels=3, **VITS[name])
    network = build_network(architecture).eval()
    folder = saved(tmp_path / "model", architecture, network)
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)
    normalised = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    with torch.inference_mode():
        expected = network(normalised).softmax(dim=1)
    classifier = bundle.load_classifier(folder)
    np.testing.assert_allclose(classifier.probabilities(images), expected.numpy(), atol=1e-6)
    ours, loaded = class_attention(network, normalised), class_attention(classifier.network, normalised)
    assert ours is not None
    assert loaded is not None
    np.testing.assert_allclose(loaded, ours, atol=1e-6)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors", ".py"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"patch_size": 5},
            r"patches of 5x5 pixels do not divide images of 12x12: set model.patch_size to one of 2, 3, 4, 6, or",
        ),
        ({"patch_size": 24}, r"patches of 24x24 .* of 12x12: .*, or data.image_size to a multiple of 24, such as 24"),
        ({"heads": 3}, r"3 heads do not divide a width of 16: set model.heads to one of 1, 2, 4, 8, 16"),
        (
            {"units": 18, "positions": "sinusoidal"},
            r"sinusoidal positions need a width of four parts, not 18: set model.width to 20, or model.positions=lea",
        ),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused_with_the_fix(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network(described(**more))


def data(height: int, width: int = 0) -> PreparedData:
    nothing = Path("unused")
    return PreparedData(
        **{"path": nothing, "images": nothing, "digest": "", "test_digest": "", "source": ""},
        **{"class_names": ("a", "b", "c"), "height": height, "width": width or height, "channels": 1, "counts": {}},
        **{"class_counts": {}, "mean": (0.5,), "std": (0.25,)},
    )


@pytest.mark.parametrize(
    ("side", "patch_size", "width", "depth"),
    [
        *[(8, 1, 64, 4), (12, 2, 64, 4), (13, 1, 64, 4), (28, 4, 64, 4), (32, 4, 64, 4), (64, 8, 64, 4)],
        *[(96, 12, 64, 4), (128, 16, 64, 4), (224, 16, 192, 6)],
    ],
)
def test_what_is_left_open_gives_about_64_patches_or_196_of_large_images(
    side: int, patch_size: int, width: int, depth: int
) -> None:
    resolved = resolve_model(Model(network="vit"), data(side))
    assert (resolved.patch_size, resolved.width, resolved.depth) == (patch_size, width, depth)
    assert resolved.heads == width // 32


def test_what_is_said_stays_and_the_rest_fits_it() -> None:
    resolved = resolve_model(Model(network="vit", width=80, patch_size=7), data(28))
    assert (resolved.width, resolved.heads, resolved.patch_size, resolved.depth) == (80, 2, 7, 4)
    assert resolve_model(Model(network="vit", width=100, heads=5), data(28)).heads == 5


def test_an_image_that_no_patches_divide_is_refused_with_a_size_that_they_do() -> None:
    with pytest.raises(ConfigurationError, match=r"divide images of 97x97 pixels: set data.image_size to 96, or model"):
        resolve_model(Model(network="vit"), data(97))
    assert resolve_model(Model(network="vit"), data(96)).patch_size == 12


def test_a_network_built_without_sizes_is_the_one_that_auto_stands_for() -> None:
    resolved = resolve_model(Model(network="vit"), data(28))
    sizes = {"patch_size": resolved.patch_size, "units": resolved.width, "depth": resolved.depth}
    fitted = Architecture("vit", 3, 28, 28, 1, heads=resolved.heads, **sizes)
    assert str(build_network(Architecture("vit", 3, 28, 28, 1))) == str(build_network(fitted))


def test_patches_blocks_and_norm_are_the_stages_of_transfer_learning() -> None:
    network = vit(depth=3)
    groups = depth_groups(network)
    assert [module for group in groups for module in group] == [
        *(network.patches, *network.blocks, network.norm, head_of(network)),
    ]
    assert head_of(network) is network.head
    factors = rate_factors(network, 0.5)
    by_name = {name: factors[id(parameter)] for name, parameter in network.named_parameters()}
    assert by_name["head.weight"] == 1.0
    assert by_name["blocks.2.attention.output.weight"] == 0.25
    assert by_name["patches.weight"] == 0.5**5
    assert {name for name, factor in by_name.items() if factor == 0.5**6} == {"class_token", "positions"}


def test_class_token_and_positions_stay_while_anything_is_frozen() -> None:
    network = vit(depth=2)
    plan = Unfreezing(network, staged=True, first_epoch=1)
    learning = []
    for epoch in range(5):
        plan.apply(epoch)
        learning.append({name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad})
    assert learning[0] == {"head"}
    assert learning[1] == {"norm", "head"}
    assert learning[3] == {"blocks", "norm", "head"}
    assert learning[4] == {"class_token", "positions", "patches", "blocks", "norm", "head"}


def test_the_class_tokens_attention_lies_on_the_patches_as_the_image_does() -> None:
    torch.manual_seed(0)
    network = build_network(Architecture("vit", 4, 8, 12, 1, units=16, depth=2, heads=2, patch_size=4)).eval()
    assert isinstance(network, VisionTransformer)
    images = torch.randn(3, 1, 8, 12)
    maps = class_attention(network, images)
    assert maps is not None
    assert maps.shape == (3, 2, 2, 3)
    last = network.attention(images)[:, -1].detach().numpy()
    np.testing.assert_allclose(maps[1, 0, 1, 2], last[1, 0, 0, 6], atol=1e-7)
    # the rest is what it takes from itself
    np.testing.assert_allclose(maps.sum(axis=(2, 3)) + last[:, :, 0, 0], 1, atol=1e-6)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedData]:
    folder = tmp_path_factory.mktemp("vit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(folder / "state"))
        yield prepare(Data())


def fitted(data: PreparedData, folder: Path, **model: Any) -> TrainedModel:
    path = folder / "policy.json"
    path.write_text("[]")
    policy = Policy(path=path, preview=path, name="none", transforms=())
    training = Training(epochs=1, accelerator="cpu", loader_workers=0)
    return fit(data, policy, Experiment(model=Model(**model), training=training), folder)


def test_its_evaluation_shows_attention_maps(digits: PreparedData, tmp_path: Path) -> None:
    model = fitted(digits, tmp_path, network="vit", width=32, depth=2, patch_size=2)
    shown, hidden = tmp_path / "shown", tmp_path / "hidden"
    for folder, explanations in ((shown, 1), (hidden, 0)):
        evaluate(digits, model.bundle, Evaluation(explanations=explanations), folder, accelerator="cpu")
    assert (shown / "figures" / "attention_maps.png").read_bytes().startswith(b"\x89PNG")
    assert not (hidden / "figures" / "attention_maps.png").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"network": "vit", "patch_size": 3}, r"model.network: patches of 3x3 .* images of 8x8: set model.patch_size"),
        ({"network": "rnn", "patch_size": 16}, r"model.network: patches of 16x16 .* of 8x8: .* 16, such as 16\.$"),
        ({"network": "vit", "heads": 7}, r"model.network: 7 heads do not divide a width of 64: set model.heads"),
        ({"network": "cnn_rnn", "channels": (4,) * 4}, r"model.network: 4 blocks, .* at most 3 model.channels"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    digits: PreparedData, tmp_path: Path, model: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fitted(digits, tmp_path, **model)


@pytest.mark.parametrize(
    ("network", "side", "shape"),
    [
        ("timm/vit_tiny_patch16_224", 48, (2, 3, 3, 3)),
        ("timm/deit_tiny_distilled_patch16_224", 32, (2, 3, 2, 2)),
        ("timm/resnet18", 32, None),
        ("timm/swin_tiny_patch4_window7_224", 56, None),
        ("cnn", 12, None),
        ("rnn", 12, None),
    ],
)
def test_which_networks_have_attention_maps(network: str, side: int, shape: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    built = build_network(Architecture(network, 4, side, side, 3, channels=(4,), units=8)).eval()
    maps = class_attention(built, torch.randn(2, 3, side, side))
    assert (None if maps is None else maps.shape) == shape
    if maps is not None:
        assert 0 < maps.sum(axis=(2, 3)).max() < 1


@pytest.mark.parametrize(("channels", "heads", "count"), [(1, 2, 3), (3, 16, 1)])
def test_attention_maps_are_drawn(channels: int, heads: int, count: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 12, 18, channels), dtype=np.uint8)
    attention = generator.random((count, heads, 2, 3), dtype=np.float32)
    path = tmp_path / "figures" / "attention_maps.png"
    attention_maps(images, attention, ["$1 bag", "a shoe of many words", "c"][:count], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="do not fit each other"):
        attention_maps(images, attention, ["a"] * (count + 1), path)


@pytest.mark.parametrize(
    ("network", "side"),
    [
        ("timm/vit_tiny_patch16_224", 32),
        ("timm/deit3_small_patch16_224", 48),
        ("timm/vit_small_patch8_224", 28 * 2),
        ("timm/swin_tiny_patch4_window7_224", 64),
        ("timm/swinv2_tiny_window8_256", 64),
        ("timm/swin_tiny_patch4_window7_224", 224),
        ("timm/convnext_atto", 32),
        ("timm/convnextv2_tiny", 64),
        ("torchvision/vit_b_16", 224),
        ("torchvision/swin_t", 32),
        ("torchvision/convnext_tiny", 32),
    ],
)
def test_transformers_and_convnexts_of_the_libraries_are_built_by_name(network: str, side: int) -> None:
    with torch.device("meta"):
        built = build_network(Architecture(network, 5, side, side, 1)).eval()
        assert built(torch.zeros(2, 1, side, side)).shape == (2, 5)
    assert head_of(built) in depth_groups(built)[-1]
