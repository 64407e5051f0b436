"""Image classification: a network, its loss, its optimiser and the epoch's scores."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lightning_modules.data_module import Batch
from lightning_modules.learner import Learner
from lightning_modules.losses import ClassificationLoss
from lightning_modules.mixing import mix
from lightning_modules.setup import Setup
from recognition.errors import ConfigurationError
from recognition.experiment import Augmentation, Training
from recognition.records import PreparedData


def build(setup: Setup) -> ImageClassifier:
    """The classifier of an experiment.

    Raises:
        ConfigurationError: the head does not fit the number of classes.
    """
    sigmoid = setup.model.head == "sigmoid"
    if sigmoid and setup.data.num_classes != 2:
        raise ConfigurationError(f"model.head=sigmoid is for two classes; these images have {setup.data.num_classes}.")
    balanced = setup.experiment.training.class_weights == "balanced"
    return ImageClassifier(
        setup.network,
        setup.data.num_classes,
        sigmoid,
        setup.mean,
        setup.std,
        setup.experiment.training,
        setup.experiment.augmentation,
        setup.experiment.seed,
        _class_weight(setup.data) if balanced else None,
    )


def _class_weight(data: PreparedData) -> Tensor:
    """Factors inverse to the class counts, with mean 1 over the images (scikit-learn's "balanced")."""
    counts = torch.tensor([data.class_counts["train"][name] for name in data.class_names], dtype=torch.float32)
    return counts.sum() / (len(counts) * counts.clamp(min=1))


class ImageClassifier(Learner):
    """Trains a network on uint8 batches, which it normalises on the device.

    Losses and scores are added up as tensors and logged once an epoch: logging costs nothing per step.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        sigmoid: bool,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        training: Training,
        augmentation: Augmentation,
        seed: int,
        class_weight: Tensor | None = None,
    ) -> None:
        """Bind a network to what it learns.

        Args:
            network: float images (N, C, H, W) to logits (N, K), or (N, 1) when ``sigmoid``.
            num_classes: K.
            sigmoid: one logit for two classes.
            mean: per channel, in units of [0, 1].
            std: per channel, in units of [0, 1], above 0.
            training: optimiser, schedule and loss.
            augmentation: mixup and CutMix.
            seed: of the mixing.
            class_weight: float (K,), factors of the loss.
        """
        super().__init__(network, mean, std, training)
        self._augmentation = augmentation
        self._seed = seed
        gamma = training.focal_gamma if training.loss == "focal" else None
        self.loss = ClassificationLoss(num_classes, sigmoid, gamma, training.label_smoothing, class_weight)
        self._plain_loss = ClassificationLoss(num_classes, sigmoid)
        self._num_classes = num_classes
        scores = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False),
                "f1_macro": MulticlassF1Score(num_classes, average="macro", validate_args=False),
            }
        )
        self._scores = scores.clone(prefix="val/")
        self._sums = {"train": _Sums(), "val": _Sums()}

    def forward(self, images: Tensor) -> Tensor:
        """Logits of uint8 images (N, C, H, W)."""
        logits: Tensor = self.network(self.normalise(images))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.normalise(batch.images), batch.labels
        if self._augmentation.mixup or self._augmentation.cutmix:
            images, targets = mix(
                images,
                batch.labels,
                self._num_classes,
                mixup=self._augmentation.mixup,
                cutmix=self._augmentation.cutmix,
                seed=self._seed,
                epoch=self.current_epoch,
                batch=batch_idx * self.trainer.world_size + self.global_rank,
            )
        logits = self.network(images).float()
        loss: Tensor = self.loss(logits, targets)
        if self._training.l1:
            loss = loss + self._training.l1 * sum(p.abs().sum() for p in self.parameters() if p.ndim > 1)
        correct = self.loss.log_probabilities(logits).argmax(dim=1) == batch.labels
        self._sums["train"].add(loss.detach(), correct.detach(), len(batch.labels))
        return loss * batch.share

    def on_train_epoch_start(self) -> None:
        self._sums["train"].reset()

    def on_validation_epoch_start(self) -> None:
        self._sums["val"].reset()
        self._scores.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self(batch.images).float()
        log_p = self._plain_loss.log_probabilities(logits)
        predictions = log_p.argmax(dim=1)
        self._scores.update(predictions, batch.labels)
        self._sums["val"].add(self._plain_loss(logits, batch.labels), predictions == batch.labels, len(batch.labels))

    def on_validation_epoch_end(self) -> None:
        """Log both splits: validation closes the training epoch, and callbacks read the metrics after it."""
        train_loss, train_accuracy = self._sums["train"].means(self)
        val_loss, _ = self._sums["val"].means(self)
        self.log_dict({"train/loss": train_loss, "train/accuracy": train_accuracy, "val/loss": val_loss})
        self.log_dict(self._scores.compute())


class _Sums:
    """Loss and right answers, added up on the device."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._loss: Tensor | float = 0.0
        self._correct: Tensor | float = 0.0
        self._count = 0

    def add(self, loss: Tensor, correct: Tensor, count: int) -> None:
        self._loss = self._loss + loss * count
        self._correct = self._correct + correct.sum()
        self._count += count

    def means(self, module: pl.LightningModule) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy over all processes; NaN when nothing was added."""
        values = (self._loss, self._correct, float(self._count))
        sums = torch.stack([torch.as_tensor(value, dtype=torch.float32, device=module.device) for value in values])
        if module.trainer.world_size > 1:
            sums = module.all_gather(sums).sum(dim=0)  # type: ignore[union-attr]  # a tensor in, a tensor out
        return sums[0] / sums[2], sums[1] / sums[2]
