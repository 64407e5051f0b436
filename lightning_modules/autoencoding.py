"""Autoencoders: what is lost on the way through the code, and how codes are spread.

Denoising: Vincent et al., "Extracting and composing robust features with denoising autoencoders", ICML 2008.
Variational: Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014; its factor beta: Higgins et al.,
"beta-VAE", ICLR 2017.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.data_module import Batch
from lightning_modules.learner import Learner
from lightning_modules.networks.autoencoder import Autoencoder
from lightning_modules.noise import UNLEARNED, code_noise, noisy
from lightning_modules.setup import Setup
from recognition.errors import ConfigurationError
from recognition.experiment import Training
from recognition.restoration_scores import psnr

Loss = Literal["mse", "l1", "bce"]


def build(setup: Setup) -> ImageAutoencoder:
    """The autoencoder of an experiment.

    Raises:
        ConfigurationError: the augmentation mixes classes.
    """
    augmentation = setup.experiment.augmentation
    for name in ("mixup", "cutmix"):
        if getattr(augmentation, name):
            raise ConfigurationError(f"augmentation.{name} mixes classes, and an autoencoder has none: leave it out.")
    return ImageAutoencoder(
        cast(Autoencoder, setup.network), setup.mean, setup.std, setup.experiment.training, setup.experiment.seed
    )


def reconstruction_loss(logits: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Mean over pixels of the squared or absolute error of the sigmoid of ``logits``, or of the cross-entropy.

    Args:
        logits: (N, C, H, W).
        targets: (N, C, H, W), in [0, 1].
        loss: which one.
    """
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(logits, targets)
    restored = torch.sigmoid(logits)
    return F.mse_loss(restored, targets) if loss == "mse" else F.l1_loss(restored, targets)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of normal distributions from the standard one, summed over a code: (N,), >= 0.

    Kingma and Welling 2014, appendix B. Arguments are (N, code).
    """
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=1)


class ImageAutoencoder(Learner):
    """Trains a network on uint8 batches to give clean images back; labels are not looked at.

    The loss of a variational one is the negative lower bound of the likelihood over the number of pixels, so that all
    losses are of one size: the mean loss of a pixel plus beta times the divergence by pixels.
    """

    network: Autoencoder

    def __init__(
        self, network: Autoencoder, mean: tuple[float, ...], std: tuple[float, ...], training: Training, seed: int
    ) -> None:
        """Bind a network to what it learns.

        Args:
            network: what encodes and decodes.
            mean: per channel, in units of [0, 1], of the images that are read.
            std: per channel, in units of [0, 1], above 0.
            training: optimiser, schedule, loss and noise.
            seed: of the noise.
        """
        super().__init__(network, mean, std, training)
        self._seed = seed
        self._variational = network.to_log_variance is not None
        self._sums: dict[str, dict[str, Tensor]] = {"train": {}, "val": {}}

    def given(self, batch: Batch, epoch: int) -> Tensor:
        """A batch as the network reads it, float (N, C, H, W): with noise where that is asked for, normalised."""
        images = batch.images
        if self._training.noise:
            images = noisy(images, batch.positions, self._training.noise, self._seed, epoch)
        return self.normalise(images)

    def targets(self, batch: Batch) -> Tensor:
        """The clean images, float (N, C, H, W) in [0, 1]."""
        return batch.images.to(self.mean.dtype) / 255

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.given(batch, self.current_epoch + 1), self.targets(batch)
        if self._variational:
            mean, log_variance = (numbers.float() for numbers in self.network.distribution(images))
            codes = mean + (log_variance / 2).exp() * torch.randn_like(mean)
            loss = self._lower_bound(codes, mean, log_variance, targets)
        else:
            loss = self._reconstruction(self.network.encode(images), targets)
        if self._training.l1:
            loss = loss + self._training.l1 * sum(p.abs().sum() for p in self.parameters() if p.ndim > 1)
        self._add("train", {"loss": loss.detach()}, len(targets))
        return loss * batch.share

    def on_train_epoch_start(self) -> None:
        self._sums["train"].clear()

    def on_validation_epoch_start(self) -> None:
        self._sums["val"].clear()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, targets = self.given(batch, UNLEARNED), self.targets(batch)
        if self._variational:
            mean, log_variance = (numbers.float() for numbers in self.network.distribution(images))
            drawn = code_noise(mean.shape[1], batch.positions, self._seed).to(mean.device)
            loss = self._lower_bound(mean + (log_variance / 2).exp() * drawn, mean, log_variance, targets)
            told = {"loss": loss, "divergence": divergence(mean, log_variance).mean()}
        else:
            mean = self.network.encode(images)
            told = {"loss": self._reconstruction(mean, targets)}
        errors = (self.network.decode(mean).float() - targets).square().mean(dim=(1, 2, 3))
        self._add("val", {**told, "psnr": psnr(errors).mean()}, len(targets))

    def on_validation_epoch_end(self) -> None:
        """Log both splits: validation closes the training epoch, and callbacks read the metrics after it."""
        for split in ("train", "val"):
            self.log_dict({f"{split}/{name}": value for name, value in self._means(split).items()})

    def _reconstruction(self, codes: Tensor, targets: Tensor) -> Tensor:
        return reconstruction_loss(self.network.logits(codes).float(), targets, self._training.reconstruction_loss)

    def _lower_bound(self, codes: Tensor, mean: Tensor, log_variance: Tensor, targets: Tensor) -> Tensor:
        pixels = targets[0].numel()
        spread = divergence(mean, log_variance).mean()
        return self._reconstruction(codes, targets) + self._training.beta * spread / pixels

    def _add(self, split: str, means: dict[str, Tensor], count: int) -> None:
        sums = self._sums[split]
        for name, value in {**means, "count": torch.ones((), device=self.device)}.items():
            sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value * count

    def _means(self, split: str) -> dict[str, Tensor]:
        """Means over all processes' images."""
        sums = self._sums[split]
        values = torch.stack([value.float() for value in sums.values()])
        if self.trainer.world_size > 1:
            values = self.all_gather(values).sum(dim=0)  # type: ignore[union-attr]  # a tensor in, a tensor out
        summed = dict(zip(sums, values, strict=True))
        count = summed.pop("count")
        return {name: value / count for name, value in summed.items()}
