"""Classification losses on logits, for hard labels and for mixed ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_DOUBT = 1e-12


class ClassificationLoss(nn.Module):
    """Cross-entropy or focal loss, for K logits (softmax) or one (sigmoid); the mean over the batch.

    Focal loss: Lin et al., "Focal loss for dense object detection", ICCV 2017: each image's cross-entropy times
    ``(1 - p) ** gamma``, where p is the probability of its label. Label smoothing: Szegedy et al., CVPR 2016.
    """

    weight: Tensor | None

    def __init__(
        self,
        num_classes: int,
        sigmoid: bool = False,
        focal_gamma: float | None = None,
        label_smoothing: float = 0.0,
        weight: Tensor | None = None,
    ) -> None:
        """Choose the loss.

        Args:
            num_classes: K; 2 when ``sigmoid``.
            sigmoid: one logit, for the second class.
            focal_gamma: gamma of the focal loss; none for cross-entropy.
            label_smoothing: share of each label spread over all classes, 0 <= share < 1.
            weight: float (K,), one factor a class; the mean is then weighted by it, as torch's cross-entropy does
                for labels (for probabilities torch divides by N instead; here a label and its one-hot row are alike).
        """
        super().__init__()
        self.num_classes = num_classes
        self.sigmoid = sigmoid
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss, a scalar.

        Args:
            logits: float (N, K), or (N, 1) when ``sigmoid``.
            targets: int64 (N,) labels, or float (N, K) probabilities.
        """
        shares = targets if targets.is_floating_point() else F.one_hot(targets, self.num_classes).to(logits.dtype)
        norm = shares.sum() if self.weight is None else (shares * self.weight).sum()
        if self.label_smoothing:
            shares = shares * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes
        log_p = self.log_probabilities(logits)
        terms = -shares * log_p
        if self.weight is not None:
            terms = terms * self.weight
        if self.focal_gamma is not None:
            # at p = 1 the slope of a power below 1 is infinite
            terms = terms * (-torch.expm1(log_p)).clamp(min=SMALLEST_DOUBT) ** self.focal_gamma
        return terms.sum() / norm

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Log-probabilities (N, K) of logits (N, K) or (N, 1)."""
        if self.sigmoid:
            return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=1)
        return F.log_softmax(logits, dim=1)
