"""A classifier: image in, probabilities out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .scorer import Pixels, Scorer


class Classifier(Scorer):
    """A network that tells classes apart."""

    parameters: ClassVar[Mapping[str, float | int | str]] = {"top_k": 0}

    @property
    def threshold(self) -> float:
        """The probability from which the second of two classes is said."""
        return float(self.description["threshold"])

    @torch.inference_mode()
    def probabilities(self, images: Pixels) -> NDArray[np.float64]:
        """Class probabilities (N, K) of prepared images, uint8 (N, H, W, C)."""
        array: NDArray[np.float64] = self.class_probabilities(self.network(self.normalised(images))).cpu().numpy()
        return array

    @staticmethod
    def class_probabilities(logits: Tensor) -> Tensor:
        """Logits (N, K), or (N, 1) for the second of two classes, as float64 probabilities (N, K)."""
        logits = logits.double()
        if logits.shape[1] == 1:
            second = torch.sigmoid(logits)
            return torch.cat([1 - second, second], dim=1)
        return torch.softmax(logits, dim=1)

    def answer(self, probabilities: NDArray[np.float64], top_k: int = 0) -> dict[str, Any]:
        """One image's probabilities (K,) as label, confidence and probabilities by class, the likeliest first.

        Args:
            probabilities: (K,), summing to 1.
            top_k: so many classes in ``probabilities``; 0: all.
        """
        order = np.argsort(-probabilities, kind="stable")
        chosen = int(order[0])
        if len(self.class_names) == 2:
            chosen = int(probabilities[1] >= self.threshold)
        shown = order[:top_k] if top_k > 0 else order
        return {
            "label": self.class_names[chosen],
            "confidence": float(probabilities[chosen]),
            "probabilities": {self.class_names[int(i)]: float(probabilities[i]) for i in shown},
        }

    def answers(
        self, images: Sequence[bytes | Pixels], names: Sequence[str], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Label, confidence and probabilities of each image; ``top_k`` as for `answer`."""
        top_k = int(parameters.get("top_k", 0))
        if top_k < 0:
            raise ValueError(f"top_k must be 0 (all classes) or more, not {top_k}")
        prepared = [self.prepare(image, name) for image, name in zip(images, names, strict=True)]
        # one image at a time: the same bits whatever the company
        return [self.answer(self.probabilities(np.expand_dims(image, 0))[0], top_k) for image in prepared]
