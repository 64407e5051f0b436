"""What a network is built from: plain values that JSON holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """A network and the images it is for.

    Attributes:
        network: ``cnn``, ``timm/<name>`` or ``torchvision/<name>``.
        outputs: number of logits.
        height, width, image_channels: of the images, pixels.
        channels: ``cnn``: output channels of each convolution block.
        kernel_size: ``cnn``: side of the kernels, pixels.
        padding: ``cnn``: ``same`` or ``valid``.
        pooled_blocks: ``cnn``: so many blocks, from the first, end in a 2x2 max-pool.
        batch_norm: ``cnn``: batch normalisation after each convolution.
        neck: ``cnn``: ``flatten`` or ``average``.
        dense: ``cnn``: units of each dense layer before the output.
        dropout: before the output and after each dense layer, 0 <= dropout < 1.
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
