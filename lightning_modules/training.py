"""The training stage: from a prepared data set and a policy to checkpoints and a model bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

import lightning_modules.networks
from lightning_modules import adapters, probes
from lightning_modules.callbacks import FiniteLoss, Pictures, Reports
from lightning_modules.data_module import ImageData
from lightning_modules.families import BUILDERS
from lightning_modules.setup import Setup, architecture_of, operations, set_up
from lightning_modules.trainer import BEST, build_trainer, callbacks_of, device_name, quieten
from recognition import bundle
from recognition.errors import ConfigurationError
from recognition.events import Emit, ignore
from recognition.experiment import Experiment
from recognition.records import Policy, PreparedData, TrainedModel

NETWORKS_FOLDER = Path(lightning_modules.networks.__file__).parent


def fit(
    data: PreparedData, policy: Policy, experiment: Experiment, folder: Path, *, emit: Emit = ignore
) -> TrainedModel:
    """Train, keep the best and the last checkpoint, and write the best weights as a bundle.

    Args:
        data: the prepared data set.
        policy: the augmentation policy.
        experiment: what to train and how.
        folder: the run's folder; ``checkpoints/`` and ``bundle/`` are written there.
        emit: called with progress and each epoch's metrics.

    Raises:
        ConfigurationError: the network does not fit the images, the task not the data, or the device is not here.
        ModelError: start weights are missing or another architecture's.
        RecognitionError: the loss became infinite or no number.
    """
    training = experiment.training
    quieten()
    pl.seed_everything(experiment.seed, verbose=False)
    setup = set_up(data, experiment)
    adapters.check(setup.model.adapter_rank, setup.task, training)
    flops = operations(setup.network, setup.architecture)
    parameters = sum(parameter.numel() for parameter in setup.network.parameters())
    setup.network.to(memory_format=torch.channels_last)
    module = BUILDERS[setup.task](setup)
    reports, pictures = Reports(emit, training.epochs), Pictures(emit, folder / "pictures")
    checkpoints = folder / "checkpoints"
    trainer = build_trainer(training, [reports, FiniteLoss(), pictures, *callbacks_of(setup, module, checkpoints)])
    device = trainer.strategy.root_device
    images = ImageData(
        data.path,
        policy.path if policy.transforms else None,
        training.batch_size,
        experiment.seed,
        training.loader_workers,
        pin_memory=device.type == "cuda",
        task=setup.task,
    )
    if data.counts["train"] < trainer.world_size:
        raise ConfigurationError("training.devices: there are fewer training images than devices.")
    baselines = _baselines(setup, device)
    trainer.fit(module, datamodule=images)
    result = TrainedModel(
        path=folder,
        bundle=folder / "bundle",
        task=setup.task,
        monitor=setup.monitor,
        best_epoch=_best_epoch(reports.history, setup),
        epochs=len(reports.history["train/loss"]),
        device=device_name(device),
        parameters=parameters,
        flops=flops,
        history=reports.history,
        baselines=baselines,
    )
    if trainer.is_global_zero:
        weights = adapters.merged(network_weights(checkpoints / f"{BEST}.ckpt"))
        bundle.save(result.bundle, setup.description(), weights, NETWORKS_FOLDER)
        (folder / "history.json").write_text(json.dumps(reports.history, indent=2))
    return result


def _baselines(setup: Setup, device: torch.device) -> dict[str, float]:
    """Scores of the start weights' features, where they are asked for."""
    evaluation = setup.experiment.evaluation
    if not evaluation.probe or setup.task != "classification":
        return {}
    return probes.baselines(setup.network, setup.data, setup.mean, setup.std, evaluation.batch_size, device)


def _best_epoch(history: Mapping[str, list[float]], setup: Setup) -> int:
    values = np.array(history[setup.monitor])
    return int(values.argmin() if setup.less_is_better else values.argmax())


def network_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The network's tensors from a Lightning checkpoint, which is read without executing anything in it."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    state: Mapping[str, Tensor] = content["state_dict"]
    prefix = "network."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


__all__ = ["NETWORKS_FOLDER", "architecture_of", "fit", "network_weights"]
