"""Attention maps of a classifier that has them, as a figure of its evaluation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_modules.attention_rollout import attention_of
from lightning_modules.evaluations.judged import Judged
from recognition.attention_figures import attention_maps

_MOST_IMAGES = 8


def draw(judged: Judged) -> None:
    """Write ``attention_maps.png`` of the first test image of each class, at most 8, for a network with a class token.

    Nothing is written for other networks, and when no explanations are asked for.
    """
    if not judged.evaluation.explanations:
        return
    test = judged.arrays.split("test")
    labels, firsts = np.unique(test.labels, return_index=True)
    labels, firsts = labels[:_MOST_IMAGES], firsts[:_MOST_IMAGES]
    images = test.batch(firsts)
    attention = class_attention(judged.scorer.network, judged.scorer.normalised(images))
    if attention is not None:
        names = [judged.data.class_names[label] for label in labels]
        attention_maps(images, attention, names, judged.figures / "attention_maps.png")


def class_attention(network: nn.Module, images: Tensor) -> NDArray[np.float32] | None:
    """What the class token takes from each patch in the last block.

    Args:
        network: in evaluation mode.
        images: normalised, float (N, C, H, W).

    Returns:
        float32 (N, heads, rows, columns), from 0 to 1; none for a network that has no class token, or whose attention
        is not from all tokens to all.
    """
    grid = _grid(network)
    if grid is None:
        return None
    with torch.inference_mode():
        weights = attention_of(network, images)
    if weights is None:
        return None
    rows, columns = grid
    # what stands between the class token and the patches, such as registers, has no place in the image
    patches = weights[:, -1, :, 0, -rows * columns :]
    array: NDArray[np.float32] = patches.reshape(*patches.shape[:2], rows, columns).float().cpu().numpy()
    return array


def _grid(network: nn.Module) -> tuple[int, int] | None:
    """Rows and columns of patches: our own networks say it, timm's by the layer that cuts the image."""
    own = getattr(network, "grid", None)
    if isinstance(own, tuple):
        return own[0], own[1]
    if getattr(network, "cls_token", None) is None:
        return None
    cut = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    return (cut[0], cut[1]) if isinstance(cut, tuple) else None
