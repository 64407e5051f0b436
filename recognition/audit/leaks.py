"""Copies in several of the splits that a source gives: the policy for them, and what moving them may empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recognition.audit import copies
from recognition.audit.grouping import Indices, name_keys
from recognition.audit.ledger import Ledger, number
from recognition.audit.names import listed, told
from recognition.splits import SPLITS


@dataclass(frozen=True)
class Given:
    """The splits that a source gives, after the policy for leaks."""

    split: NDArray[np.str_]
    """``<U5``, shape (N,)."""
    emptied: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Split and class of which moving took every image, and the policy for leaks that leaves some there."""

    def cause(self, split: NDArray[np.str_], labels: Indices, class_names: Sequence[str]) -> str:
        """Why splits lack a class that they were given, as sentences to add; nothing where no move is the cause.

        Args:
            split: the final split of each image.
        """
        empty = [place for place in self.emptied if not ((split == place[0]) & (labels == place[1])).any()]
        if not empty:
            return ""
        named = [f"every image of {class_names[label]} from {name}" for name, label in empty]
        policy = "quarantine" if all(self.emptied[place] == "quarantine" for place in empty) else "warn"
        instead = {"quarantine": "leaves copies out and moves nothing", "warn": "keeps the splits as they are"}[policy]
        return (
            f" The policy data.audit.leaks=move has taken {listed(named, len(named))} (see leaks);"
            f" data.audit.leaks={policy} {instead}."
        )


def without_leaks(ledger: Ledger, units: Indices) -> Given:
    """Apply the policy for leaks.

    Args:
        units: int64 (N,), equal where images are copies or near copies.
    """
    inspected, policy = ledger.inspected, ledger.settings.leaks
    given = np.array(inspected.splits, dtype="<U5").reshape(len(inspected))
    rank = copies.held_out(given)
    # what is in a unit with a frozen test image is left out by the split
    usable = ledger.used & ~np.isin(units, units[ledger.protected])
    groups = copies.leaking(rank, units, usable)
    if not groups:
        return Given(given)
    result, done = Given(given), ""
    if policy == "auto" and inspected.published_splits:
        done = "Kept, since others publish scores on these splits; data.audit.leaks=quarantine leaves copies out."
    policy = {"auto": "warn" if inspected.published_splits else "move"}.get(policy, policy)  # type: ignore[assignment]
    held_out_less = [index for group in groups for index in group[rank[group] < rank[group].max()].tolist()]
    if policy == "move":
        new = copies.moved(rank, units, name_keys(inspected.groups), usable)
        done = _told_moves(rank, new, np.concatenate(groups))
        result = _moved(ledger, given, rank, new, held_out_less)
    elif policy == "quarantine":
        done = ledger.leave_out(held_out_less, "leaks") + " Their copies in the split that is held out most stay."
    ledger.copies("leaks", policy, groups, lambda index: told(ledger.name(index), str(given[index])), done)
    return result


def _told_moves(rank: Indices, new: Indices, leaking: Indices) -> str:
    changed = np.flatnonzero(new != rank)
    targets = Counter(SPLITS[target] for target in new[changed].tolist())
    moves = ", ".join(f"{number(count)} to {name}" for name, count in sorted(targets.items()))
    along = len(np.setdiff1d(changed, leaking))
    groups = f", {along:,} of them only to stay with their groups" if along else ""
    return f"Moved {moves}{groups}, so that all copies are in the split that is held out most."


def _moved(ledger: Ledger, given: NDArray[np.str_], rank: Indices, new: Indices, held_out_less: Sequence[int]) -> Given:
    changed, labels = new != rank, ledger.inspected.labels
    split = given.copy()
    split[changed] = np.array(SPLITS)[new[changed]]
    stays = ledger.used.copy()
    stays[held_out_less] = False
    before, after, quarantined = (
        {(str(name), int(label)) for name, label in zip(names[images], labels[images], strict=True) if name}
        for names, images in ((given, changed & ledger.used), (split, ledger.used), (given, stays))
    )
    return Given(split, {key: "quarantine" if key in quarantined else "warn" for key in sorted(before - after)})
