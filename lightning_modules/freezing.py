"""Transfer learning: a network's parameters by depth, frozen and unfrozen in stages, with learning rates by layer."""

from __future__ import annotations

import pytorch_lightning as pl
from torch import nn


def depth_groups(network: nn.Module) -> list[list[nn.Module]]:
    """The network's modules that hold parameters, grouped by depth from the input to the head.

    Containers of equal stages (``blocks``, ``layers``, ``stages``, ``features`` and the like) count by their children;
    all other top-level children are a group each. The last group is the head.
    """
    groups: list[list[nn.Module]] = []
    head = head_of(network)
    for child in network.children():
        parts = list(child.children()) if isinstance(child, (nn.Sequential, nn.ModuleList)) else [child]
        groups.extend(
            [part] for part in parts if part is not head and _holds_parameters(part) and not _within(head, part)
        )
        for part in parts:
            if part is not head and _within(head, part):
                groups.extend([inner] for inner in part.children() if inner is not head and _holds_parameters(inner))
    return [*groups, [head]]


def head_of(network: nn.Module) -> nn.Module:
    """The module that turns features into logits: the last linear layer."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(network).__name__} has no linear layer that could be its head")
    return linear[-1]


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

    Frozen modules stay in evaluation mode, so that their batch statistics do not move either.
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
        everything = learning == len(self._groups)
        self._network.requires_grad_(everything)
        self._network.train(everything)
        for group in self._groups[len(self._groups) - learning :]:
            for module in group:
                module.requires_grad_(True)
                module.train(True)
