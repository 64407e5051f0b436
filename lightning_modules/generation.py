"""Generative adversarial networks: a generator and a discriminator in turn, by manual optimisation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from lightning_modules import adversarial, optimisation
from lightning_modules.data_module import Batch
from lightning_modules.judges import Judge, check_judge
from lightning_modules.networks.dcgan import build_discriminator
from lightning_modules.setup import Setup
from recognition.distribution_scores import Features, Gaussian, frechet_distance, gaussian_of
from recognition.errors import ConfigurationError
from recognition.experiment import Experiment, Training
from recognition.pixels import Pixels
from recognition.records import PreparedData
from recognition.scoring.generator import as_pixels, noise
from recognition.tiles import tiled

MOST_SAMPLES = 1000
"""Samples whose distance is measured after each epoch; `Evaluation.samples` may ask for fewer."""
FIXED_NOISE = 1
"""The stream of noise of the samples that are looked at in training; what is scored on test images is other noise."""
GRID_ROWS, GRID_COLUMNS = 10, 10
LEARNERS = ("generator", "discriminator")
"""In the order of their optimisers and schedules."""
MADE_AT_ONCE = 250


def build(setup: Setup) -> ImageGenerator:
    """The GAN of an experiment; the network is its generator.

    Raises:
        ConfigurationError: a setting makes no sense for a GAN, or the judge does not know these images.
    """
    experiment = setup.experiment
    check(experiment)
    if setup.architecture.outputs != setup.data.num_classes:
        raise ConfigurationError("model.head=sigmoid is for classifiers: leave it out.")
    if any(value != 0.5 for value in (*setup.mean, *setup.std)):
        raise ConfigurationError(
            f"augmentation.normalization={experiment.augmentation.normalization}: a generator's pixels lie in [-1, 1], "
            "which is half: leave the setting out."
        )
    check_judge(experiment.evaluation.judge, setup.data)
    discriminator = build_discriminator(setup.architecture, experiment.training.adversarial_loss != "wgan_gp")
    return ImageGenerator(setup.network, discriminator, setup.architecture.code, setup.data, experiment)


def check(experiment: Experiment) -> None:
    """Refuse what a GAN cannot be trained with.

    Raises:
        ConfigurationError: by the setting's name.
    """
    training, augmentation = experiment.training, experiment.augmentation
    refused = {
        "training.accumulate": (training.accumulate > 1, "a GAN takes its steps itself: set training.batch_size"),
        "training.gradient_clip": (
            training.gradient_clip > 0,
            "a GAN is steadied by training.adversarial_loss and training.gradient_penalty",
        ),
        "training.l1": (training.l1 > 0, "a GAN has no such penalty"),
        "training.devices": (training.devices > 1, "a GAN is trained on one device"),
        "training.precision": (training.precision == "16", "a GAN's steps are not scaled for float16: use 32 or bf16"),
        "training.optimizer": (training.optimizer == "sgd", "a GAN is trained with adam or adamw"),
        "training.freeze": (training.freeze != "none", "a GAN has no backbone to freeze"),
        "training.layer_decay": (training.layer_decay < 1, "all its layers learn at one rate"),
        "augmentation.mixup": (augmentation.mixup > 0, "a GAN would learn to make mixed images"),
        "augmentation.cutmix": (augmentation.cutmix > 0, "a GAN would learn to make mixed images"),
    }
    for name, (wrong, why) in refused.items():
        if wrong:
            section, _, key = name.partition(".")
            value = getattr(getattr(experiment, section), key)
            raise ConfigurationError(f"{name}={value} is not for generation: {why}.")


def spread_labels(counts: Iterable[int], samples: int) -> NDArray[np.int64]:
    """Class numbers (samples,), sorted, in the proportions of the classes' counts."""
    shares = np.cumsum(np.fromiter(counts, dtype=np.float64))
    places = (np.arange(samples) + 0.5) / samples * shares[-1]
    labels: NDArray[np.int64] = np.searchsorted(shares, places, side="right").astype(np.int64)
    return labels


class ImageGenerator(pl.LightningModule):
    """Trains a generator against a discriminator; ``network`` is what is kept: the generator, or its moving average."""

    steps: Tensor

    def __init__(
        self, network: nn.Module, discriminator: nn.Module, code: int, data: PreparedData, experiment: Experiment
    ) -> None:
        """Bind the two networks to what they learn.

        Args:
            network: noise (N, code) and labels (N,) to images (N, C, H, W) in [-1, 1].
            discriminator: images and labels to scores (N,).
            code: numbers of the noise.
            data: what is imitated.
            experiment: optimiser, loss, seed and judge.
        """
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.discriminator = discriminator.to(memory_format=torch.channels_last)
        self._training = experiment.training
        self._code = code
        if self._training.ema_decay:
            self.learner = copy.deepcopy(network)
            network.requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._judge_folder = experiment.evaluation.judge
        self._judge: Judge | None = None
        self._real: Gaussian | None = None
        self._real_features: list[Features] = []
        samples = min(experiment.evaluation.samples, MOST_SAMPLES)
        counts = [data.class_counts["train"][name] for name in data.class_names]
        self._sample_labels = spread_labels(counts, samples)
        self._sample_noise = noise(samples, code, experiment.seed, FIXED_NOISE)
        self._means = nn.ModuleDict({name: MeanMetric(nan_strategy="disable") for name in (*LEARNERS, "real")})

    @property
    def generator(self) -> nn.Module:
        """The generator that learns."""
        return self.learner if self._training.ema_decay else self.network

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Images, float (N, C, H, W) in [-1, 1], of the generator that is kept."""
        made: Tensor = self.network(latents, labels)
        return made

    @staticmethod
    def normalise(images: Tensor) -> Tensor:
        """uint8 images (N, C, H, W) as the generator makes them: float in [-1, 1]."""
        return images.float() / 127.5 - 1

    def on_train_start(self) -> None:
        batches = int(self.trainer.num_training_batches)
        if batches < self._training.critic_steps:
            raise ConfigurationError(
                f"training.critic_steps={self._training.critic_steps}, but an epoch has {batches} batches: set it, or "
                "training.batch_size, lower."
            )
        self._judge = Judge.load(self._judge_folder, str(self.device))

    def on_train_epoch_start(self) -> None:
        for name in LEARNERS:
            self._mean(name).reset()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step of the discriminator, and one of the generator after each ``critic_steps`` of them."""
        real, labels = self.normalise(batch.images), batch.labels
        self._step("discriminator", lambda: self.discriminator_loss(real, labels))
        if (batch_idx + 1) % self._training.critic_steps == 0:
            self._step("generator", lambda: self.generator_loss(labels))
            self._average()

    def discriminator_loss(self, real: Tensor, labels: Tensor) -> Tensor:
        """Of real images (N, C, H, W) in [-1, 1] and as many new ones of the same classes, labels (N,)."""
        kind = self._training.adversarial_loss
        with torch.no_grad():
            fake = self.generator(self._draw(len(real)), labels).to(real.dtype)
        both = torch.cat([real, fake]).to(memory_format=torch.channels_last)
        scores = self.discriminator(both, labels.repeat(2)).float()
        of_real, of_fake = scores.chunk(2)
        loss = adversarial.real_loss(kind, of_real) + adversarial.fake_loss(kind, of_fake)
        if kind == "wgan_gp":
            penalty = adversarial.gradient_penalty(lambda images: self.discriminator(images, labels), real, fake)
            loss = loss + self._training.gradient_penalty * penalty
        return loss

    def generator_loss(self, labels: Tensor) -> Tensor:
        """Of new images of the classes ``labels`` (N,)."""
        fake = self.generator(self._draw(len(labels)), labels)
        return adversarial.generator_loss(self._training.adversarial_loss, self.discriminator(fake, labels).float())

    def _draw(self, count: int) -> Tensor:
        return torch.randn(count, self._code, device=self.device)

    def _step(self, name: str, loss_of: Callable[[], Tensor]) -> None:
        """A step of one of the `LEARNERS`, and of its schedule; the other one's weights get no gradient."""
        place = LEARNERS.index(name)
        optimizer = cast(list[LightningOptimizer], self.optimizers())[place]
        self.toggle_optimizer(optimizer)
        loss = loss_of()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        cast(list[LambdaLR], self.lr_schedulers())[place].step()
        self._mean(name).update(loss.detach())

    @torch.no_grad()
    def _average(self) -> None:
        """Move the kept generator towards the learning one; it begins as that after its first step."""
        decay = self._training.ema_decay if self.steps else 0.0
        self.steps += 1
        if not self._training.ema_decay:
            return
        kept = self.network.state_dict()
        for name, value in self.learner.state_dict().items():
            if value.is_floating_point():
                kept[name].lerp_(value, 1 - decay)
            else:
                kept[name].copy_(value)

    def on_validation_epoch_start(self) -> None:
        self._mean("real").reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.discriminator(self.normalise(batch.images), batch.labels).float()
        self._mean("real").update(adversarial.real_loss(self._training.adversarial_loss, scores), len(scores))
        if self._real is None:
            assert self._judge is not None
            images = batch.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
            self._real_features.append(self._judge.look(images)[0])

    def on_validation_epoch_end(self) -> None:
        """Log losses of both splits, and how far the fixed samples are from the validation images.

        ``val/loss`` is the generator's loss on the fixed samples, and ``val/discriminator_loss`` the discriminator's on
        them and the validation images, without gradient penalty.
        """
        assert self._judge is not None
        if self._real is None:
            self._real = gaussian_of(np.concatenate(self._real_features))
            self._real_features = []
        kind = self._training.adversarial_loss
        images, scores = self._samples()
        features, _ = self._judge.look(images)
        self.log_dict(
            {
                "train/loss": self._mean("generator").compute(),
                "train/discriminator_loss": self._mean("discriminator").compute(),
                "val/loss": adversarial.generator_loss(kind, scores),
                "val/discriminator_loss": self._mean("real").compute() + adversarial.fake_loss(kind, scores),
                "val/frechet_distance": torch.tensor(frechet_distance(self._real, gaussian_of(features))).float(),
            }
        )

    def pictures(self) -> dict[str, Pixels]:
        """A grid of the first fixed samples, a row a class where classes can be asked for."""
        rows = min(GRID_ROWS, int(self._sample_labels.max()) + 1)
        first = [np.flatnonzero(self._sample_labels == label)[:GRID_COLUMNS] for label in range(rows)]
        columns = max(1, min(len(places) for places in first))
        chosen = np.concatenate([places[:columns] for places in first])
        return {"samples": tiled(self._made(chosen)[0], columns)}

    def _samples(self) -> tuple[Pixels, Tensor]:
        """The images of the fixed noise, uint8 (N, H, W, C), and their scores (N,)."""
        return self._made(np.arange(len(self._sample_labels)))

    @torch.no_grad()
    def _made(self, places: NDArray[np.int64]) -> tuple[Pixels, Tensor]:
        modes = self.network.training, self.discriminator.training
        self.network.eval()
        self.discriminator.eval()
        images, scores = [], []
        for start in range(0, len(places), MADE_AT_ONCE):
            part = places[start : start + MADE_AT_ONCE]
            latents = torch.from_numpy(self._sample_noise[part]).to(self.device)
            labels = torch.from_numpy(self._sample_labels[part]).to(self.device)
            made = self.network(latents, labels)
            images.append(as_pixels(made))
            scores.append(self.discriminator(made, labels).float())
        self.network.train(modes[0])
        self.discriminator.train(modes[1])
        return np.concatenate(images), torch.cat(scores)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam for each network, with the momentum of the loss's paper, and for each a schedule of its own steps."""
        training: Training = self._training
        betas = (0.0, 0.9) if training.adversarial_loss == "wgan_gp" else (0.5, 0.999)
        batches = int(self.trainer.estimated_stepping_batches) // training.epochs
        optimizers, schedulers = [], []
        for network, per_epoch in ((self.generator, batches // training.critic_steps), (self.discriminator, batches)):
            optimizer = optimisation.optimizer_of(network, training, self.device.type, betas)
            optimizers.append(optimizer)
            schedulers.append(optimisation.scheduler_of(optimizer, training, per_epoch * training.epochs))
        return optimizers, schedulers

    def _mean(self, name: str) -> MeanMetric:
        mean = self._means[name]
        assert isinstance(mean, MeanMetric)
        return mean
