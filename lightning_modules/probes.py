"""Baselines on frozen features: what the start weights give before anything of the network is trained.

A linear probe is a logistic regression on the features (Alain and Bengio, "Understanding intermediate layers using
linear classifier probes", ICLR workshop 2017); nearest prototypes say the class whose mean is nearest (Snell et al.,
"Prototypical networks for few-shot learning", NeurIPS 2017). Features are what the network's head reads.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_modules.freezing import head_of
from recognition import datasets
from recognition.records import PreparedData

_MOST_STEPS = 1000


def linear_probe(train: NDArray[np.float32], labels: NDArray[np.int64], test: NDArray[np.float32]) -> NDArray[np.int64]:
    """Labels of test features by a logistic regression, L2 penalty 1/2 |w|², on features of mean 0 and deviation 1.

    Args:
        train: float (N, F), features of images whose labels are known.
        labels: int64 (N,), two classes at least.
        test: float (M, F).

    Returns:
        int64 (M,).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_MOST_STEPS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so many steps are near enough for a baseline
        probe.fit(train.astype(np.float64), labels)
    predictions: NDArray[np.int64] = probe.predict(test.astype(np.float64))
    return predictions


def nearest_prototypes(
    train: NDArray[np.float32], labels: NDArray[np.int64], test: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Labels of test features by the nearest class mean, in Euclidean distance.

    Args:
        train: float (N, F), features of images whose labels are known.
        labels: int64 (N,).
        test: float (M, F).

    Returns:
        int64 (M,); of classes equally near, the first.
    """
    present = np.unique(labels)
    prototypes = np.stack([train[labels == label].mean(axis=0, dtype=np.float64) for label in present])
    # |x - p|² without |x|², which is the same for all prototypes
    distances = (prototypes**2).sum(axis=1) - 2 * test.astype(np.float64) @ prototypes.T
    nearest: NDArray[np.int64] = present[distances.argmin(axis=1)]
    return nearest


@torch.inference_mode()
def features(network: nn.Module, images: Tensor) -> NDArray[np.float32]:
    """What the head of a classifier reads of normalised images (N, C, H, W): float (N, F).

    Maps and sequences are averaged over their places. The network is to be in evaluation mode.
    """
    read: list[Tensor] = []
    head = head_of(network)
    hook = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        network(images)
    finally:
        hook.remove()
    of_places = read[0].movedim(1, -1) if isinstance(head, nn.Conv2d) else read[0]
    averaged = of_places.reshape(len(images), -1, of_places.shape[-1]).mean(dim=1)
    array: NDArray[np.float32] = averaged.float().cpu().numpy()
    return array


def baselines(
    network: nn.Module,
    data: PreparedData,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int,
    device: torch.device,
) -> dict[str, float]:
    """Accuracies on the test images of both baselines, fitted to the features of the training images.

    Args:
        network: a classifier with its start weights; it is moved to the device.
        data: the prepared images.
        mean: per channel, in units of [0, 1].
        std: per channel, in units of [0, 1], above 0.
        batch_size: images at once.
        device: where features are computed.
    """
    arrays = datasets.open_arrays(data.path)
    shift, scale = (torch.tensor(values, device=device).view(1, -1, 1, 1) * 255 for values in (mean, std))
    network.to(device)
    was_training = network.training
    network.eval()
    found: dict[str, NDArray[np.float32]] = {}
    for name in ("train", "test"):
        split = arrays.split(name)
        parts: dict[int, NDArray[np.float32]] = {}
        for positions in split.in_batches(batch_size):
            images = torch.from_numpy(split.batch(positions)).to(device).permute(0, 3, 1, 2).float()
            parts.update(zip(positions.tolist(), features(network, (images - shift) / scale), strict=True))
        found[name] = np.stack([parts[position] for position in range(len(split))])
    network.train(was_training)
    labels, answers = arrays.split("train").labels, arrays.split("test").labels
    return {
        "probe_accuracy": float((linear_probe(found["train"], labels, found["test"]) == answers).mean()),
        "prototype_accuracy": float((nearest_prototypes(found["train"], labels, found["test"]) == answers).mean()),
    }
