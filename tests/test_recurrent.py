"""Recurrent networks read images in order, compute what their formulas say, and learn."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.freezing import Unfreezing, depth_groups, head_of, rate_factors
from lightning_modules.networks import Architecture, build_network
from lightning_modules.networks.cnn_rnn import ColumnReader
from lightning_modules.networks.rnn import ImageReader, Recurrence
from lightning_modules.training import NETWORKS_FOLDER, fit
from recognition import bundle
from recognition.defaults import resolve_model
from recognition.experiment import Data, Experiment, Model, Training
from recognition.preparation import prepare
from recognition.records import Policy, PreparedData

CELLS = ("lstm", "gru", "rnn")


def described(network: str, height: int = 12, width: int = 12, image_channels: int = 1, **more: Any) -> Architecture:
    return Architecture(network, 4, height, width, image_channels, **{"units": 16, "depth": 1} | more)


def reader(**more: Any) -> ImageReader:
    network = build_network(described("rnn", **more)).eval()
    assert isinstance(network, ImageReader)
    return network


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def weights_of(cell: nn.Module) -> list[np.ndarray]:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return [cell.get_parameter(name).detach().double().numpy() for name in names]


def lstm_by_hand(cell: nn.Module, steps: np.ndarray) -> np.ndarray:
    """Hochreiter and Schmidhuber's cell with Gers's forget gate, on one sequence (steps, features)."""
    reads, repeats, bias, more_bias = weights_of(cell)
    units = repeats.shape[1]
    hidden, memory = np.zeros(units), np.zeros(units)
    for step in steps:
        gates = reads @ step + bias + repeats @ hidden + more_bias
        enter, keep, candidate, show = np.split(gates, 4)
        memory = sigmoid(keep) * memory + sigmoid(enter) * np.tanh(candidate)
        hidden = sigmoid(show) * np.tanh(memory)
    return hidden


def gru_by_hand(cell: nn.Module, steps: np.ndarray) -> np.ndarray:
    """Cho et al.'s cell, as cuDNN has it: the reset gate acts behind the recurrent weights."""
    reads, repeats, bias, more_bias = weights_of(cell)
    hidden = np.zeros(repeats.shape[1])
    for step in steps:
        read, repeated = np.split(reads @ step + bias, 3), np.split(repeats @ hidden + more_bias, 3)
        reset, update = sigmoid(read[0] + repeated[0]), sigmoid(read[1] + repeated[1])
        hidden = (1 - update) * np.tanh(read[2] + reset * repeated[2]) + update * hidden
    return hidden


def rnn_by_hand(cell: nn.Module, steps: np.ndarray) -> np.ndarray:
    reads, repeats, bias, more_bias = weights_of(cell)
    hidden = np.zeros(repeats.shape[1])
    for step in steps:
        hidden = np.tanh(reads @ step + bias + repeats @ hidden + more_bias)
    return hidden


BY_HAND = {"lstm": lstm_by_hand, "gru": gru_by_hand, "rnn": rnn_by_hand}


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_computes_what_its_gates_say(cell: str, steps: int) -> None:
    torch.manual_seed(0)
    recurrence = Recurrence(3, 4, 1, cell, bidirectional=False, dropout=0.0)
    for parameter in recurrence.parameters():
        nn.init.normal_(parameter)
    sequence = torch.randn(2, steps, 3)
    found = recurrence(sequence).detach().numpy()
    expected = [BY_HAND[cell](recurrence.layers[0], one) for one in sequence.double().numpy()]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_second_layer_reads_what_the_first_says_and_the_backward_direction_starts_at_the_end() -> None:
    torch.manual_seed(0)
    recurrence = Recurrence(3, 4, 2, "lstm", bidirectional=True, dropout=0.0)
    sequence = torch.randn(1, 6, 3)
    first, second = recurrence.layers
    between, _ = first(sequence)
    _, (last, _) = second(between)
    assert torch.equal(recurrence(sequence), torch.cat([last[0], last[1]], dim=1))
    # a backward cell is a forward one that is given the sequence from its end
    backward = nn.LSTM(3, 4, batch_first=True)
    for name, parameter in backward.named_parameters():
        parameter.data = first.get_parameter(f"{name}_reverse").data
    from_the_end, _ = backward(sequence.flip(1))
    torch.testing.assert_close(between[..., 4:], from_the_end.flip(1))


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3), ("rnn", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_parameters_are_as_many_as_worked_out_by_hand(cell: str, gates: int, directions: int) -> None:
    network = build_network(
        described("rnn", 10, 12, 3, units=8, depth=2, cell=cell, bidirectional=directions == 2, dense=(5,))
    )
    # for each gate weights for what is read and what was said, and two biases
    first = directions * gates * (8 * 12 * 3 + 8 * 8 + 2 * 8)
    second = directions * gates * (8 * 8 * directions + 8 * 8 + 2 * 8)
    assert parameters(network) == first + second + 5 * (8 * directions + 1) + 4 * (5 + 1)


def test_a_convolutional_one_has_blocks_columns_and_an_output() -> None:
    network = build_network(described("cnn_rnn", 12, 20, 3, channels=(4, 6), units=8))
    blocks = 4 * 3 * 9 + 2 * 4 + 6 * 4 * 9 + 2 * 6
    # maps of 3 x 5: five columns of 6 channels of 3 pixels
    assert parameters(network) == blocks + 4 * (8 * 6 * 3 + 8 * 8 + 2 * 8) + 4 * (8 + 1)


def test_an_lstm_starts_by_forgetting_little() -> None:
    layer = Recurrence(3, 4, 1, "lstm", bidirectional=False, dropout=0.0).layers[0]
    bias = layer.get_parameter("bias_ih_l0") + layer.get_parameter("bias_hh_l0")
    assert bias.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


@pytest.mark.parametrize("cell", CELLS)
def test_each_gate_starts_with_orthogonal_steps(cell: str) -> None:
    layer = Recurrence(3, 6, 1, cell, bidirectional=True, dropout=0.0).layers[0]
    for name in ("weight_hh_l0", "weight_hh_l0_reverse"):
        for gate in layer.get_parameter(name).split(6):
            torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0)


def numbered(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.arange(channels * height * width, dtype=torch.float32).view(1, channels, height, width)


def test_rows_are_read_from_the_top_down_with_all_their_channels() -> None:
    steps = reader(height=3, width=4, image_channels=2).steps(numbered(2, 3, 4))
    assert steps.tolist() == [
        [[0, 1, 2, 3, 12, 13, 14, 15], [4, 5, 6, 7, 16, 17, 18, 19], [8, 9, 10, 11, 20, 21, 22, 23]]
    ]


def test_patches_are_read_as_a_page_is() -> None:
    steps = reader(height=4, width=6, patch_size=2).steps(numbered(1, 4, 6))
    assert steps.tolist() == [
        [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11], [12, 13, 18, 19], [14, 15, 20, 21], [16, 17, 22, 23]]
    ]


def test_columns_are_read_from_left_to_right() -> None:
    network = build_network(described("cnn_rnn", channels=(4,)))
    assert isinstance(network, ColumnReader)
    columns = network.columns(numbered(2, 2, 3))
    assert columns.tolist() == [[[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("row", [0, 11])
def test_both_directions_see_both_ends(cell: str, row: int) -> None:
    torch.manual_seed(0)
    network = reader(cell=cell, bidirectional=True)
    images = torch.randn(1, 1, 12, 12, requires_grad=True)
    known = network.recurrence(network.steps(images))
    assert known.shape == (1, 32)
    for direction in (known[:, :16], known[:, 16:]):
        (gradient,) = torch.autograd.grad(direction.sum(), images, retain_graph=True)
        assert gradient[0, 0, row].abs().max() > 0
    # what it says at the start has been read by the backward direction alone
    first = network.recurrence.layers[0](network.steps(images))[0][:, 0]
    (forward,) = torch.autograd.grad(first[:, :16].sum(), images, retain_graph=True)
    (backward,) = torch.autograd.grad(first[:, 16:].sum(), images)
    assert forward[0, 0, 11].abs().max() == 0
    assert backward[0, 0, 11].abs().max() > 0


NETWORKS: dict[str, dict[str, Any]] = {
    "rows": {"network": "rnn"},
    "patches": {"network": "rnn", "patch_size": 4, "dense": (16,)},
    "gru": {"network": "rnn", "cell": "gru", "bidirectional": True},
    "two simple layers": {"network": "rnn", "cell": "rnn", "depth": 2},
    "dropout": {"network": "rnn", "depth": 2, "units": 32, "dropout": 0.1},
    "columns": {"network": "cnn_rnn", "channels": (8, 16)},
    "columns both ways": {"network": "cnn_rnn", "channels": (8,), "bidirectional": True, "cell": "gru"},
}


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("batch", [1, 3])
def test_images_of_any_shape_become_one_row_of_logits_each(name: str, batch: int) -> None:
    network = build_network(described(height=8, width=12, image_channels=3, **NETWORKS[name])).eval()
    images = torch.randn(batch, 3, 8, 12)
    logits = network(images)
    assert logits.shape == (batch, 4)
    torch.testing.assert_close(network(images.contiguous(memory_format=torch.channels_last)), logits)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_one_learns_one_batch_by_heart(name: str) -> None:
    torch.manual_seed(0)
    network = build_network(described(**NETWORKS[name]))
    images, labels = torch.randn(12, 1, 12, 12), torch.arange(12) % 4
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(nn.functional.cross_entropy(network.eval()(images), labels)) < 0.02


@pytest.mark.parametrize("name", ["rows", "columns"])
def test_dropout_acts_in_training_only(name: str) -> None:
    network = build_network(described(**NETWORKS[name] | {"dropout": 0.5, "depth": 2}))
    images = torch.randn(4, 1, 12, 12)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_saved_one_answers_the_same_and_holds_no_pickle(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture = described(image_channels=3, **NETWORKS[name])
    network = build_network(architecture)
    network(torch.randn(8, 3, 12, 12))  # statistics that are not the first ones
    network.eval()
    content = {
        "task": "classification",
        "architecture": dataclasses.asdict(architecture),
        "class_names": ["a", "b", "c", "d"],
        "threshold": 0.5,
        "preprocessing": {
            **{"height": 12, "width": 12, "channels": 3, "resize": "crop"},
            **{"mean": [0.5] * 3, "std": [0.25] * 3},
        },
    }
    folder = bundle.save(tmp_path / "model", content, network.state_dict(), NETWORKS_FOLDER)
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = network((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25).softmax(dim=1)
    found = bundle.load_classifier(folder).probabilities(images)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors", ".py"}


def test_patches_that_do_not_divide_the_image_are_refused() -> None:
    message = r"patches of 5x5 pixels do not divide images of 12x18: set model.patch_size to one of 2, 3, 6, or data"
    with pytest.raises(ValueError, match=message):
        build_network(described("rnn", 12, 18, patch_size=5))
    with pytest.raises(ValueError, match=r"patches of 8x8 .* of 13x13: set data.image_size to a .* such as 16$"):
        build_network(described("rnn", 13, 13, patch_size=8))


def test_more_blocks_than_the_image_can_be_halved_are_refused() -> None:
    message = r"4 blocks, .* leave nothing of an image of 12x20 pixels: name at most 3 model.channels, or .*image_size"
    with pytest.raises(ValueError, match=message):
        build_network(described("cnn_rnn", 12, 20, channels=(4, 4, 4, 4)))
    network = build_network(described("cnn_rnn", 12, 20, channels=(4, 4, 4)))
    assert network(torch.randn(2, 1, 12, 20)).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "more", "stages"),
    [
        ("rows", {"depth": 3, "dense": (8, 8)}, ["recurrence"] * 3 + ["head"] * 3),
        ("rows", {}, ["recurrence", "head"]),
        ("columns", {"depth": 2}, ["blocks", "blocks", "recurrence", "recurrence", "head"]),
        ("columns", {}, ["blocks", "blocks", "recurrence", "head"]),
    ],
)
def test_layers_and_blocks_are_the_stages_of_transfer_learning(
    name: str, more: dict[str, Any], stages: list[str]
) -> None:
    network = build_network(described(**NETWORKS[name] | more))
    groups = depth_groups(network)
    owners = {id(parameter): key.partition(".")[0] for key, parameter in network.named_parameters()}
    found = [{owners[id(parameter)] for module in group for parameter in module.parameters()} for group in groups]
    assert found == [{stage} for stage in stages]
    held = [id(parameter) for group in groups for module in group for parameter in module.parameters()]
    assert sorted(held) == sorted(owners)
    assert groups[-1] == [head_of(network)]
    factors = rate_factors(network, 0.5)
    assert set(factors.values()) == {0.5**below for below in range(len(groups))}


def test_operations_of_recurrent_layers_are_counted(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text("[]")
    training = Training(epochs=1, batch_size=10_000, accelerator="cpu", loader_workers=0)
    experiment = Experiment(model=Model(network="rnn", width=4, depth=2), training=training)
    policy = Policy(path=path, preview=path, name="none", transforms=())
    result = fit(prepare(Data()), policy, experiment, tmp_path)
    # 8 rows of 8 pixels, four gates of 4 units in each layer, the output; a multiplication and an addition each
    assert result.flops == 2 * (8 * 16 * (8 + 4) + 8 * 16 * (4 + 4) + 4 * 10)


def test_a_frozen_layer_does_not_move() -> None:
    torch.manual_seed(0)
    network = build_network(described("cnn_rnn", channels=(4, 8), depth=2))
    plan = Unfreezing(network, staged=True, first_epoch=1)
    plan.apply(1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    nn.functional.cross_entropy(network(torch.randn(8, 1, 12, 12)), torch.arange(8) % 4).backward()
    optimizer.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[0] for name in moved} == {"recurrence.layers.1", "head.1"}


def data(side: int) -> PreparedData:
    nothing = Path("unused")
    return PreparedData(
        **{"path": nothing, "images": nothing, "digest": "", "test_digest": "", "source": ""},
        **{"class_names": ("a", "b", "c"), "height": side, "width": side, "channels": 1, "counts": {}},
        **{"class_counts": {}, "mean": (0.5,), "std": (0.25,)},
    )


@pytest.mark.parametrize("side", [2, 3, 8, 13, 28, 32, 64, 128, 224, 512])
@pytest.mark.parametrize("network", ["rnn", "cnn_rnn"])
def test_what_is_left_open_fits_every_size(network: str, side: int) -> None:
    resolved = resolve_model(Model(network=network), data(side))
    assert (resolved.width, resolved.depth) == (128, 1)
    built = build_network(
        Architecture(network, 3, side, side, 1, channels=resolved.channels, units=resolved.width, depth=resolved.depth)
    )
    assert parameters(built) < 1_500_000
    assert built.eval()(torch.zeros(1, 1, side, side)).shape == (1, 3)


def test_a_network_built_without_sizes_is_the_one_that_auto_stands_for() -> None:
    for network in ("rnn", "cnn_rnn"):
        resolved = resolve_model(Model(network=network), data(28))
        sizes = {"channels": resolved.channels, "units": resolved.width, "depth": resolved.depth}
        alone, fitted = Architecture(network, 3, 28, 28, 1), Architecture(network, 3, 28, 28, 1, **sizes)
        assert str(build_network(alone)) == str(build_network(fitted))
