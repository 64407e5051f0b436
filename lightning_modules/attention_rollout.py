"""Attention rollout: which patches a Vision Transformer's answer has drawn from, block by block.

Abnar and Zuidema, "Quantifying attention flow in transformers", ACL 2020.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@torch.no_grad()
def attention_rollout(network: nn.Module, images: Tensor) -> Tensor | None:
    """How much each pixel's patch has contributed to what the class token holds at the end, or, where there is none, to
    all tokens on average.

    Args:
        network: in evaluation mode. Its attention is asked of its own method ``attention``, or recorded from timm's or
            torch's attention layers.
        images: normalised, float (N, C, H, W).

    Returns:
        Float (N, H, W), at least 0; none for a network whose layers do not all attend from each patch of the image to
        each, such as one without attention or with attention within windows.
    """
    attention = attention_of(network, images)
    if attention is None:
        return None
    height, width = images.shape[2:]
    others = _other_tokens(network)
    patches = attention.shape[-1] - others
    rows = round((patches * height / width) ** 0.5)
    if rows < 1 or patches % rows or rows * width != patches // rows * height:
        return None
    rolled = rollout(attention)
    drawn = rolled[:, 0] if others else rolled.mean(dim=1)
    grid = drawn[:, others:].reshape(len(images), 1, rows, patches // rows)
    return F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)[:, 0]


def rollout(attention: Tensor) -> Tensor:
    """Follow attention from the last block to the first, with the residual connection as half of each block.

    Args:
        attention: (N, blocks, heads, T, T); each row sums to 1.

    Returns:
        (N, T, T): how much of each token at the end (row) is of each token at the start (column). Rows sum to 1.
    """
    residual = torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)
    blocks = (attention.mean(dim=2) + residual) / 2
    rolled = blocks[:, 0]
    for number in range(1, blocks.shape[1]):
        rolled = blocks[:, number] @ rolled
    return rolled


@torch.no_grad()
def attention_of(network: nn.Module, images: Tensor) -> Tensor | None:
    """The attention of every block: (N, blocks, heads, T, T), each row summing to 1.

    None where the network has no attention, or not all blocks are from all tokens to all.
    """
    own = getattr(network, "attention", None)
    if inspect.ismethod(own):
        attention: Tensor = own(images)
        return attention
    with _recorded(network) as recorded:
        if not recorded.hooked:
            return None
        network(images)
    shapes = {weights.shape for weights in recorded.weights}
    if len(shapes) != 1:
        return None
    shape = shapes.pop()
    if len(shape) != 4 or shape[0] != len(images) or shape[2] != shape[3]:
        return None
    return torch.stack(recorded.weights, dim=1)


class _Recorded:
    """Attention weights in the order in which the layers ran."""

    def __init__(self) -> None:
        self.hooked = False
        self.weights: list[Tensor] = []


@contextmanager
def _recorded(network: nn.Module) -> Iterator[_Recorded]:
    """Have attention layers of timm and torch lay their weights open while the block runs."""
    recorded = _Recorded()

    def keep_weights(module: nn.Module, inputs: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) else output
        recorded.weights.append(weights.detach())

    def ask_for_weights(module: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, named | {"need_weights": True, "average_attn_weights": False}

    with ExitStack() as undo:
        for module in network.modules():
            dropout = getattr(module, "attn_drop", None)
            if isinstance(module, nn.MultiheadAttention):
                undo.callback(module.register_forward_pre_hook(ask_for_weights, with_kwargs=True).remove)
                undo.callback(module.register_forward_hook(keep_weights).remove)
                recorded.hooked = True
            elif hasattr(module, "fused_attn") and isinstance(dropout, nn.Module):
                # timm's: without the fused kernel the weights pass through the dropout
                undo.callback(setattr, module, "fused_attn", module.fused_attn)
                module.fused_attn = False  # type: ignore[assignment]  # torch types attributes as tensors or modules
                undo.callback(dropout.register_forward_hook(keep_weights).remove)
                recorded.hooked = True
        yield recorded


def _other_tokens(network: nn.Module) -> int:
    """Tokens before those of patches: timm counts them, torchvision's and our own networks have a class token."""
    counted = getattr(network, "num_prefix_tokens", None)
    if isinstance(counted, int):
        return counted
    return 1 if inspect.ismethod(getattr(network, "attention", None)) or hasattr(network, "class_token") else 0
