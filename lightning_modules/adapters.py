"""Low-rank adapters: a frozen network learns small differences to its weights, which are added to them in the end.

Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022: beside a frozen weight W (out, in) learn
B (out, r) and A (r, in), and compute with W + B A; B begins as zeros, so that training starts with the network as it
is. The adapters are peft's, with a factor (alpha / r) of 1.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_modules.freezing import Unfreezing, head_of
from lightning_modules.networks import Architecture, example_inputs
from recognition.errors import ConfigurationError
from recognition.families import Task
from recognition.settings import install_command

if TYPE_CHECKING:
    from recognition.experiment import Training

_BASE, _DOWN, _UP = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def check(rank: int, task: Task | None, training: Training) -> None:
    """Refuse adapters where they cannot be had or make no sense.

    Args:
        rank: ``model.adapter_rank``; 0 is never refused.
        task: what is learned; none: not known yet.
        training: the section.

    Raises:
        ConfigurationError: the task is another than classification, the backbone is frozen in another way too, or peft
            is not installed.
    """
    if not rank:
        return
    if task not in (None, "classification"):
        raise ConfigurationError(f"model.adapter_rank={rank} is for classifiers, not for {task}: set it to 0.")
    if training.freeze != "none":
        raise ConfigurationError(
            f"model.adapter_rank={rank} keeps the network's own weights frozen throughout, so that"
            f" training.freeze={training.freeze} has nothing left to say: set one of them only."
        )
    if importlib.util.find_spec("peft") is None:
        raise ConfigurationError(
            f"model.adapter_rank={rank} needs peft, which is not installed: {install_command('adapters')}"
        )


def layers_to_adapt(network: nn.Module, architecture: Architecture) -> list[str]:
    """The names of the linear layers and 1x1 convolutions that the network calls, but for the head.

    A layer whose weights are used without calling it (the output of ``nn.MultiheadAttention``) is none of them: its
    adapter would be passed by.
    """
    head = head_of(network)
    called: set[nn.Module] = set()
    hooks = [
        module.register_forward_pre_hook(lambda module, _: called.add(module))
        for module in network.modules()
        if module is not head and _takes_an_adapter(module)
    ]
    was_training = network.training
    network.eval()
    with torch.no_grad():
        network(*(value.to(next(network.parameters()).device) for value in example_inputs(architecture)))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return [name for name, module in network.named_modules() if module in called]


def _takes_an_adapter(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


class Adapters(pl.Callback):
    """Adapters within a network, in place: they and the head learn, and nothing else moves.

    Batch statistics and dropout of the frozen network stand still, as with ``training.freeze=backbone``.
    """

    def __init__(self, network: nn.Module, architecture: Architecture, rank: int) -> None:
        """Put the adapters in.

        Args:
            network: a classifier with its start weights; its layers are replaced.
            architecture: what it was built from.
            rank: of the adapters, at least 1.

        Raises:
            ConfigurationError: the network has no layer that takes an adapter.
        """
        from peft import LoraConfig, inject_adapter_in_model

        names = layers_to_adapt(network, architecture)
        if not names:
            raise ConfigurationError(
                f"model.adapter_rank={rank}: {architecture.network} has no linear layer or 1x1 convolution before its"
                " output that could take an adapter: set it to 0 and training.freeze=backbone or staged, or name a"
                " network with attention, such as vit."
            )
        self._network = network
        # by the stages of the network as it is, which hold their layers also when these are wrapped
        self._frozen = Unfreezing(network, staged=False, first_epoch=0)
        wanted = LoraConfig(r=rank, lora_alpha=rank, target_modules="|".join(map(re.escape, names)))
        inject_adapter_in_model(wanted, network)
        self.apply()
        # what is frozen is put into evaluation mode as each epoch starts
        network.train()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.apply()

    def apply(self) -> None:
        """Set which parameters learn."""
        self._frozen.apply(0)
        for name, parameter in self._network.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(True)


def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an adapted network as those of the plain one: W + B A under the plain names.

    Args:
        weights: the state of a network with `Adapters`; that of a plain one comes back as it is.
    """
    plain = {name: value for name, value in weights.items() if ".lora_" not in name}
    result: dict[str, Tensor] = {}
    for name, value in plain.items():
        layer, base, kind = name.rpartition(_BASE)
        if base and kind == "weight":
            up, down = weights[layer + _UP], weights[layer + _DOWN]
            value = value + (up.flatten(1) @ down.flatten(1)).view_as(value)
        result[f"{layer}.{kind}" if base else name] = value
    return result
