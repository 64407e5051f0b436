"""Detection and instance segmentation: one of torchvision's detectors, its losses, and mean average precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchmetrics.detection import MeanAveragePrecision

from lightning_modules.data_module import Batch
from lightning_modules.learner import Learner
from lightning_modules.setup import Setup
from recognition.errors import ConfigurationError
from recognition.experiment import Training

MASK_FROM = 0.5
"""The probability from which a pixel belongs to an object."""
Targets = list[dict[str, Tensor]]


def build(setup: Setup) -> ObjectDetector:
    """The detector of an experiment.

    Raises:
        ConfigurationError: images are to be mixed, whose boxes cannot be.
    """
    augmentation = setup.experiment.augmentation
    for name in ("mixup", "cutmix"):
        if getattr(augmentation, name):
            raise ConfigurationError(f"augmentation.{name} mixes the classes of whole images: leave it out for boxes.")
    masks = setup.model.task == "instance_segmentation"
    return ObjectDetector(setup.network, masks, setup.mean, setup.std, setup.experiment.training)


class ObjectDetector(Learner):
    """Trains a detector on uint8 batches, which it normalises on the device.

    ``train/loss`` is the sum of the network's own losses, which are logged beside it (``train/classification_loss``
    and the like). ``val/loss`` is the same sum on validation images, with the batch statistics as in evaluation.
    """

    def __init__(
        self,
        network: nn.Module,
        masks: bool,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        training: Training,
    ) -> None:
        """Bind a network to what it learns.

        Args:
            network: float images (N, C, H, W), and targets while training, to losses by name while training, else to
                boxes, labels, scores (and masks, float (n, 1, H, W)) of each image. Its ``first_label`` is the number
                of our class 0.
            masks: learn and score masks too.
            mean: per channel, in units of [0, 1].
            std: per channel, in units of [0, 1], above 0.
            training: optimiser and schedule.
        """
        super().__init__(network, mean, std, training)
        self._masks = masks
        self._first_label = int(network.first_label)  # type: ignore[arg-type]  # torch takes any attribute for a tensor
        self._scores = MeanAveragePrecision(
            iou_type=("bbox", "segm") if masks else "bbox", backend="faster_coco_eval", dist_sync_on_step=False
        )
        self._scores.warn_on_many_detections = False
        self._sums = {"train": _Means(), "val": _Means()}

    def forward(self, images: Tensor) -> Targets:
        """Boxes, labels from 0 on, scores (and masks, bool (n, H, W)) of uint8 images (N, C, H, W)."""
        return self._told(self.network(self.normalise(images)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.network(self.normalise(batch.images), self._targets(batch))
        loss = torch.stack(list(losses.values())).sum()
        self._sums["train"].add(loss, losses, len(batch.images))
        return loss * batch.share

    def on_train_epoch_start(self) -> None:
        self._sums["train"].reset()

    def on_validation_epoch_start(self) -> None:
        self._sums["val"].reset()
        self._scores.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images = self.normalise(batch.images)
        with _giving_losses(self.network), self._fixed_draws():
            losses = self.network(images, self._targets(batch))
        self._sums["val"].add(torch.stack(list(losses.values())).sum(), losses, len(images))
        assert batch.objects is not None
        self._scores.update(self._told(self.network(images)), batch.objects)

    def on_validation_epoch_end(self) -> None:
        """Log both splits: validation closes the training epoch, and callbacks read the metrics after it."""
        logged = {f"train/{name}": value for name, value in self._sums["train"].means(self).items()}
        logged["val/loss"] = self._sums["val"].means(self)["loss"]
        scores = self._scores.compute()
        prefixes = {"bbox_": "", "segm_": "mask_"} if self._masks else {"": ""}
        for theirs, ours in prefixes.items():
            for name in ("map", "map_50"):
                # -1 where there is nothing to find
                logged[f"val/{ours}{name}"] = scores[f"{theirs}{name}"].float().clamp(min=0)
        self.log_dict(logged)

    def _targets(self, batch: Batch) -> Targets:
        """What the network is to find, by its own count of classes."""
        assert batch.objects is not None
        return [{**found, "labels": found["labels"] + self._first_label} for found in batch.objects]

    def _told(self, found: Targets) -> Targets:
        """What the network finds, by our count of classes, with masks cut at one half."""
        told = []
        for one in found:
            own = {"boxes": one["boxes"].float(), "labels": one["labels"] - self._first_label, "scores": one["scores"]}
            if self._masks:
                own["masks"] = one["masks"][:, 0] >= MASK_FROM
            told.append(own)
        return told

    @contextmanager
    def _fixed_draws(self) -> Iterator[None]:
        """Let the network draw the same regions each time, and leave torch's stream where it was."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            yield


@contextmanager
def _giving_losses(network: nn.Module) -> Iterator[None]:
    """Training mode, in which torchvision's detectors give losses, but no statistics move and nothing is dropped."""
    was = {module: module.training for module in network.modules()}
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm | _DropoutNd):
            module.eval()
    try:
        yield
    finally:
        for module, training in was.items():
            module.training = training


class _Means:
    """Losses by name, added up on the device."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, loss: Tensor, parts: Mapping[str, Tensor], count: int) -> None:
        named = {"loss": loss} | {f"{name.removeprefix('loss_')}_loss": value for name, value in parts.items()}
        for name, value in named.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)).detach() + value.detach() * count
        self._count += count

    def means(self, module: pl.LightningModule) -> dict[str, Tensor]:
        """Means over all processes' images; nothing but NaN as ``loss`` when nothing was added."""
        if not self._sums:
            return {"loss": torch.tensor(float("nan"), device=module.device)}
        sums = torch.stack([*self._sums.values(), torch.tensor(float(self._count), device=module.device)])
        if module.trainer.world_size > 1:
            gathered: Any = module.all_gather(sums)
            sums = gathered.sum(dim=0)
        return {name: value / sums[-1] for name, value in zip(self._sums, sums, strict=False)}
