"""Transfer learning: a network's parameters by depth, frozen and unfrozen in stages, with learning rates by layer."""

from __future__ import annotations

import pytorch_lightning as pl
from torch import nn

_STACKS = (nn.Sequential, nn.ModuleList)
_MOST = 0.5


def depth_groups(network: nn.Module) -> list[list[nn.Module]]:
    """The network's modules that hold parameters, grouped by depth from the input to the head.

    Containers of stages (``blocks``, ``layers``, ``features`` and the like) count by their children, also within a
    child that consists of little else (torchvision's ``encoder``); all other top-level children are a group each. The
    last group is the head. Parameters that lie on the network itself (class tokens, positions) are in no group.
    """
    head = head_of(network)
    groups = [[part] for child in network.children() for part in _stages(child, head)]
    return [*groups, [head]]


def _stages(module: nn.Module, head: nn.Module, stacked: bool = False) -> list[nn.Module]:
    """The stages within a top-level child; a stage of a stack is not divided further, but for taking out the head."""
    if module is head or not _holds_parameters(module):
        return []
    children = list(module.children())
    if not stacked and isinstance(module, _STACKS):
        return [stage for child in children for stage in _stages(child, head, stacked=True)]
    if not stacked and any(_is_most_of(child, module) for child in children):
        return [stage for child in children for stage in _stages(child, head)]
    if _within(head, module):
        return [stage for child in children for stage in _stages(child, head, stacked)]
    return [module]


def _is_most_of(child: nn.Module, module: nn.Module) -> bool:
    if not isinstance(child, _STACKS) or len(child) < 2:
        return False
    return _size(child) > _MOST * _size(module)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def head_of(network: nn.Module) -> nn.Module:
    """What turns features into logits: what timm or a detector names so, else the last linear layer or convolution."""
    place = getattr(network, "head_name", None)
    if isinstance(place, str):
        return network.get_submodule(place)
    named = getattr(network, "get_classifier", None)
    classifier = named() if callable(named) else None
    if isinstance(classifier, nn.Module) and _holds_parameters(classifier):
        return classifier
    for kind in (nn.Linear, nn.Conv2d):
        layers = [module for module in network.modules() if isinstance(module, kind)]
        if layers:
            return layers[-1]
    raise ValueError(f"{type(network).__name__} has no layer that could be its head")


def _holds_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _within(inner: nn.Module, outer: nn.Module) -> bool:
    return any(module is inner for module in outer.modules())


def rate_factors(network: nn.Module, layer_decay: float) -> dict[int, float]:
    """The learning-rate factor of each parameter, by ``id``: ``layer_decay`` to the power of its depth below the head.

    Layer-wise rates: Howard and Ruder, "Universal language model fine-tuning for text classification", ACL 2018.
    """
    groups = depth_groups(network)
    factors = {}
    for below_head, group in enumerate(reversed(groups)):
        for module in group:
            factors.update({id(parameter): layer_decay**below_head for parameter in module.parameters()})
    deepest = layer_decay ** len(groups)
    for parameter in network.parameters():  # class tokens and positions lie on the network itself
        factors.setdefault(id(parameter), deepest)
    return factors


class Unfreezing(pl.Callback):
    """Keeps the backbone frozen, or unfreezes it stage by stage from an epoch on.

    Frozen stages are in evaluation mode, so that neither their batch statistics move nor their dropout draws; what
    has no parameters, such as the dropout before the head, is not frozen.
    """

    def __init__(self, network: nn.Module, staged: bool, first_epoch: int) -> None:
        """Choose the plan.

        Args:
            network: whose backbone is frozen.
            staged: one more group learns each epoch from ``first_epoch`` on, the last first; otherwise all of them do,
                or none ever when ``first_epoch`` is 0.
            first_epoch: epoch from which the backbone learns.
        """
        self._network = network
        self._groups = depth_groups(network)
        self._staged = staged
        self._first_epoch = first_epoch

    def trainable_groups(self, epoch: int) -> int:
        """How many groups learn in an epoch, counted from the head."""
        if self._staged:
            return min(len(self._groups), 1 + max(0, epoch - self._first_epoch + 1))
        thawed = self._first_epoch > 0 and epoch >= self._first_epoch
        return len(self._groups) if thawed else 1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.apply(trainer.current_epoch)

    def apply(self, epoch: int) -> None:
        """Set which parameters learn in an epoch."""
        learning = self.trainable_groups(epoch)
        frozen = len(self._groups) - learning
        self._network.requires_grad_(frozen == 0)
        self._network.train()
        for number, group in enumerate(self._groups):
            for module in group:
                module.requires_grad_(number >= frozen)
                module.train(number >= frozen)
