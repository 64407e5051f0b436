"""What a classifier looked at: Grad-CAM, attention rollout, integrated gradients and occlusion, as maps of an image.

Everywhere networks are in evaluation mode, ``images`` are normalised, float (N, C, H, W), and ``classes`` are int64
(N,); all on one device. What is explained is the network's `evidence` for each image's class. Nothing here is random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.attention_rollout import attention_rollout
from recognition.explanation_figures import ROLLOUT

STEPS = 32
"""Points on the path that integrated gradients follow."""
WINDOWS = 9
"""Places of the occluding square down and across an image; neighbours overlap by half."""
_BLUR_GRID = 4
_MOST_PIXELS, _MOST_IMAGES = 2**20, 64


def explain(network: nn.Module, images: Tensor, classes: Tensor) -> dict[str, NDArray[np.float32]]:
    """Every map (N, H, W) that the network allows, by the name of its method.

    ``Grad-CAM`` for networks with convolutions, ``attention rollout`` for Vision Transformers, and for all
    ``integrated gradients`` (summed over channels) and ``occlusion``. The last two compare with `blurred` images.
    """
    parts: list[dict[str, Tensor]] = []
    at_once = _images_at_once(images)
    for some, their_classes in zip(torch.split(images, at_once), torch.split(classes, at_once), strict=True):
        baseline = blurred(some)
        found = {
            "Grad-CAM": grad_cam(network, some, their_classes),
            ROLLOUT: attention_rollout(network, some),
            "integrated gradients": integrated_gradients(network, some, their_classes, baseline).sum(dim=1),
            "occlusion": occlusion(network, some, their_classes, baseline),
        }
        parts.append({name: maps for name, maps in found.items() if maps is not None})
    return {name: torch.cat([part[name] for part in parts]).float().cpu().numpy() for name in parts[0]}


def evidence(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """What speaks for each image's class, (N,): its logit; a single logit for class 1, its negative for class 0."""
    logits: Tensor = network(images)
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * classes - 1)
    return logits.gather(1, classes[:, None])[:, 0]


def blurred(images: Tensor) -> Tensor:
    """The images as 4x4 patches of their mean colours, drawn out smoothly.

    A baseline that takes away what is to be seen without bringing in a colour, or a background, that was not there
    (after Fong and Vedaldi, "Interpretable explanations of black boxes by meaningful perturbation", ICCV 2017).
    """
    coarse = F.adaptive_avg_pool2d(images, _BLUR_GRID)
    return F.interpolate(coarse, size=images.shape[2:], mode="bilinear", align_corners=False)


def grad_cam(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor | None:
    """Where the last feature map speaks for the class: (N, H, W), at least 0.

    Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", ICCV 2017:
    each channel weighs by its mean gradient, and what remains below 0 is cut. None for a network without convolutions;
    one that only cuts an image into patches is no such network.
    """
    with _differentiable(network), _feature_map(network) as features:
        score = evidence(network, images.detach().requires_grad_(), classes).sum()
        if not features:
            return None
        (gradient,) = torch.autograd.grad(score, features[-1], allow_unused=True)
    if gradient is None:
        return None
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = F.relu((weights * features[-1].detach()).sum(dim=1, keepdim=True))
    return F.interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def integrated_gradients(
    network: nn.Module, images: Tensor, classes: Tensor, baseline: Tensor, steps: int = STEPS
) -> Tensor:
    """Each value's share, (N, C, H, W), in the difference of evidence between an image and its baseline (N, C, H, W).

    Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017. Over an image the shares sum to that
    difference, as nearly as Gauss-Legendre quadrature with so many steps integrates the gradients.
    """
    from captum.attr import IntegratedGradients

    def score(some: Tensor, their_classes: Tensor) -> Tensor:
        return evidence(network, some, their_classes)

    with _differentiable(network):
        shares: Tensor = IntegratedGradients(score).attribute(
            images,
            baselines=baseline,
            additional_forward_args=(classes,),
            n_steps=steps,
            # no less than one step of all images
            internal_batch_size=max(_images_at_once(images), len(images)),
        )
    return shares.detach()


@torch.no_grad()
def occlusion(
    network: nn.Module, images: Tensor, classes: Tensor, baseline: Tensor, window: tuple[int, int] | None = None
) -> Tensor:
    """How much evidence is lost, (N, H, W), where a window shows the baseline (N, C, H, W) instead of the image.

    Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014. A pixel has the mean over the
    windows that cover it.

    Args:
        network: as everywhere here.
        images: as everywhere here.
        classes: as everywhere here.
        baseline: what the window shows.
        window: its height and width in pixels; it moves by half of them. None: fitted to the image, so that it takes
            at most `WINDOWS` places down and across.
    """
    from captum.attr import Occlusion

    def score(some: Tensor, their_classes: Tensor) -> Tensor:
        return evidence(network, some, their_classes)

    channels, height, width = images.shape[1:]
    down, across = window or (math.ceil(2 * height / (WINDOWS + 1)), math.ceil(2 * width / (WINDOWS + 1)))
    lost: Tensor = Occlusion(score).attribute(
        images,
        sliding_window_shapes=(channels, down, across),
        strides=(channels, (down + 1) // 2, (across + 1) // 2),
        baselines=baseline,
        additional_forward_args=(classes,),
        perturbations_per_eval=max(1, _images_at_once(images) // len(images)),
    )
    # the window covers all channels, which therefore have the same values
    return lost[:, 0]


def _images_at_once(images: Tensor) -> int:
    return max(1, min(_MOST_IMAGES, _MOST_PIXELS // (images.shape[2] * images.shape[3])))


@contextmanager
def _differentiable(network: nn.Module) -> Iterator[None]:
    """cuDNN has no backward pass for recurrent networks in evaluation mode; torch's own kernels have."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=not recurrent):
        yield


@contextmanager
def _feature_map(network: nn.Module) -> Iterator[list[Tensor]]:
    """While the block runs, note the newest map (N, C, h, w) of more than a pixel that convolutions have made.

    It is what a part of the network that holds convolutions gives out, or a batch normalisation: those are known to
    have channels first, and the last of them stands behind all convolutions.
    """
    newest: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            newest[:] = [output]

    with ExitStack() as undo:
        if any(_looks_around(module) for module in network.modules()):
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d) or any(_looks_around(part) for part in module.modules()):
                    undo.callback(module.register_forward_hook(note).remove)
        yield newest


def _looks_around(module: nn.Module) -> bool:
    """Whether it is a convolution whose windows overlap; patches do not."""
    if not isinstance(module, nn.Conv2d):
        return False
    return any(size > stride for size, stride in zip(module.kernel_size, module.stride, strict=True))
