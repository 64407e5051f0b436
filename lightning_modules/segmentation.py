"""Segmentation: a network that gives each pixel a class, its loss and the epoch's Dice and IoU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.data_module import Batch
from lightning_modules.learner import Learner
from lightning_modules.losses import ClassificationLoss
from lightning_modules.setup import Setup
from recognition import mask_scores
from recognition.errors import ConfigurationError
from recognition.experiment import Training
from recognition.objects import IGNORED


def build(setup: Setup) -> Segmentation:
    """The module of an experiment.

    Raises:
        ConfigurationError: a setting is for classes of whole images.
    """
    augmentation, training = setup.experiment.augmentation, setup.experiment.training
    for name in ("mixup", "cutmix"):
        if getattr(augmentation, name):
            raise ConfigurationError(
                f"augmentation.{name} mixes classes of whole images: leave it out of segmentation."
            )
    if training.class_weights != "none":
        raise ConfigurationError(
            f"training.class_weights={training.class_weights} weighs classes of whole images: leave it out; the Dice "
            "part of the loss weighs all classes alike."
        )
    return Segmentation(setup.network, setup.data.num_classes, setup.mean, setup.std, training)


class SegmentationLoss(nn.Module):
    """Cross-entropy (or focal loss) of pixels plus soft Dice loss of classes; ignored pixels are in neither.

    Soft Dice: Milletari, Navab and Ahmadi, "V-Net", 3DV 2016, with sums over the batch: one minus the mean over the
    classes of objects of ``2 sum(p t) / (sum(p) + sum(t))``, for probabilities p and truth t (0 or 1) of its pixels.
    Classes that are not in the batch's truth are left out of the mean; cross-entropy tells what is found wrongly.
    """

    def __init__(self, num_classes: int, focal_gamma: float | None = None, label_smoothing: float = 0.0) -> None:
        """Choose the loss for ``num_classes`` classes of objects, without background."""
        super().__init__()
        self.pixels = ClassificationLoss(1 + num_classes, False, focal_gamma, label_smoothing)

    def forward(self, logits: Tensor, maps: Tensor) -> Tensor:
        """The loss, a scalar; 0 where every pixel is ignored.

        Args:
            logits: float (N, 1 + K, H, W).
            maps: uint8 (N, H, W).
        """
        counted = maps != IGNORED
        rows, truth = logits.movedim(1, -1)[counted], maps[counted].long()
        if not len(truth):
            return logits.sum() * 0
        loss: Tensor = self.pixels(rows, truth)
        shares = F.one_hot(truth, rows.shape[1])[:, 1:].to(rows.dtype)
        probabilities = rows.softmax(dim=1)[:, 1:]
        there = shares.sum(dim=0)
        dice = 2 * (probabilities * shares).sum(dim=0) / (probabilities.sum(dim=0) + there).clamp(min=1e-6)
        present = there > 0
        return loss + ((1 - dice) * present).sum() / present.sum().clamp(min=1)


class Segmentation(Learner):
    """Trains a network on uint8 batches with class maps; losses and counts are added up and logged once an epoch."""

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        training: Training,
    ) -> None:
        """Bind a network to what it learns.

        Args:
            network: float images (N, C, H, W) to logits (N, 1 + num_classes, H, W), the background's first.
            num_classes: classes of objects.
            mean: per channel, in units of [0, 1].
            std: per channel, in units of [0, 1], above 0.
            training: loss, optimiser and schedule.
        """
        super().__init__(network, mean, std, training)
        gamma = training.focal_gamma if training.loss == "focal" else None
        self.loss = SegmentationLoss(num_classes, gamma, training.label_smoothing)
        self._plain_loss = SegmentationLoss(num_classes)
        self._num_classes = num_classes
        self._sums: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 1 + K, H, W) of uint8 images (N, C, H, W)."""
        logits: Tensor = self.network(self.normalise(images))
        return logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss: Tensor = self.loss(self(batch.images), _maps_of(batch))
        if self._training.l1:
            loss = loss + self._training.l1 * sum(p.abs().sum() for p in self.parameters() if p.ndim > 1)
        self._add_loss("train", loss, len(batch.images))
        return loss * batch.share

    def on_train_epoch_start(self) -> None:
        self._sums["train"] = torch.zeros(2, device=self.device)

    def on_validation_epoch_start(self) -> None:
        size = 1 + self._num_classes
        self._sums["val"] = torch.zeros(2, device=self.device)
        self._counts = torch.zeros(size, size, dtype=torch.int64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits, maps = self(batch.images), _maps_of(batch)
        self._add_loss("val", self._plain_loss(logits, maps), len(maps))
        counted, size = maps != IGNORED, 1 + self._num_classes
        places = maps[counted].long() * size + logits.argmax(dim=1)[counted]
        self._counts += torch.bincount(places, minlength=size * size).view(size, size)

    def on_validation_epoch_end(self) -> None:
        """Log both splits: validation closes the training epoch, and callbacks read the metrics after it."""
        counts = self._over_processes(self._counts).cpu().numpy()
        losses = {split: self._over_processes(sums) for split, sums in self._sums.items()}
        self.log_dict({f"{split}/loss": loss / images for split, (loss, images) in losses.items()})
        self.log_dict(
            {
                "val/dice_macro": mask_scores.macro(mask_scores.dice(counts)),
                "val/iou_macro": mask_scores.macro(mask_scores.iou(counts)),
            }
        )

    def _add_loss(self, split: str, loss: Tensor, images: int) -> None:
        self._sums[split] += torch.stack([loss.detach() * images, loss.new_tensor(images)])

    def _over_processes(self, values: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return values
        return self.all_gather(values).sum(dim=0)  # type: ignore[union-attr]  # a tensor in, a tensor out


def _maps_of(batch: Batch) -> Tensor:
    assert batch.maps is not None
    return batch.maps
