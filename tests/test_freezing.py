"""Networks are frozen and thawed by depth, and what is frozen does not move."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from lightning_modules.freezing import Unfreezing, depth_groups, head_of, rate_factors
from lightning_modules.networks import Architecture, build_network

CNN = Architecture("cnn", 4, 16, 16, 3, channels=(8, 8, 8), pooled_blocks=2, dense=(16, 16), dropout=0.5)
STAGES = {
    # three blocks, two dense layers, the output
    "cnn": 6,
    # first convolution, its normalisation, four times two blocks, the output
    "torchvision/resnet18": 11,
    "timm/resnet18": 11,
    # 13 feature blocks, a dense layer, the output
    "torchvision/mobilenet_v3_small": 15,
    # patches, 12 layers, normalisation, the output
    "torchvision/vit_b_16": 15,
    "timm/vit_tiny_patch16_224": 15,
    # the stem's convolution and normalisation, four stages, the head's normalisation, the output
    "timm/convnext_tiny": 8,
    # two stacks of a first convolution and eight squeeze-and-expand blocks, the output
    "torchvision/squeezenet1_1": 10,
    # the stem's convolution and normalisation, a trunk of four stages, the output
    "torchvision/regnet_y_400mf": 7,
}
FREE = {
    "torchvision/vit_b_16": {"class_token", "encoder.pos_embedding"},
    "timm/vit_tiny_patch16_224": {"cls_token", "pos_embed"},
}


def build(name: str) -> nn.Module:
    if name == "cnn":
        return build_network(CNN)
    described = Architecture(name, 4, 224, 224, 3)
    if "regnet" in name:  # reads values while it is built
        return build_network(described)
    with torch.device("meta"):
        return build_network(described)


@pytest.mark.parametrize("name", list(STAGES))
def test_every_parameter_belongs_to_one_stage_and_the_head_is_last(name: str) -> None:
    network = build(name)
    groups = depth_groups(network)
    assert len(groups) == STAGES[name]
    counted = Counter(id(parameter) for group in groups for module in group for parameter in module.parameters())
    assert set(counted.values()) == {1}
    free = {key for key, parameter in network.named_parameters() if id(parameter) not in counted}
    assert free == FREE.get(name, set())
    assert groups[-1] == [head_of(network)]
    assert [parameter.shape[0] for parameter in groups[-1][0].parameters()] == [4, 4]


@pytest.mark.parametrize(
    "name", ["cnn", "torchvision/resnet18", "torchvision/mobilenet_v3_small", "timm/vit_tiny_patch16_224"]
)
def test_stages_follow_each_other_from_the_input_on(name: str) -> None:
    network = build(name)
    order = {id(parameter): number for number, parameter in enumerate(network.parameters())}
    groups = depth_groups(network)
    firsts = [min(order[id(parameter)] for module in group for parameter in module.parameters()) for group in groups]
    assert firsts == sorted(firsts)


def test_a_network_without_an_output_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="Sequential has no layer that could be its head"):
        head_of(nn.Sequential(nn.ReLU()))


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def step(network: nn.Module) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 0.1, weight_decay=0.1)
    labels = torch.arange(8) % 4
    nn.functional.cross_entropy(network(torch.randn(8, 3, 16, 16)), labels).backward()
    optimizer.step()


@pytest.mark.parametrize("learning", [1, 2, 4, 6])
def test_frozen_weights_and_batch_statistics_do_not_move(learning: int) -> None:
    network = build_network(CNN)
    plan = Unfreezing(network, staged=True, first_epoch=1)
    plan.apply(learning - 1)
    before = state(network)
    step(network)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    prefixes = ["blocks.0", "blocks.1", "blocks.2", "head.0", "head.1", "head.2"]
    expected = set(prefixes[6 - learning :])
    assert {next(prefix for prefix in prefixes if name.startswith(prefix)) for name in moved} == expected
    # all that a learning block holds moves, its statistics too
    assert moved == {name for name in before if name.startswith(tuple(expected))}


def test_a_frozen_backbone_draws_no_dropout_but_the_head_does() -> None:
    network = build_network(CNN)
    Unfreezing(network, staged=False, first_epoch=0).apply(0)
    dropouts = [module.training for module in network.modules() if isinstance(module, nn.Dropout)]
    assert dropouts == [False, False]  # those of the two dense layers, which are frozen
    shallow = build_network(Architecture("cnn", 4, 16, 16, 3, channels=(8,), dropout=0.5))
    Unfreezing(shallow, staged=False, first_epoch=0).apply(0)
    assert [module.training for module in shallow.modules() if isinstance(module, nn.Dropout)] == [True]
    images = torch.randn(2, 3, 16, 16)
    assert not torch.equal(shallow(images), shallow(images))


def test_staged_thawing_adds_one_stage_an_epoch() -> None:
    from_the_first = Unfreezing(build_network(CNN), staged=True, first_epoch=0)
    assert [from_the_first.trainable_groups(epoch) for epoch in range(7)] == [2, 3, 4, 5, 6, 6, 6]
    later = Unfreezing(build_network(CNN), staged=True, first_epoch=2)
    assert [later.trainable_groups(epoch) for epoch in range(8)] == [1, 1, 2, 3, 4, 5, 6, 6]


def test_a_backbone_thaws_at_its_epoch_or_never() -> None:
    later = Unfreezing(build_network(CNN), staged=False, first_epoch=2)
    assert [later.trainable_groups(epoch) for epoch in range(4)] == [1, 1, 6, 6]
    never = Unfreezing(build_network(CNN), staged=False, first_epoch=0)
    assert {never.trainable_groups(epoch) for epoch in range(100)} == {1}


def test_thawed_again_everything_learns_and_counts_statistics() -> None:
    network = build("timm/vit_tiny_patch16_224")
    plan = Unfreezing(network, staged=False, first_epoch=3)
    plan.apply(0)
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning == {"head.weight", "head.bias"}
    plan.apply(3)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(module.training for module in network.modules())


def test_each_stage_learns_slower_than_the_one_above_it() -> None:
    network = build_network(CNN)
    factors = rate_factors(network, 0.5)
    by_name = {name: factors[id(parameter)] for name, parameter in network.named_parameters()}
    assert by_name["head.2.weight"] == by_name["head.2.bias"] == 1.0
    assert by_name["head.1.0.weight"] == 0.5
    assert by_name["head.0.0.weight"] == 0.25
    assert by_name["blocks.2.0.weight"] == by_name["blocks.2.1.bias"] == 0.125
    assert by_name["blocks.0.0.weight"] == 0.5**5
    assert set(rate_factors(network, 1.0).values()) == {1.0}


@pytest.mark.parametrize("name", ["torchvision/vit_b_16", "timm/vit_tiny_patch16_224"])
def test_tokens_and_positions_learn_slowest(name: str) -> None:
    network = build(name)
    factors = rate_factors(network, 0.9)
    assert len(factors) == len(list(network.parameters()))
    slowest = {key for key, parameter in network.named_parameters() if factors[id(parameter)] == min(factors.values())}
    assert slowest == FREE[name]
