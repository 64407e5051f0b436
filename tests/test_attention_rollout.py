"""Attention rollout is the product of its paper, for our Vision Transformer, timm's and torchvision's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.attention_rollout import attention_of, attention_rollout, rollout
from lightning_modules.networks import Architecture, build_network

SIZE = 32


def network_of(name: str, **more: int) -> nn.Module:
    torch.manual_seed(0)
    return build_network(Architecture(name, 3, SIZE, SIZE, 3, **more)).eval()  # type: ignore[arg-type]  # sizes only


def images_of(count: int = 2) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def test_rollout_of_two_blocks_by_hand() -> None:
    first = torch.tensor([[[0.2, 0.8], [0.6, 0.4]], [[0.4, 0.6], [0.4, 0.6]]])  # two heads, on average .3 .7, .5 .5
    second = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])  # on average .5 .5, 0 1
    rolled = rollout(torch.stack([first, second])[None])
    # with half the residual: first .65 .35, .25 .75; second .75 .25, 0 1; their product, the second on the left
    torch.testing.assert_close(rolled[0], torch.tensor([[0.55, 0.45], [0.25, 0.75]]))


def test_rows_sum_to_one_and_without_attention_to_others_nothing_moves() -> None:
    attention = torch.rand(3, 5, 4, 7, 7, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    rolled = rollout(attention)
    torch.testing.assert_close(rolled.sum(dim=2), torch.ones(3, 7))
    assert rolled.min() > 0
    alone = torch.eye(7).expand(1, 5, 4, 7, 7)
    torch.testing.assert_close(rollout(alone)[0], torch.eye(7))


@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [
        ("vit", {"units": 8, "depth": 3, "heads": 2, "patch_size": 4}, (2, 3, 2, 65, 65)),
        ("timm/vit_tiny_patch16_224", {}, (2, 12, 3, 5, 5)),
        ("timm/test_vit", {}, None),
        ("torchvision/vit_b_32", {}, None),
    ],
)
def test_attention_of_vision_transformers_is_found(
    name: str, sizes: dict[str, int], shape: tuple[int, ...] | None
) -> None:
    if name.startswith("torchvision"):
        from torchvision.models.vision_transformer import VisionTransformer

        torch.manual_seed(0)
        network: nn.Module = VisionTransformer(SIZE, 8, 2, 4, 16, 32, num_classes=3).eval()
        shape = (2, 2, 4, 17, 17)
    else:
        network = network_of(name, **sizes)
    images = images_of()
    with torch.no_grad():
        before = network(images)
    attention = attention_of(network, images)
    assert attention is not None
    assert shape is None or attention.shape == shape
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(attention.shape[:-1]))
    maps = attention_rollout(network, images)
    assert maps is not None
    assert maps.shape == (2, SIZE, SIZE)
    assert maps.min() >= 0
    with torch.no_grad():
        assert torch.equal(network(images), before), "listening leaves no trace"
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())
    assert all(getattr(module, "fused_attn", True) for module in network.modules())


def test_recorded_weights_are_those_the_layer_uses() -> None:
    """The value vectors, weighted by what is recorded, give the layer's output."""
    from timm.layers import Attention

    torch.manual_seed(0)
    layer = Attention(8, num_heads=2, qkv_bias=True).eval()
    tokens = torch.randn(3, 5, 8)
    network = nn.Sequential(layer)
    attention = attention_of(network, tokens)
    assert attention is not None
    with torch.no_grad():
        values = layer.qkv(tokens)[..., 16:].unflatten(2, (2, 4)).transpose(1, 2)
        expected = layer.proj((attention[:, 0] @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(layer(tokens), expected)


class LooksAtLastPatch(nn.Module):
    """Its class token, in one block, takes all from the last of 2x3 patches."""

    def attention(self, images: Tensor) -> Tensor:
        weights = torch.eye(7).repeat(len(images), 1, 1, 1, 1)
        weights[..., 0, :] = torch.tensor([0.0, 0, 0, 0, 0, 0, 1])
        return weights


def test_the_map_is_bright_where_the_class_token_looks() -> None:
    maps = attention_rollout(LooksAtLastPatch(), torch.zeros(1, 1, 8, 12))
    assert maps is not None
    assert maps[0, 7, 11] == 0.5  # the other half is the class token's own
    assert maps[0, :4, :6].max() == 0


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/swin_tiny_patch4_window7_224"])
def test_networks_without_attention_of_all_patches_to_all_have_no_rollout(name: str) -> None:
    assert attention_rollout(network_of(name), images_of(1)) is None
