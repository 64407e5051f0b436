"""What a network is built from: plain values that JSON holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """A network and the images it is for. A network reads the values it knows; 0 and () mean that it chooses itself.

    Attributes:
        network: the name of a file beside this one, ``timm/<name>`` or ``torchvision/<name>``.
        outputs: number of logits; for boxes and masks number of classes, without background.
        height, width, image_channels: of the images, pixels.
        channels: output channels of each convolution block.
        kernel_size: side of the kernels, pixels.
        padding: ``same`` or ``valid``.
        pooled_blocks: so many blocks, from the first, end in a 2x2 max-pool.
        batch_norm: batch normalisation after each convolution.
        neck: ``flatten`` or ``average``.
        dense: units of each dense layer before the output.
        dropout: before the output and after each dense layer, 0 <= dropout < 1.
        units: hidden units, numbers a token, or channels of the first stage (``model.width``).
        depth: layers, blocks or halvings.
        heads: attention heads.
        patch_size: side of the patches, pixels.
        positions: ``learned`` or ``sinusoidal``.
        cell: ``lstm``, ``gru`` or ``rnn``.
        bidirectional: also read from the end.
        code: numbers of the code or the noise.
        variational: a distribution of codes.
        conditional: generate a class that is asked for.
    """

    network: str
    outputs: int
    height: int
    width: int
    image_channels: int
    channels: tuple[int, ...] = ()
    kernel_size: int = 3
    padding: str = "same"
    pooled_blocks: int = 0
    batch_norm: bool = True
    neck: str = "flatten"
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    units: int = 0
    depth: int = 0
    heads: int = 0
    patch_size: int = 0
    positions: str = "learned"
    cell: str = "lstm"
    bidirectional: bool = False
    code: int = 64
    variational: bool = False
    conditional: bool = True
