"""The end of a classifier: dense layers, dropout, and the output."""

from __future__ import annotations

from torch import nn


def classifier_head(features: int, dense: tuple[int, ...], dropout: float, outputs: int) -> nn.Sequential:
    """Build ``[dense relu dropout] * layers, output``, or ``dropout, output`` without dense layers.

    Args:
        features: numbers an image that the head reads.
        dense: units of each dense layer.
        dropout: 0 <= dropout < 1.
        outputs: number of logits.
    """
    head = nn.Sequential()
    for units in dense:
        head.append(nn.Sequential(nn.Linear(features, units), nn.ReLU(inplace=True), nn.Dropout(dropout)))
        features = units
    if not dense:
        head.append(nn.Dropout(dropout))
    head.append(nn.Linear(features, outputs))
    return head
