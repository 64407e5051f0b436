"""What a training reports while it runs."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
from PIL import Image
from torch import Tensor

from recognition.errors import RecognitionError
from recognition.events import Emit, EpochEnd, Picture, Progress
from recognition.pixels import Pixels

SECONDS_BETWEEN_REPORTS = 0.25


class Reports(pl.Callback):
    """Emits progress a few times a second and all metrics once an epoch, from the first process only."""

    def __init__(self, emit: Emit, epochs: int) -> None:
        self._emit = emit
        self._epochs = epochs
        self._reported = 0.0
        self._epoch_began = 0.0
        self.history: dict[str, list[float]] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if now - self._reported < SECONDS_BETWEEN_REPORTS or not trainer.is_global_zero:
            return
        self._reported = now
        per_epoch = int(trainer.num_training_batches)
        done = trainer.current_epoch * per_epoch + batch_idx + 1
        text = f"epoch {trainer.current_epoch + 1}/{self._epochs}"
        self._emit(Progress("train", done, self._epochs * per_epoch, "steps", text))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {name: _number(value) for name, value in trainer.callback_metrics.items()}
        metrics["epoch/learning_rate"] = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        metrics["epoch/seconds"] = time.perf_counter() - self._epoch_began
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)
        if trainer.is_global_zero:
            self._emit(EpochEnd(trainer.current_epoch, self._epochs, metrics))


@runtime_checkable
class Pictured(Protocol):
    """A LightningModule that can show how far it has come."""

    def pictures(self) -> dict[str, Pixels]:
        """By name, uint8 (H, W, 1 or 3)."""


class Pictures(pl.Callback):
    """Writes a module's pictures after each epoch and emits where they lie, from the first process only."""

    def __init__(self, emit: Emit, folder: Path) -> None:
        self._emit = emit
        self._folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not isinstance(pl_module, Pictured) or not trainer.is_global_zero:
            return
        step = trainer.current_epoch + 1
        for name, pixels in pl_module.pictures().items():
            path = self._folder / f"{name}-{step:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path)
            self._emit(Picture(name, step, path))


class FiniteLoss(pl.Callback):
    """Stops a training whose loss is no number any more, at the end of the epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = _number(trainer.callback_metrics["train/loss"])
        if not math.isfinite(loss):
            raise RecognitionError(
                f"training: the loss is {loss} after epoch {trainer.current_epoch + 1}. "
                "Lower training.learning_rate, or set training.gradient_clip=1."
            )


def _number(value: Tensor | float) -> float:
    return float(value)
