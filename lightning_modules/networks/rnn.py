"""A recurrent network that reads an image in order, row by row or patch by patch, and says at the end what it saw.

The cells: simple (Elman, "Finding structure in time", Cognitive Science 14, 1990), LSTM (Hochreiter and Schmidhuber,
"Long short-term memory", Neural Computation 9, 1997), GRU (Cho et al., "Learning phrase representations using RNN
encoder-decoder", EMNLP 2014).
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from .architecture import Architecture
from .heads import classifier_head

UNITS, LAYERS = 128, 1
"""What ``units`` and ``depth`` of 0 stand for."""
CELLS: dict[str, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Recurrence(nn.Module):
    """Recurrent layers, each of which reads what the one below it says, and their last states."""

    def __init__(self, features: int, units: int, depth: int, cell: str, bidirectional: bool, dropout: float) -> None:
        """Stack the layers.

        Args:
            features: numbers a step of the sequence.
            units: hidden units of each layer and direction.
            depth: number of layers.
            cell: ``lstm``, ``gru`` or ``rnn``.
            bidirectional: each layer also reads from the end.
            dropout: between layers.
        """
        super().__init__()
        self.outputs = units * (2 if bidirectional else 1)
        # a module for each layer, so that they can be frozen one by one
        self.layers = nn.ModuleList(
            CELLS[cell](self.outputs if number else features, units, batch_first=True, bidirectional=bidirectional)
            for number in range(depth)
        )
        self.dropout = nn.Dropout(dropout)
        for layer in self.layers:
            _initialise(layer, units, cell)

    def forward(self, sequence: Tensor) -> Tensor:
        """What the top layer knows when it has read all of float (N, steps, features).

        Returns:
            (N, units), or (N, 2 * units) when bidirectional: the forward state after the last step, then the backward
            state after the first.
        """
        # cuDNN gives no gradients in evaluation mode, which explanations ask for
        plain = sequence.is_cuda and torch.is_grad_enabled() and not self.training
        with torch.backends.cudnn.flags(enabled=False) if plain else nullcontext():
            for number, layer in enumerate(self.layers):
                sequence, state = layer(self.dropout(sequence) if number else sequence)
        last: Tensor = state[0] if isinstance(state, tuple) else state
        return last.transpose(0, 1).flatten(1)


def _initialise(layer: nn.Module, units: int, cell: str) -> None:
    """Start with orthogonal steps (Saxe et al., ICLR 2014), and an LSTM that forgets little.

    The forget gate's bias of 1: Jozefowicz et al., "An empirical exploration of recurrent network architectures", ICML
    2015. PyTorch keeps an LSTM's gates in the order input, forget, cell, output, and two biases, which are added.
    """
    for name, parameter in layer.named_parameters():
        if name.startswith("weight_hh"):
            for gate in torch.split(parameter.data, units):
                nn.init.orthogonal_(gate)
        elif name.startswith("weight_ih"):
            for gate in torch.split(parameter.data, units):
                nn.init.xavier_uniform_(gate)
        else:
            nn.init.zeros_(parameter)
            if cell == "lstm" and name.startswith("bias_ih"):
                nn.init.ones_(parameter.data[units : 2 * units])


class ImageReader(nn.Module):
    """A recurrent network over the rows or patches of an image, and a head on its last state."""

    def __init__(self, patch_size: int, recurrence: Recurrence, head: nn.Module) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.recurrence = recurrence
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, outputs) of float images (N, C, H, W)."""
        logits: Tensor = self.head(self.recurrence(self.steps(images)))
        return logits

    def steps(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) as sequences, from the top down and from left to right.

        Returns:
            rows (N, H, C * W), or patches of p pixels a side (N, H / p * W / p, C * p * p).
        """
        if not self.patch_size:
            return images.transpose(1, 2).flatten(2)
        p = self.patch_size
        # (N, C, rows, columns, p, p)
        patches = images.unfold(2, p, p).unfold(3, p, p)
        return patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def build(architecture: Architecture) -> nn.Module:
    """Build the recurrent layers for rows, or for patches when ``patch_size`` is above 0, and the head.

    Raises:
        ValueError: the patches do not divide the image.
    """
    a = architecture
    features = a.image_channels * a.width
    if a.patch_size:
        check_patches(a)
        features = a.image_channels * a.patch_size**2
    recurrence = Recurrence(features, a.units or UNITS, a.depth or LAYERS, a.cell, a.bidirectional, a.dropout)
    return ImageReader(a.patch_size, recurrence, classifier_head(recurrence.outputs, a.dense, a.dropout, a.outputs))


def check_patches(architecture: Architecture) -> None:
    """See that whole patches cover the image.

    Raises:
        ValueError: they do not; which would is said.
    """
    a = architecture
    p = a.patch_size
    if a.height % p or a.width % p:
        fitting = [side for side in range(2, min(a.height, a.width)) if a.height % side == a.width % side == 0]
        sides = f"model.patch_size to one of {', '.join(map(str, fitting))}, or " if fitting else ""
        nearest = max(1, round(min(a.height, a.width) / p)) * p
        raise ValueError(
            f"patches of {p}x{p} pixels do not divide images of {a.height}x{a.width}: set {sides}data.image_size to a "
            f"multiple of {p}, such as {nearest}"
        )
