"""What a LightningModule is built from: the network of an experiment, with its start weights, and what it learns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.networks import Architecture, build_network, example_inputs
from lightning_modules.weights import load_start_weights
from recognition.defaults import normalization, resolve_model, resolve_task
from recognition.errors import ConfigurationError
from recognition.experiment import Experiment, Model
from recognition.families import FAMILIES, Task, is_better_when_lower
from recognition.records import PreparedData


@dataclass(frozen=True)
class Setup:
    """A network and what it learns."""

    network: nn.Module
    """With its start weights; the LightningModule keeps it under this name, and its weights are what is saved."""
    architecture: Architecture
    model: Model
    """The resolved section: nothing in it is ``auto``."""
    data: PreparedData
    experiment: Experiment
    mean: tuple[float, ...]
    """Per channel, in units of [0, 1]."""
    std: tuple[float, ...]
    """Per channel, in units of [0, 1], above 0."""

    @cached_property
    def task(self) -> Task:
        """What is learned."""
        return resolve_task(self.model, self.data.kind)

    @property
    def monitor(self) -> str:
        """The validation score whose best epoch is kept."""
        asked = self.experiment.training.monitor
        return FAMILIES[self.task].monitor if asked == "auto" else asked

    @property
    def less_is_better(self) -> bool:
        """Whether the best epoch is the one where the monitored score is lowest."""
        return is_better_when_lower(self.monitor)

    def description(self) -> dict[str, object]:
        """What the model's bundle says of it, as JSON holds it."""
        data, evaluation = self.data, self.experiment.evaluation
        return {
            "task": self.task,
            "architecture": dataclasses.asdict(self.architecture),
            "class_names": list(data.class_names),
            "threshold": evaluation.threshold,
            "score_threshold": evaluation.score_threshold,
            "noise": self.experiment.training.noise,
            "preprocessing": {
                "height": data.height,
                "width": data.width,
                "channels": data.channels,
                "resize": self.experiment.data.resize,
                "mean": list(self.mean),
                "std": list(self.std),
            },
        }


def set_up(data: PreparedData, experiment: Experiment) -> Setup:
    """Build the network that an experiment asks for, fitted to the images, with its start weights.

    Raises:
        ConfigurationError: the network does not fit the images, or the task not the data.
        ModelError: start weights are missing or another architecture's.
    """
    setup = with_first_weights(data, experiment)
    load_start_weights(setup.network, setup.model, setup.architecture)
    return setup


def with_first_weights(data: PreparedData, experiment: Experiment) -> Setup:
    """Build the network that an experiment asks for, fitted to the images, as it is initialised.

    Raises:
        ConfigurationError: the network does not fit the images, or the task not the data.
    """
    model = resolve_model(experiment.model, data)
    architecture = architecture_of(model, data)
    try:
        network = build_network(architecture)
    except ValueError as error:
        raise network_refused(error) from None
    mean, std = normalization(experiment.augmentation, model, data)
    return Setup(network, architecture, model, data, experiment, mean, std)


def architecture_of(model: Model, data: PreparedData) -> Architecture:
    """The architecture that a model section and a data set's images ask for."""
    resolved = resolve_model(model, data)
    settings = {field.name: getattr(resolved, field.name, None) for field in dataclasses.fields(Architecture)}
    given = {name: value for name, value in settings.items() if value is not None}
    return Architecture(
        **given
        | {
            "outputs": 1 if resolved.head == "sigmoid" else data.num_classes,
            "height": data.height,
            "width": data.width,
            "image_channels": data.channels,
            "units": resolved.width,
        }
    )


def network_refused(error: ValueError) -> ConfigurationError:
    """What the user is told when a network cannot be built."""
    text = str(error)
    return ConfigurationError(f"model.network: {text}" + ("" if text.endswith("?") else "."))


def operations(network: nn.Module, architecture: Architecture) -> int:
    """Floating-point operations of one image's forward pass (a multiplication and an addition are two).

    Raises:
        ConfigurationError: the network does not take images of this size.
    """
    was_training = network.training
    network.eval()
    inputs = example_inputs(architecture)
    try:
        # oneDNN's recurrent layers count for nothing, PyTorch's own for what they do
        with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            network(*inputs)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigurationError(
            f"model.network: {architecture.network} does not take images of {architecture.height}x{architecture.width} "
            f"pixels ({str(error).splitlines()[0]}): set data.image_size to what it was made for, often 224."
        ) from None
    network.train(was_training)
    return int(counter.get_total_flops())
