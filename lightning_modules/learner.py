"""What LightningModules with one network and one optimiser share."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_modules import optimisation
from recognition.experiment import Training


class Learner(pl.LightningModule):
    """A network that reads uint8 batches, normalised on the device."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], training: Training) -> None:
        """Bind a network to how it learns.

        Args:
            network: what learns, and what is saved.
            mean: per channel, in units of [0, 1].
            std: per channel, in units of [0, 1], above 0.
            training: optimiser and schedule.
        """
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1) * 255, persistent=False)
        self._training = training

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images (N, C, H, W) to float ones with about zero mean and unit deviation."""
        normalised: Tensor = (images.to(self.mean.dtype) - self.mean) / self.std
        return normalised

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return optimisation.configure(self, self.network, self._training)
