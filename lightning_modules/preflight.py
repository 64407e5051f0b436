"""Before anything is fetched and without a GPU: does the combination work, how large is it, how long will it take.

What depends on images that are only assumed is a warning; what is known, or needs no images, is refused by its name.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from lightning_modules import adapters, footprint, generation
from lightning_modules.data_module import PIXELS_WORTH_A_WORKER
from lightning_modules.devices import Device, device_memory, device_of
from lightning_modules.evaluation import check_fit
from lightning_modules.families import BUILDERS
from lightning_modules.freezing import Unfreezing
from lightning_modules.networks import Architecture, build_network
from lightning_modules.setup import Setup, network_refused, with_first_weights
from lightning_modules.trainer import check_devices, quieten
from lightning_modules.weights import load_start_weights, read_weights
from recognition import bundle, estimates, policies, policy_trials
from recognition.defaults import resolve_model, resolve_task
from recognition.disk_space import store_bytes
from recognition.errors import ConfigurationError, ModelError, RecognitionError
from recognition.estimates import Footprint
from recognition.events import Emit, ignore
from recognition.expectations import as_prepared
from recognition.experiment import Experiment, Model, Training
from recognition.families import FAMILIES, Task
from recognition.records import Expected, Preflight


@dataclass
class Doubts:
    """What is wrong if the images are as they are expected: refused where they are known, else a warning."""

    sure: bool
    expected: Expected
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def about_images(self) -> Iterator[None]:
        """Let the block's mistakes through where the images are known, else note them."""
        try:
            yield
        except RecognitionError as mistake:
            if self.sure:
                raise
            size = f"{self.expected.height}x{self.expected.width}x{self.expected.channels}"
            where = f"if the images are of {size} in {self.expected.classes} classes ({self.expected.known})"
            self.warnings.append(f"{mistake} This is so {where}.")


def examine(experiment: Experiment, expected: Expected, timed: bool = True, *, emit: Emit = ignore) -> Preflight:
    """Refuse what cannot work, and estimate parameters, memory and time of what can.

    Args:
        experiment: with registered models as local folders.
        expected: what is known of the images.
        timed: also estimate the time, for which a step is run on a CPU.
        emit: not called.

    Raises:
        ConfigurationError, ModelError: by the setting's name.
    """
    quieten()
    check(experiment)
    data = as_prepared(expected)
    doubts = Doubts(expected.kind_is_sure and expected.size_is_sure, expected)
    if not doubts.sure:
        _check_library_name(experiment.model)
        _check_weights_readable(experiment.model)
    task = _task(experiment, expected)
    device, devices = device_of(experiment.training)
    policy, augmenting = "", 0.0
    with doubts.about_images():
        policy, augmenting = policy_trials.on_noise(experiment, expected)
    resolved, found, rate, rate_from = experiment.model, None, 0.0, ""
    with doubts.about_images():
        resolved = resolve_model(experiment.model, data)
        setup, critic, meta = _built(experiment, expected)
        _check_weights(setup, resolved)
        found = footprint.footprint(setup, meta, critic)
        if timed:
            rate, rate_from = _rate(experiment, expected, setup, meta, found, device)
    total, free = device_memory(device)
    preflight = Preflight(
        device=device,
        devices=devices,
        task=task,
        network=FAMILIES[task].network if resolved.network == "auto" else resolved.network,
        data=expected,
        policy=policy,
        total_mb=total,
        free_mb=free,
        store_mb=store_bytes(experiment.data, expected) / estimates.MB,
    )
    if found is not None:
        preflight = _estimated(preflight, experiment.training, found, rate, rate_from, augmenting)
        with doubts.about_images():
            _check_memory(found, experiment, preflight)
        doubts.warnings += _tight_memory(preflight)
    return preflight.model_copy(update={"warnings": tuple(doubts.warnings)})


def examine_model(experiment: Experiment, model: Path, expected: Expected, *, emit: Emit = ignore) -> Preflight:
    """Refuse settings with which a model cannot be scored, and tell its size.

    Args:
        experiment: that of the model, with the settings of this evaluation.
        model: its bundle.
        expected: the images it is scored on.
        emit: not called.

    Raises:
        ConfigurationError: the device is not here.
        DataError: the images' classes or shape are not the model's.
        ModelError: the model is not whole.
    """
    check_devices(experiment.training)
    scorer = bundle.load(model)
    if expected.size_is_sure and expected.class_names:
        check_fit(as_prepared(expected), scorer.description, model)
    device: Device = "cuda" if device_of(experiment.training)[0] == "cuda" else "cpu"
    total, free = device_memory(device)
    network: nn.Module = scorer.network
    weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    return Preflight(
        device=device,
        devices=1,
        task=scorer.task,
        network=scorer.description["architecture"]["network"],
        data=expected,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        memory_mb={"weights": weights / estimates.MB, "process": estimates.PROCESS_MB[device]},
        total_mb=total,
        free_mb=free,
    )


def check(experiment: Experiment) -> None:
    """Refuse, whatever the images, what only the libraries know: policies, adapters, weight files, devices.

    Raises:
        ConfigurationError: by the setting's name.
    """
    kind = FAMILIES[experiment.task].fits[0] if experiment.task else "classes"
    policies.build(policies.choose(experiment.augmentation, 64, 64, 3, kind)[1], 64, 64, kind)
    adapters.check(experiment.model.adapter_rank, experiment.task, experiment.training)
    weights = experiment.model.weights
    if weights and not weights.startswith("models:/") and not Path(weights).exists():
        raise ConfigurationError(f"model.weights: there is no file {weights}.")
    if experiment.model.pretrained and not weights and "/" not in experiment.model.network:
        raise ModelError(
            f"model.pretrained: there are no pretrained weights for model.network={experiment.model.network}; name a "
            "timm/ or torchvision/ network."
        )
    if experiment.task == "generation":
        generation.check(experiment)
    check_devices(experiment.training)


def _task(experiment: Experiment, expected: Expected) -> Task:
    if expected.kind_is_sure:
        return resolve_task(experiment.model, expected.kind)
    return experiment.task or resolve_task(experiment.model, expected.kind)


def _check_library_name(model: Model) -> None:
    """Refuse an unknown network of a library, although the images are not known."""
    if "/" not in model.network:
        return
    try:
        # a network that does not take such images, or needs memory, is judged by the images that come
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            build_network(Architecture(network=model.network, outputs=2, height=224, width=224, image_channels=3))
    except ValueError as error:
        if "pixels" not in str(error):
            raise network_refused(error) from None
    except (NotImplementedError, RuntimeError):
        return


def _check_weights_readable(model: Model) -> None:
    if model.weights:
        read_weights(Path(model.weights))


def _built(experiment: Experiment, expected: Expected) -> tuple[Setup, nn.Module | None, bool]:
    """The network as it will learn, a GAN's discriminator, and whether both are on the meta device."""
    data = as_prepared(expected)
    setup, meta = footprint.on_meta(lambda: with_first_weights(data, experiment))
    critic: nn.Module | None = None
    if setup.task != "generation" or expected.class_names:
        with torch.device("meta" if meta else "cpu"):
            module = BUILDERS[setup.task](setup)
        critic = getattr(module, "discriminator", None)
    # where a moving average is kept, a copy learns in the network's place
    setup.network.requires_grad_(True)
    _freeze(setup.network, experiment.training)
    return setup, critic, meta


def _freeze(network: nn.Module, training: Training) -> None:
    """Let learn what learns in the last epoch, when most does."""
    if training.freeze != "none":
        Unfreezing(network, training.freeze == "staged", training.unfreeze_epoch).apply(training.epochs - 1)


def _check_weights(setup: Setup, resolved: Model) -> None:
    """Refuse start weights whose shapes are another network's; those of a hub are not fetched for it."""
    if not resolved.weights:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # copying into tensors without content
        load_start_weights(setup.network, resolved, setup.architecture)


def _rate(
    experiment: Experiment, expected: Expected, setup: Setup, meta: bool, found: Footprint, device: Device
) -> tuple[float, str]:
    """Operations a second, and where the number comes from."""
    if device != "cpu":
        bits = "32" if device == "mps" or experiment.training.precision == "32" else "16"
        return estimates.NOMINAL_RATE[device, bits], f"a nominal rate of a {device} device, not measured"
    if not footprint.can_be_timed(setup, found):
        return footprint.convolution_rate(), "measured on a convolution"
    with torch.random.fork_rng(devices=[]):
        real = with_first_weights(as_prepared(expected), experiment) if meta else setup
        rate = footprint.step_rate(real, found, lambda network: _freeze(network, experiment.training))
    return rate, "measured on a step of this network"


def _estimated(
    preflight: Preflight, training: Training, found: Footprint, rate: float, rate_from: str, augmenting: float
) -> Preflight:
    data = preflight.data
    workers = training.loader_workers
    if workers < 0:
        large = data.height * data.width >= PIXELS_WORTH_A_WORKER
        workers = min(8, (os.cpu_count() or 1) // 2) if large and augmenting else 0
    took = estimates.seconds(found, training, data, rate, augmenting, workers) if rate else 0.0
    return preflight.model_copy(
        update={
            "parameters": found.parameters,
            "flops": found.flops,
            "memory_mb": estimates.memory(found, training, data, preflight.device),
            "seconds": took,
            "rate": rate,
            "rate_from": rate_from,
        }
    )


def _check_memory(found: Footprint, experiment: Experiment, preflight: Preflight) -> None:
    """Refuse what needs more than there is, by what is needed for certain."""
    training = experiment.training
    if not preflight.total_mb or experiment.model.adapter_rank:  # adapters keep less than the whole network
        return
    least = estimates.least_memory(found, training)
    if least <= preflight.total_mb:
        return
    of_weights = estimates.least_memory(found, training.model_copy(update={"batch_size": 0}))
    fitting = int((preflight.total_mb - of_weights) / (least - of_weights) * training.batch_size)
    fix = f"{fitting} or fewer fit" if fitting > 0 else "none fits: take a smaller network or data.image_size"
    raise ConfigurationError(
        f"training.batch_size={training.batch_size} takes {least / 1000:,.1f} GB at least, but the {preflight.device} "
        f"has {preflight.total_mb / 1000:,.1f} GB: {fix}."
    )


def _tight_memory(preflight: Preflight) -> list[str]:
    if not preflight.total_mb or preflight.needed_mb <= estimates.ALMOST_FULL * preflight.free_mb:
        return []
    return [
        f"training.batch_size: training takes about {preflight.needed_mb:,.0f} MB, and {preflight.free_mb:,.0f} MB of "
        f"the {preflight.device}'s memory are free now."
    ]
