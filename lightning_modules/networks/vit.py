"""The Vision Transformer: an image as a sequence of patches that look at each other.

Dosovitskiy et al., "An image is worth 16x16 words: Transformers for image recognition at scale", ICLR 2021, on the
attention of Vaswani et al., "Attention is all you need", NeurIPS 2017. Shapes: N images, T tokens (the class token,
then the patches from the top down and from left to right), D numbers a token, ``units``.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .architecture import Architecture
from .rnn import check_patches

PATCH_SIZE, UNITS, BLOCKS, UNITS_PER_HEAD = 4, 64, 4, 32
"""What ``patch_size``, ``units``, ``depth`` and ``heads`` of 0 stand for."""
EXPANSION = 2
"""The dense network of a block is so many times as wide as a token: 4 in the paper, 2 for small images as Hassani et
al., "Escaping the big data paradigm with compact transformers", 2021."""


class SelfAttention(nn.Module):
    """Every token asks all tokens, in several heads, and takes from each as much as it fits."""

    def __init__(self, units: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query_key_value = nn.Linear(units, 3 * units)
        self.output = nn.Linear(units, units)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N, T, D) to tokens (N, T, D)."""
        query, key, value = self._split(tokens)
        dropout = self.dropout if self.training else 0.0
        # softmax(query key^T / sqrt(D / heads)) value
        taken = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        mixed: Tensor = self.output(taken.transpose(1, 2).flatten(2))
        return mixed

    def weights(self, tokens: Tensor) -> Tensor:
        """How much each token takes from each: (N, heads, T, T), every row sums to 1."""
        query, key, _ = self._split(tokens)
        return (query @ key.transpose(2, 3) / math.sqrt(query.shape[3])).softmax(dim=3)

    def _split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens (N, T, D), each (N, heads, T, D / heads)."""
        images, number, units = tokens.shape
        projected: Tensor = self.query_key_value(tokens)
        split = projected.view(images, number, 3, self.heads, units // self.heads).permute(2, 0, 3, 1, 4)
        return split[0], split[1], split[2]


class Block(nn.Module):
    """Attention, then a dense network for each token, both with normalised input and added to what comes in."""

    def __init__(self, units: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(units)
        self.attention = SelfAttention(units, heads, dropout)
        self.dense_norm = nn.LayerNorm(units)
        self.dense = nn.Sequential(
            nn.Linear(units, EXPANSION * units), nn.GELU(), nn.Dropout(dropout), nn.Linear(EXPANSION * units, units)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N, T, D) to tokens (N, T, D)."""
        tokens = tokens + self.dropout(self.attention(self.attention_norm(tokens)))
        mixed: Tensor = tokens + self.dropout(self.dense(self.dense_norm(tokens)))
        return mixed


class VisionTransformer(nn.Module):
    """Patches become tokens, a class token joins them, and its last value says the class."""

    positions: Tensor

    def __init__(self, architecture: Architecture) -> None:
        """Build the network of sizes that fit each other; see `build`."""
        super().__init__()
        a = architecture
        self.grid = a.height // a.patch_size, a.width // a.patch_size
        """Rows and columns of patches."""
        # a step as wide as the kernel: the same linear layer for every patch
        self.patches = nn.Conv2d(a.image_channels, a.units, a.patch_size, stride=a.patch_size)
        self.class_token = nn.Parameter(torch.zeros(a.units))
        if a.positions == "sinusoidal":
            self.register_buffer("positions", sinusoidal_positions(*self.grid, a.units), persistent=False)
        else:
            learned = nn.init.trunc_normal_(torch.empty(1 + math.prod(self.grid), a.units), std=0.02)
            self.register_parameter("positions", nn.Parameter(learned))
        self.dropout = nn.Dropout(a.dropout)
        self.blocks = nn.Sequential(*(Block(a.units, a.heads, a.dropout) for _ in range(a.depth)))
        self.norm = nn.LayerNorm(a.units)
        self.head = nn.Linear(a.units, a.outputs)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, outputs) of float images (N, C, H, W)."""
        tokens = self.norm(self.blocks(self.tokens(images)))
        logits: Tensor = self.head(tokens[:, 0])
        return logits

    def tokens(self, images: Tensor) -> Tensor:
        """What the first block reads: class token and patches with their positions, (N, T, D)."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        class_tokens = self.class_token.expand(len(images), 1, -1)
        tokens: Tensor = self.dropout(torch.cat([class_tokens, patches], dim=1) + self.positions)
        return tokens

    def attention(self, images: Tensor) -> Tensor:
        """How much each token takes from each in every block, worked out beside the forward pass.

        Args:
            images: float (N, C, H, W).

        Returns:
            (N, blocks, heads, T, T), every row sums to 1. Row and column 0 are the class token's, the others the
            patches', row by row of ``grid``.
        """
        tokens = self.tokens(images)
        weights = []
        for block in self.blocks:
            assert isinstance(block, Block)
            weights.append(block.attention.weights(block.attention_norm(tokens)))
            tokens = block(tokens)
        return torch.stack(weights, dim=1)


def sinusoidal_positions(rows: int, columns: int, units: int) -> Tensor:
    """Sines and cosines of each patch's row and column, zeros for the class token: (1 + rows * columns, units).

    The quarters of a position hold, for k < units / 4 and w_k = 10000^(-4k / units), sin(row w_k), cos(row w_k),
    sin(column w_k) and cos(column w_k): Vaswani et al. 2017 for each of two directions, as Chen, Xie and He, "An
    empirical study of training self-supervised vision transformers", ICCV 2021.
    """
    quarter = units // 4
    frequencies = 10_000 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row = torch.arange(rows, dtype=torch.float64).repeat_interleave(columns)[:, None] * frequencies
    column = torch.arange(columns, dtype=torch.float64).repeat(rows)[:, None] * frequencies
    patches = torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=1)
    return torch.cat([torch.zeros(1, units), patches.float()])


def build(architecture: Architecture) -> nn.Module:
    """Build a pre-norm Vision Transformer with a class token.

    Raises:
        ValueError: the patches do not divide the image, or the heads not the numbers of a token.
    """
    a = architecture
    units = a.units or UNITS
    heads = a.heads or fitting_heads(units)
    a = replace(a, patch_size=a.patch_size or PATCH_SIZE, units=units, depth=a.depth or BLOCKS, heads=heads)
    check_patches(a)
    if units % heads:
        fitting = ", ".join(str(number) for number in range(1, units + 1) if units % number == 0 and number <= 64)
        raise ValueError(f"{heads} heads do not divide a width of {units}: set model.heads to one of {fitting}")
    if a.positions == "sinusoidal" and units % 4:
        raise ValueError(
            f"sinusoidal positions need a width of four parts, not {units}: set model.width to {units + -units % 4}, "
            "or model.positions=learned"
        )
    return VisionTransformer(a)


def fitting_heads(units: int) -> int:
    """One head for each 32 numbers of a token, or the next fewer that divide them."""
    return next(heads for heads in range(max(1, units // UNITS_PER_HEAD), 0, -1) if units % heads == 0)
