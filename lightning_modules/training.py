"""The training stage: from a prepared data set and a policy to checkpoints and a model bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import lightning_modules.networks
from lightning_modules.callbacks import FiniteLoss, Reports
from lightning_modules.classification import ImageClassifier
from lightning_modules.data_module import ImageData
from lightning_modules.freezing import Unfreezing
from lightning_modules.networks import Architecture, build_network
from lightning_modules.weights import load_start_weights
from recognition import bundle
from recognition.defaults import normalization, resolve_model
from recognition.errors import ConfigurationError
from recognition.events import Emit, ignore
from recognition.experiment import Experiment, Model, Training
from recognition.records import Policy, PreparedData, TrainedModel

NETWORKS_FOLDER = Path(lightning_modules.networks.__file__).parent
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
BEST, LAST = "best.ckpt", "last.ckpt"


def architecture_of(model: Model, data: PreparedData) -> Architecture:
    """The architecture that a model section and a data set's images ask for."""
    resolved = resolve_model(model, data)
    return Architecture(
        network=resolved.network,
        outputs=1 if resolved.head == "sigmoid" else data.num_classes,
        height=data.height,
        width=data.width,
        image_channels=data.channels,
        channels=resolved.channels,
        kernel_size=resolved.kernel_size,
        padding=resolved.padding,
        pooled_blocks=resolved.pooled_blocks,
        batch_norm=resolved.batch_norm,
        neck=resolved.neck,
        dense=resolved.dense,
        dropout=resolved.dropout,
    )


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
        ConfigurationError: the network does not fit the images, the head not the classes, or the device is not here.
        ModelError: start weights are missing or another architecture's.
        RecognitionError: the loss became infinite or no number.
    """
    training = experiment.training
    _quieten()
    pl.seed_everything(experiment.seed, verbose=False)
    model = resolve_model(experiment.model, data)
    if model.head == "sigmoid" and data.num_classes != 2:
        raise ConfigurationError(f"model.head=sigmoid is for two classes; these images have {data.num_classes}.")
    architecture = architecture_of(model, data)
    try:
        network = build_network(architecture)
    except ValueError as error:
        raise _network_refused(error) from None
    load_start_weights(network, model, architecture)
    flops = _flops(network, architecture)
    network = network.to(memory_format=torch.channels_last)
    mean, std = normalization(experiment.augmentation, model, data)
    module = ImageClassifier(
        network,
        data.num_classes,
        model.head == "sigmoid",
        mean,
        std,
        training,
        experiment.augmentation,
        experiment.seed,
        _class_weight(data) if training.class_weights == "balanced" else None,
    )
    reports = Reports(emit, training.epochs)
    checkpoints = [
        ModelCheckpoint(
            folder / "checkpoints",
            BEST.removesuffix(".ckpt"),
            monitor=training.monitor,
            mode="min" if training.monitor == "val/loss" else "max",
            enable_version_counter=False,
        ),
        # `save_last` above would keep the last that was the best so far
        ModelCheckpoint(folder / "checkpoints", LAST.removesuffix(".ckpt"), enable_version_counter=False),
    ]
    trainer = _trainer(training, [reports, FiniteLoss(), *_optional_callbacks(training, network), *checkpoints])
    images = ImageData(
        data.path,
        policy.path if policy.transforms else None,
        training.batch_size,
        experiment.seed,
        training.loader_workers,
        pin_memory=trainer.strategy.root_device.type == "cuda",
    )
    if data.counts["train"] < trainer.world_size:
        raise ConfigurationError("training.devices: there are fewer training images than devices.")
    trainer.fit(module, datamodule=images)
    result = TrainedModel(
        path=folder,
        bundle=folder / "bundle",
        best_epoch=_best_epoch(reports.history, training),
        epochs=len(reports.history["train/loss"]),
        device=_device_name(trainer.strategy.root_device),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        flops=flops,
        history=reports.history,
    )
    if trainer.is_global_zero:
        bundle.save(
            result.bundle,
            {
                "architecture": dataclasses.asdict(architecture),
                "class_names": list(data.class_names),
                "threshold": experiment.evaluation.threshold,
                "preprocessing": {
                    "height": data.height,
                    "width": data.width,
                    "channels": data.channels,
                    "resize": experiment.data.resize,
                    "mean": list(mean),
                    "std": list(std),
                },
            },
            network_weights(folder / "checkpoints" / BEST),
            NETWORKS_FOLDER,
        )
        (folder / "history.json").write_text(json.dumps(reports.history, indent=2))
    return result


def network_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The network's tensors from a Lightning checkpoint, which is read without executing anything in it."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    state: Mapping[str, Tensor] = content["state_dict"]
    prefix = "network."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def check(experiment: Experiment, *, emit: Emit = ignore) -> None:
    """Refuse, before any image is fetched, what only the libraries know: network names, policies, devices.

    Raises:
        ConfigurationError: by the setting's name.
    """
    from recognition import policies

    augmentation = experiment.augmentation
    policies.build(augmentation.transforms or policies.presets().get(augmentation.preset, []), 64, 64)
    model = experiment.model
    if "/" in model.network:
        try:
            # a network that cannot be built without memory is judged when it is trained
            with torch.device("meta"), contextlib.suppress(NotImplementedError, RuntimeError):
                build_network(Architecture(network=model.network, outputs=2, height=224, width=224, image_channels=3))
        except ValueError as error:
            raise _network_refused(error) from None
    if model.weights and not Path(model.weights).is_file():
        raise ConfigurationError(f"model.weights: there is no file {model.weights}.")
    _check_devices(experiment.training)


def _network_refused(error: ValueError) -> ConfigurationError:
    text = str(error)
    return ConfigurationError(f"model.network: {text}" + ("" if text.endswith("?") else "."))


def _check_devices(training: Training) -> None:
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


def _trainer(training: Training, callbacks: list[pl.Callback]) -> pl.Trainer:
    _check_devices(training)
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


def _optional_callbacks(training: Training, network: nn.Module) -> list[pl.Callback]:
    callbacks: list[pl.Callback] = []
    if training.freeze != "none":
        callbacks.append(Unfreezing(network, training.freeze == "staged", training.unfreeze_epoch))
    if training.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=training.ema_decay))
    if training.early_stopping:
        callbacks.append(EarlyStopping("val/loss", patience=training.early_stopping, mode="min"))
    return callbacks


def _best_epoch(history: Mapping[str, list[float]], training: Training) -> int:
    values = np.array(history[training.monitor])
    return int(values.argmin() if training.monitor == "val/loss" else values.argmax())


def _class_weight(data: PreparedData) -> Tensor:
    """Factors inverse to the class counts, with mean 1 over the images (scikit-learn's "balanced")."""
    counts = torch.tensor([data.class_counts["train"][name] for name in data.class_names], dtype=torch.float32)
    return counts.sum() / (len(counts) * counts.clamp(min=1))


def _flops(network: nn.Module, architecture: Architecture) -> int:
    """Floating-point operations of one image's forward pass (a multiplication and an addition are two)."""
    was_training = network.training
    network.eval()
    image = torch.zeros(1, architecture.image_channels, architecture.height, architecture.width)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(image)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigurationError(
            f"model.network: {architecture.network} does not take images of {architecture.height}x{architecture.width} "
            f"pixels ({str(error).splitlines()[0]}): set data.image_size to what it was made for, often 224."
        ) from None
    network.train(was_training)
    return int(counter.get_total_flops())


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({os.cpu_count()} cores)" if device.type == "cpu" else device.type


def _quieten() -> None:
    """Leave the talking to our own reports."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    for known in (
        ".*does not have many workers.*",  # chosen by image size and policy
        ".*exists and is not empty.*",  # a run's own folder
        ".*is smaller than the logging interval.*",  # nothing is logged by step
        ".*LeafSpec.*",  # deprecated inside torch and Lightning
        ".*GPU available but not used.*",
        ".*sync_dist=True.*",  # what is logged has been added up over the processes
    ):
        warnings.filterwarnings("ignore", message=known)


__all__: list[str] = ["architecture_of", "check", "fit", "network_weights"]
