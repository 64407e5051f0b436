"""The books of an audit: which images are still in use, why others are not, and every finding in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from recognition.audit import wording
from recognition.audit.audited import Groups
from recognition.audit.grouping import Indices
from recognition.audit.inspected import Inspected
from recognition.audit.names import encodable, listed, told, visible
from recognition.data_settings import Audit
from recognition.objects import Flaw
from recognition.records import Finding

FILES = 100
"""Names in a finding at most; the report's JSON file has all of them."""
GROUPS = 50
GROUP_FILES = 10
_LONGEST_MESSAGE = 2000
_FAILING_FILES = 10
_SEVERITY = {"fail": 0, "move": 1, "quarantine": 1, "warn": 2}


class Ledger:
    """What is known of an audit that is under way."""

    def __init__(self, inspected: Inspected, settings: Audit, protected: NDArray[np.bool_]) -> None:
        """``protected`` images (those of a frozen test set) are left out only where they cannot be read."""
        self.inspected, self.settings, self.protected = inspected, settings, protected
        self.used = np.ones(len(inspected), bool)
        self.left_out: dict[int, str] = {}
        self.found: list[tuple[Finding, Groups]] = [(finding, ()) for finding in inspected.findings]
        self.unusable: list[str] = []
        """Why the images cannot be used whatever the policies are."""
        self._failing: list[str] = [
            _failure(finding.message, finding.files, finding.count)
            for finding in inspected.findings
            if finding.policy == "fail"
        ]

    def leave_out(self, images: Iterable[int], kind: str) -> str:
        """Leave images out, and say how many."""
        count = staying = 0
        for index in images:
            if self.protected[index] and index not in self.inspected.unreadable:
                staying += 1
            elif index not in self.left_out:
                self.left_out[index] = kind
                self.used[index] = False
                count += 1
        kept = f" {staying:,} of the frozen test set {stay(staying)}." if staying else ""
        return f"Left out {number(count)}.{kept}"

    def images(self, kind: str, images: Sequence[int], details: str = "", reasons: Sequence[str] = ()) -> None:
        """Apply the policy for a finding on single images, and enter it.

        Args:
            reasons: for the first images a text that says more than the name does.
        """
        if not len(images):
            return
        policy = getattr(self.settings, kind)
        done = self.leave_out(images, kind) if policy == "quarantine" else ""
        names = [self.name(index) for index in images[:FILES]]
        what, then = wording.told(kind, len(images), details), _done(kind, policy, done, len(images))
        self._note_failure(kind, policy, f"{what}. {then}", reasons or names, len(images))
        message = f"{what}: {listed(reasons or names, len(images))}. {then}"
        members = tuple((int(index),) for index in images)
        self.enter(kind, policy, message, len(images), files=names, members=members)

    def objects(self, kind: str, flaws: Sequence[Flaw], done: str = "") -> None:
        """Apply the policy for a finding on what is said of images, and enter it; without a policy it is only told.

        Args:
            kind: of all the flaws.
            flaws: each about an image.
            done: what was done where the policy is quarantine, if something else than to leave the images out.
        """
        if not flaws:
            return
        policy = getattr(self.settings, kind, "warn")
        images = sorted({flaw.image for flaw in flaws})
        if policy != "quarantine":
            done = ""
        elif not done:
            done = self.leave_out(images, kind)
        reasons = [f"{self.name(flaw.image)} {flaw.what}" for flaw in flaws[:FILES]]
        what, then = wording.told(kind, len(flaws)), _done(kind, policy, done, len(flaws))
        self._note_failure(kind, policy, f"{what}. {then}", reasons, len(flaws))
        message = f"{what}: {listed(reasons, len(flaws), longest=300)}. {then}"
        names = [self.name(index) for index in images[:FILES]]
        self.enter(kind, policy, message, len(flaws), files=names, members=tuple((index,) for index in images))

    def copies(
        self, kind: str, policy: str, groups: Sequence[Indices], named: Callable[[int], str], done: str = ""
    ) -> None:
        """Enter a finding on groups of images; ``named`` names one of them with what matters (class, split)."""
        first = [group[:GROUP_FILES].tolist() for group in groups[:GROUPS]]
        shown = [[named(index) for index in group] for group in first]
        names = [self.name(index) for group in first for index in group]
        texts = [" = ".join(visible(name) for name in group) for group in shown]
        details = number(sum(len(group) for group in groups), "file")
        what, then = wording.told(kind, len(groups), details), _done(kind, policy, done, len(groups))
        self._note_failure(kind, policy, f"{what}. {then}", texts, len(groups))
        message = f"{what}: {listed(texts, len(groups), longest=1000)}. {then}"
        members = tuple(tuple(group.tolist()) for group in groups)
        self.enter(kind, policy, message, len(groups), files=names, groups=shown, members=members)

    def classes(self, kind: str, message: str, count: int) -> None:
        """Enter a finding on classes, by the policy for it."""
        policy = getattr(self.settings, kind)
        forbidden = f"{message} Forbidden by data.audit.{kind}=fail." if policy == "fail" else message
        self._note_failure(kind, policy, forbidden, (), count)
        self.enter(kind, policy, forbidden, count)

    def enter(
        self,
        kind: str,
        policy: str,
        message: str,
        count: int,
        *,
        files: Sequence[str] = (),
        groups: Sequence[Sequence[str]] = (),
        members: Groups = (),
    ) -> None:
        """Enter a finding whose policy is applied."""
        finding = Finding(
            kind=kind,
            message=encodable(message[:_LONGEST_MESSAGE]),
            files=tuple(encodable(name) for name in files[:FILES]),
            count=count,
            policy=policy,
            groups=tuple(tuple(encodable(name) for name in group) for group in groups),
        )
        self.found.append((finding, members))

    def _note_failure(self, kind: str, policy: str, message: str, texts: Sequence[str], count: int) -> None:
        if policy == "fail":
            message = f"{message} Or set {wording.setting_to_change(kind)}."
            self._failing.append(_failure(message, texts, count))

    def in_order(self) -> list[tuple[Finding, Groups]]:
        """All findings, the gravest first."""
        return sorted(self.found, key=lambda entry: _SEVERITY[entry[0].policy])

    def failures(self) -> str:
        """Why the images cannot be used, or nothing."""
        if not self.unusable and not self._failing:
            return ""
        return "\n".join(["The images cannot be used as they are.", *self.unusable, *self._failing])

    def name(self, index: int) -> str:
        return self.inspected.sample_ids[index]

    def with_class(self, index: int) -> str:
        """An image's name, which tells its class, or what objects it shows."""
        if self.inspected.annotated:
            return f"{self.name(index)} ({self.inspected.annotated.told(index)})"
        return told(self.name(index), self.inspected.class_names[self.inspected.labels[index]])


def number(count: int, noun: str = "image") -> str:
    """A number of things, as in a sentence."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def stay(count: int) -> str:
    """The verb after a number of things that are not left out."""
    return "stays" if count == 1 else "stay"


def _done(kind: str, policy: str, done: str, count: int) -> str:
    if not done:
        done = f"Forbidden by data.audit.{kind}=fail." if policy == "fail" else "Used all the same."
    return f"{done} {wording.advice(kind, count)}"


def _failure(message: str, texts: Sequence[str], count: int) -> str:
    lines = [f"  {visible(text)}" for text in texts[:_FAILING_FILES]]
    if texts and count > len(lines):
        lines.append(f"  and {count - len(lines):,} more")
    return "\n".join([message, *lines])
