"""Optimiser and schedule of one network, as the section ``training`` asks for them."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn

from lightning_modules import schedules
from lightning_modules.freezing import rate_factors
from recognition.experiment import Training


def configure(module: pl.LightningModule, network: nn.Module, training: Training) -> OptimizerLRScheduler:
    """What ``configure_optimizers`` returns for a module whose only learner is ``network``."""
    optimizer = optimizer_of(network, training, module.device.type)
    scheduler = scheduler_of(optimizer, training, int(module.trainer.estimated_stepping_batches))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def scheduler_of(optimizer: torch.optim.Optimizer, training: Training, total: int) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate's schedule over ``total`` steps."""
    per_epoch = max(1, total // training.epochs)

    def factor(step: int) -> float:
        return schedules.factor(
            training.schedule,
            step,
            total,
            round(training.warmup_epochs * per_epoch),
            training.step_epochs * per_epoch,
            training.step_factor,
        )

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def optimizer_of(
    network: nn.Module, training: Training, device_type: str, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Optimizer:
    """The optimiser for all parameters of a network; ``betas`` are Adam's."""
    groups = parameter_groups(network, training)
    # one kernel instead of a dozen a tensor; fused steps unscale float16 gradients themselves, past the clipping
    fused = device_type in ("cpu", "cuda") and training.precision != "16"
    if training.optimizer == "sgd":
        momentum = training.momentum
        return torch.optim.SGD(groups, training.learning_rate, momentum=momentum, nesterov=momentum > 0, fused=fused)
    if training.optimizer == "adam":
        return torch.optim.Adam(groups, training.learning_rate, betas, fused=fused)
    return torch.optim.AdamW(groups, training.learning_rate, betas, fused=fused)


def parameter_groups(network: nn.Module, training: Training) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay; biases and normalisation are not decayed."""
    factors = rate_factors(network, training.layer_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        decay = training.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((factors[id(parameter)], decay), []).append(parameter)
    return [
        {"params": parameters, "lr": training.learning_rate * factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]
