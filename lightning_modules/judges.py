"""A classifier that judges generated images: by its features, and by the classes it sees in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_modules.freezing import head_of
from recognition import bundle, scores
from recognition.distribution_scores import Features
from recognition.errors import ConfigurationError, ModelError
from recognition.pixels import Pixels
from recognition.records import PreparedData
from recognition.scoring.classifier import Classifier

LOOKED_AT_ONCE = 256
_FIX = "train a classifier of these images first, and name it (models:/NAME@champion)"


def check_judge(folder: str, data: PreparedData) -> None:
    """Refuse a judge that does not know these images; nothing in its folder is executed.

    Args:
        folder: of the bundle.
        data: the images that are generated.

    Raises:
        ConfigurationError: there is none, it is no classifier, or its classes or size are others.
    """
    if not folder:
        raise ConfigurationError(f"evaluation.judge is empty, but generated images need one: {_FIX}.")
    try:
        description = bundle.describe(Path(folder))
    except ModelError as error:
        raise ConfigurationError(f"evaluation.judge: {str(error).removesuffix('.')}: {_FIX}.") from None
    if description["task"] != "classification":
        raise ConfigurationError(f"evaluation.judge: {folder} is for {description['task']}: {_FIX}.")
    if description["class_names"] != list(data.class_names):
        raise ConfigurationError(
            f"evaluation.judge: {folder} tells {', '.join(description['class_names'])} apart, but the images are of "
            f"{', '.join(data.class_names)}: {_FIX}."
        )
    sizes = description["preprocessing"]
    theirs = sizes["height"], sizes["width"], sizes["channels"]
    ours = data.height, data.width, data.channels
    if theirs != ours:
        raise ConfigurationError(
            f"evaluation.judge: {folder} reads images of {'x'.join(map(str, theirs))}, but these are prepared at "
            f"{'x'.join(map(str, ours))}: set data.image_size and data.channels to the judge's, or {_FIX}."
        )


class Judge:
    """A classifier with its features: what the layer reads that turns them into logits."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._head = head_of(classifier.network)

    @classmethod
    def load(cls, folder: str, device: str = "cpu") -> Judge:
        """The judge in a bundle's folder.

        Raises:
            ModelError: the bundle is not whole, or no classifier's.
        """
        # building a network draws first weights: who judges shall not change what is trained
        with torch.random.fork_rng(devices=[]):
            return cls(bundle.load_classifier(Path(folder), device))

    def look(self, images: Pixels) -> tuple[Features, NDArray[np.int64]]:
        """Features (N, F) and class numbers (N,) of prepared images, uint8 (N, H, W, C), N >= 1."""
        features: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            features.append(_flat(inputs[0]).double().cpu())

        hook = self._head.register_forward_pre_hook(keep)
        try:
            parts = [images[start : start + LOOKED_AT_ONCE] for start in range(0, len(images), LOOKED_AT_ONCE)]
            probabilities = np.concatenate([self._classifier.probabilities(part) for part in parts])
        finally:
            hook.remove()
        return torch.cat(features).numpy(), scores.predicted_labels(probabilities, self._classifier.threshold)


def _flat(features: Tensor) -> Tensor:
    """One vector an image: of a convolution's input the mean over its places."""
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features.flatten(start_dim=1)
