"""Lightning's trainer as the section ``training`` asks for it: devices, arithmetic, callbacks, checkpoints."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint

from lightning_modules.adapters import Adapters
from lightning_modules.freezing import Unfreezing
from lightning_modules.setup import Setup
from recognition.errors import ConfigurationError
from recognition.experiment import Training

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
BEST, LAST = "best", "last"


def build_trainer(training: Training, callbacks: list[pl.Callback]) -> pl.Trainer:
    """A trainer that says nothing itself.

    Raises:
        ConfigurationError: the devices are not here.
    """
    check_devices(training)
    return pl.Trainer(
        accelerator=training.accelerator,
        devices=training.devices,
        strategy=_strategy(training),
        precision=PRECISIONS[training.precision],  # type: ignore[arg-type]  # Lightning spells its choices as literals
        max_epochs=training.epochs,
        accumulate_grad_batches=training.accumulate,
        gradient_clip_val=training.gradient_clip or None,
        deterministic=training.deterministic,
        benchmark=not training.deterministic,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _strategy(training: Training) -> str:
    if training.devices == 1:
        return "auto"
    # frozen parameters give no gradient to wait for
    return "ddp" if training.freeze == "none" else "ddp_find_unused_parameters_true"


def callbacks_of(setup: Setup, module: pl.LightningModule, folder: Path) -> list[pl.Callback]:
    """What an experiment's settings add to a training, and its checkpoints, best and last, in a folder."""
    training, network = setup.experiment.training, setup.network
    monitor, mode = setup.monitor, "min" if setup.less_is_better else "max"
    callbacks: list[pl.Callback] = []
    if training.freeze != "none":
        callbacks.append(Unfreezing(network, training.freeze == "staged", training.unfreeze_epoch))
    # what optimises by hand averages by hand
    if training.ema_decay and module.automatic_optimization:
        callbacks.append(EMAWeightAveraging(decay=training.ema_decay))
    if training.early_stopping:
        callbacks.append(EarlyStopping(monitor, patience=training.early_stopping, mode=mode))
    if setup.model.adapter_rank:
        callbacks.append(Adapters(network, setup.architecture, setup.model.adapter_rank))
    best = ModelCheckpoint(folder, BEST, monitor=monitor, mode=mode, enable_version_counter=False)
    # `save_last` of the first would keep the last that was the best so far
    return [*callbacks, best, ModelCheckpoint(folder, LAST, enable_version_counter=False)]


def check_devices(training: Training) -> None:
    """Refuse devices that this machine does not have.

    Raises:
        ConfigurationError: by the setting's name.
    """
    gpus = torch.cuda.device_count()
    if training.accelerator == "gpu" and gpus == 0:
        raise ConfigurationError("training.accelerator=gpu, but this machine shows no GPU: use auto or cpu.")
    if training.accelerator == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError("training.accelerator=mps, but this machine has no Apple GPU: use auto or cpu.")
    on_gpu = training.accelerator == "gpu" or (training.accelerator == "auto" and gpus > 0)
    if on_gpu and training.devices > gpus:
        raise ConfigurationError(f"training.devices={training.devices}, but this machine has {gpus} GPUs.")
    if training.batch_size < training.devices:
        raise ConfigurationError(
            f"training.batch_size={training.batch_size} gives {training.devices} devices less than an image each."
        )
    if training.precision == "16" and not on_gpu:
        raise ConfigurationError("training.precision=16 needs a GPU: use 32 or bf16.")


def device_name(device: torch.device) -> str:
    """What a run's record calls a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({os.cpu_count()} cores)" if device.type == "cpu" else device.type


def quieten() -> None:
    """Leave the talking to our own reports."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    for known in (
        ".*does not have many workers.*",  # chosen by image size and policy
        ".*exists and is not empty.*",  # a run's own folder
        ".*is smaller than the logging interval.*",  # nothing is logged by step
        ".*LeafSpec.*",  # deprecated inside torch and Lightning
        ".*GPU available but not used.*",
        ".*TF32 acceleration on top of oneDNN.*",  # said by torch's own switch of oneDNN
        ".*sync_dist=True.*",  # what is logged has been added up over the processes
    ):
        warnings.filterwarnings("ignore", message=known)
