"""Low-rank adapters learn beside frozen weights, and are gone when the model is saved."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sample_images import folder_of
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from lightning_modules.adapters import Adapters, check, layers_to_adapt, merged
from lightning_modules.networks import Architecture, build_network
from lightning_modules.preflight import check as check_experiment
from lightning_modules.training import architecture_of, fit
from recognition import bundle, datasets
from recognition.errors import ConfigurationError
from recognition.experiment import Data, Experiment, Model, Training
from recognition.preparation import prepare
from recognition.records import Policy, PreparedData, TrainedModel

VIT = Architecture("timm/vit_tiny_patch16_224", 4, 32, 32, 3)
CNN = Architecture("cnn", 4, 16, 16, 3, channels=(8, 8), pooled_blocks=2, dense=(12, 10), dropout=0.5)
RESNET = Architecture("timm/resnet18", 4, 32, 32, 3)
OURS = Architecture("vit", 4, 32, 32, 3, units=16, depth=2, heads=2, patch_size=8)
EVERY = [VIT, OURS, CNN, RESNET]
RANK = 2

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs the extra adapters")


def build(architecture: Architecture) -> nn.Module:
    torch.manual_seed(0)
    return build_network(architecture)


def images_of(architecture: Architecture, count: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, architecture.height, architecture.width)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def by_name(architecture: Architecture) -> str:
    return architecture.network.replace("/", "-")


# which layers


def test_attention_and_dense_layers_are_adapted_but_not_the_head() -> None:
    names = layers_to_adapt(build(VIT), VIT)
    per_block = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert names == [f"blocks.{number}.{layer}" for number in range(12) for layer in per_block]
    ours = ("attention.query_key_value", "attention.output", "dense.0", "dense.3")
    assert layers_to_adapt(build(OURS), OURS) == [f"blocks.{number}.{layer}" for number in range(2) for layer in ours]
    assert layers_to_adapt(build(CNN), CNN) == ["head.0.0", "head.1.0"]


def test_of_convolutions_those_without_a_neighbourhood_are_adapted() -> None:
    assert layers_to_adapt(build(RESNET), RESNET) == [f"layer{number}.0.downsample.0" for number in (2, 3, 4)]


def test_layers_that_are_never_called_are_left_alone() -> None:
    small = {"image_size": 32, "patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    network = VisionTransformer(**small)
    names = layers_to_adapt(network, VIT)
    # nn.MultiheadAttention multiplies with the weights of its out_proj itself
    assert any(name.endswith("out_proj") for name, _ in network.named_modules())
    assert names == [f"encoder.layers.encoder_layer_{block}.mlp.{layer}" for block in (0, 1) for layer in (0, 3)]


@needs_peft
def test_a_network_without_such_layers_is_refused_by_name() -> None:
    plain = Architecture("cnn", 4, 16, 16, 3, channels=(8, 8), pooled_blocks=2)
    with pytest.raises(ConfigurationError, match=r"model\.adapter_rank=2: cnn has no linear layer .* set it to 0"):
        Adapters(build(plain), plain, RANK)


# what they do


@needs_peft
@pytest.mark.parametrize("architecture", EVERY, ids=by_name)
def test_before_training_the_network_answers_as_it_did(architecture: Architecture) -> None:
    network = build(architecture).eval()
    images = images_of(architecture)
    with torch.inference_mode():
        before = network(images)
        Adapters(network, architecture, RANK)
        torch.testing.assert_close(network.eval()(images), before, rtol=0, atol=0)


@needs_peft
@pytest.mark.parametrize("architecture", EVERY, ids=by_name)
def test_only_adapters_and_head_get_gradients(architecture: Architecture) -> None:
    network = build(architecture)
    Adapters(network, architecture, RANK)
    network(images_of(architecture)).square().sum().backward()
    learning = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    adapters = {name for name, _ in network.named_parameters() if ".lora_" in name}
    head = learning - adapters
    assert adapters <= learning
    assert {network.get_parameter(name).shape[0] for name in head} == {4}
    assert len(head) == 2


@needs_peft
def test_parameters_are_counted_by_hand() -> None:
    network = build(VIT)
    plain = sum(parameter.numel() for parameter in network.parameters())
    Adapters(network, VIT, RANK)
    # rank x (in + out) of qkv, proj, fc1 and fc2 of width 192, in 12 blocks
    expected = 12 * RANK * ((192 + 576) + (192 + 192) + (192 + 768) + (768 + 192))
    assert sum(parameter.numel() for parameter in network.parameters()) - plain == expected
    head = 4 * 192 + 4
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == expected + head


def learn(network: nn.Module, architecture: Architecture, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 0.01, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images_of(architecture, 4)), torch.arange(4)).backward()
        optimizer.step()


@needs_peft
@pytest.mark.parametrize("architecture", EVERY, ids=by_name)
def test_the_plain_network_with_merged_weights_answers_as_the_adapted_one(architecture: Architecture) -> None:
    network = build(architecture)
    start = state(network)
    Adapters(network, architecture, RANK).apply()
    learn(network, architecture)
    network.eval()
    weights = merged(network.state_dict())
    plain = build(architecture).eval()
    plain.load_state_dict(weights)
    images = images_of(architecture)
    with torch.inference_mode():
        torch.testing.assert_close(plain(images), network(images), rtol=1e-5, atol=1e-5)
    adapted = {f"{name}.weight" for name in layers_to_adapt(plain, architecture)}
    moved = {name for name in weights if not torch.equal(weights[name], start[name])}
    head = moved - adapted
    assert adapted <= moved
    assert {name.rpartition(".")[2] for name in head} == {"weight", "bias"}
    assert len(head) == 2
    for name in adapted:
        difference = (weights[name] - start[name]).flatten(1)
        assert torch.linalg.matrix_rank(difference, rtol=1e-3) <= RANK


@needs_peft
def test_frozen_weights_and_batch_statistics_do_not_move() -> None:
    network = build(RESNET)
    start = state(network)
    Adapters(network, RESNET, RANK).apply()
    learn(network, RESNET)
    after = network.state_dict()
    for name, value in start.items():
        layer, _, kind = name.rpartition(".")
        kept = after.get(name, after.get(f"{layer}.base_layer.{kind}"))
        assert kept is not None
        assert torch.equal(kept, value) != name.startswith("fc."), name


def test_plain_weights_are_merged_into_themselves() -> None:
    weights = build(CNN).state_dict()
    again = merged(weights)
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_merging_adds_the_product_of_the_factors() -> None:
    weights = {
        "fc.base_layer.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "fc.base_layer.bias": torch.tensor([5.0, 6.0]),
        "fc.lora_A.default.weight": torch.tensor([[1.0, 2.0]]),
        "fc.lora_B.default.weight": torch.tensor([[10.0], [100.0]]),
        "head.weight": torch.tensor([[7.0, 8.0]]),
    }
    assert {name: value.tolist() for name, value in merged(weights).items()} == {
        "fc.weight": [[11.0, 20.0], [100.0, 201.0]],
        "fc.bias": [5.0, 6.0],
        "head.weight": [[7.0, 8.0]],
    }


# through the training stage


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("adapters")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(folder / "state"))
        return prepare(Data(source=str(folder_of(folder / "pets", "cat", "dog", "owl", count=12))))


def trained(data: PreparedData, folder: Path, model: dict[str, Any], training: dict[str, Any]) -> TrainedModel:
    experiment = Experiment(
        data=Data(source=data.source),
        model=Model(**model),
        training=Training(**{"epochs": 2, "accelerator": "cpu", "learning_rate": 0.05, **training}),
    )
    policy = Policy(path=folder / "policy.json", preview=folder, name="none", transforms=())
    return fit(data, policy, experiment, folder)


@needs_peft
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_model_is_saved_without_adapters_and_scores_as_it_was_validated(
    pets: PreparedData, tmp_path: Path, ema: float
) -> None:
    model = {"channels": (6, 8), "dense": (16,)}
    architecture = architecture_of(Model(**model), pets)
    start = build(architecture).state_dict()
    save_file(start, tmp_path / "start.safetensors")
    result = trained(
        pets,
        tmp_path / "run",
        {**model, "weights": str(tmp_path / "start.safetensors"), "adapter_rank": 3},
        {"ema_decay": ema},
    )
    weights = load_file(result.bundle / "weights.safetensors")
    assert weights.keys() == start.keys()
    moved = {name for name in start if not torch.equal(weights[name], start[name])}
    assert moved == {"head.0.0.weight", "head.1.weight", "head.1.bias"}
    assert result.parameters == sum(parameter.numel() for parameter in build(architecture).parameters())
    split = datasets.open_arrays(pets.path).split("val")
    probabilities = bundle.load_classifier(result.bundle).probabilities(split.batch(np.arange(len(split))))
    loss = -np.log(probabilities[np.arange(len(split)), split.labels]).mean()
    assert loss == pytest.approx(result.history["val/loss"][result.best_epoch], rel=1e-4)


@pytest.mark.parametrize("freeze", ["backbone", "staged"])
def test_a_backbone_that_is_frozen_in_another_way_too_is_refused(freeze: str) -> None:
    experiment = Experiment(model=Model(adapter_rank=4), training=Training(freeze=freeze))
    with pytest.raises(ConfigurationError, match=rf"training\.freeze={freeze} has nothing left to say"):
        check_experiment(experiment)


def test_adapters_of_another_task_than_classification_are_refused() -> None:
    experiment = Experiment(model=Model(network="unet", adapter_rank=4))
    with pytest.raises(ConfigurationError, match=r"model\.adapter_rank=4 is for classifiers, not for segmentation"):
        check_experiment(experiment)


def test_without_peft_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"needs peft, which is not installed: uv pip install .*\[adapters\]"):
        check(4, "classification", Training())
    check(0, "segmentation", Training(freeze="staged"))
