"""From what was seen to what is used: every finding, its policy applied, and the splits.

The order matters. What is left out for its looks no longer counts as a copy. A copy under another label is left out
before it could be moved to another split. Splits are assigned before copies within a split are left out, so that the
images that stay are split the same whatever is done about copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recognition.audit import balance, class_names, copies, duplicates, object_findings, rules
from recognition.audit.audited import Audited
from recognition.audit.grouping import Indices, content_keys, groups_of, name_keys, united
from recognition.audit.inspected import Inspected
from recognition.audit.leaks import Given, without_leaks
from recognition.audit.ledger import FILES, GROUPS, Ledger, number, stay
from recognition.audit.names import listed, told
from recognition.data_settings import Data
from recognition.errors import DataError
from recognition.splits import COPY_OF_FROZEN_TEST, SPLITS, Assignment, Frozen, assign

CONVERSIONS = {
    "palette": "with a palette",
    "transparent": "with transparency",
    "16_bit": "of 16 bits",
    "cmyk": "in CMYK colours",
}
"""Remarks that make up the finding ``converted``."""


def audit(inspected: Inspected, data: Data, frozen: Frozen = frozenset()) -> Audited:
    """Find what is wrong with the images of a source, apply the policies of ``data.audit``, and split what is left.

    Args:
        inspected: the decoded images, with N rows of measures.
        data: policies, and how to split.
        frozen: content digests of a frozen test set; its images are left out only where they cannot be read.

    Returns:
        Also where a policy is ``fail`` and found something, so that a report can be written: `Audited.failures` then
        says what, and `Audited.raise_failures` raises it.

    Raises:
        ConfigurationError: folds, or a frozen test set, of a source that gives that split itself.
    """
    content = np.ascontiguousarray(inspected.measures["content"])
    keys = content_keys(content)
    units = duplicates.find(inspected.measures).unit.astype(np.int64)
    protected = np.zeros(len(inspected), bool)
    if frozen:
        protected[:] = [row.tobytes() in frozen for row in content]
    ledger = Ledger(inspected, data.audit, protected)

    _single_images(ledger)
    if inspected.annotated:
        object_findings.enter_flaws(ledger, inspected.annotated)
    _conflicts(ledger, keys, units)
    given = without_leaks(ledger, units)
    together = united(units, name_keys(inspected.groups))
    split = _split(ledger, content, given, together, data, frozen)
    _copies_within_splits(ledger, split, keys, units)
    split[~ledger.used] = ""
    _parted_groups(ledger, split)
    if inspected.annotated:
        object_findings.enter_classes(ledger, split, inspected.annotated)
    else:
        _classes(ledger, split)

    entries = ledger.in_order()
    return Audited(
        findings=tuple(finding for finding, _ in entries),
        members=tuple(members for _, members in entries),
        left_out=ledger.left_out,
        split=split,
        unit=together,
        class_counts=_class_counts(split, inspected),
        object_counts=object_findings.object_counts(split, inspected.annotated) if inspected.annotated else None,
        failures=ledger.failures(),
    )


def _single_images(ledger: Ledger) -> None:
    inspected = ledger.inspected
    unreadable = sorted(inspected.unreadable)
    reasons = [f"{ledger.name(index)} {inspected.unreadable[index]}" for index in unreadable[:FILES]]
    ledger.images("unreadable", unreadable, reasons=reasons)
    ledger.leave_out(unreadable, "unreadable")  # whatever the policy is: there is nothing to look at
    readable = ledger.used.copy()
    for kind in ("wrong_extension", "animated"):
        ledger.images(kind, _only(readable, inspected.remarks.get(kind, ())))
    converted = {kind: _only(readable, inspected.remarks.get(kind, ())) for kind in CONVERSIONS}
    details = ", ".join(f"{len(found):,} {CONVERSIONS[kind]}" for kind, found in converted.items() if found)
    ledger.images("converted", sorted({index for found in converted.values() for index in found}), details)
    for kind, unusual in rules.unusual(inspected.measures, readable).items():
        ledger.images(kind, unusual.images.tolist(), unusual.details)


def _only(wanted: NDArray[np.bool_], images: Sequence[int]) -> list[int]:
    return [index for index in images if wanted[index]]


def _conflicts(ledger: Ledger, content: Indices, units: Indices) -> None:
    """Copies under several labels: all go, but for a published test set, which scores of others are of."""
    if ledger.inspected.annotated:
        groups = object_findings.conflicting(ledger.inspected.annotated, ledger.used, content)
    else:
        groups = copies.conflicting(ledger.inspected, ledger.used, content, units)
    if not groups:
        return
    policy, done = ledger.settings.conflicting_labels, ""
    if policy == "quarantine":
        images, inspected = _all(groups), ledger.inspected
        published = [index for index in images if inspected.published_splits and inspected.splits[index] == "test"]
        done = ledger.leave_out(set(images) - set(published), "conflicting_labels")
        if published:
            done += f" {len(published):,} of the published test set {stay(len(published))}."
        done += " Which label is right is not known."
    ledger.copies("conflicting_labels", policy, groups, ledger.with_class, done)


def _split(
    ledger: Ledger, content: NDArray[np.uint8], given: Given, units: Indices, data: Data, frozen: Frozen
) -> NDArray[np.str_]:
    """The split of every image, empty text for those that are left out."""
    inspected = ledger.inspected
    split = np.zeros(len(inspected), "<U5")
    used = np.flatnonzero(ledger.used)
    if len(used) == 0:
        ledger.unusable.append(f"None of the {number(len(inspected))} is left: all are left out, as the report says.")
        return split
    # what the policy forbids is raised at the end, with everything else
    lenient = data.model_copy(update={"audit": data.audit.model_copy(update={"missing_class": "warn"})})
    try:
        assigned = assign(
            content[used],
            inspected.labels[used],
            given.split[used].tolist(),
            inspected.class_names,
            units[used],
            data=lenient,
            frozen=frozen,
        )
    except DataError as error:
        ledger.unusable.append(str(error))
        split[used] = np.where(given.split[used] == "", "train", given.split[used])
        return split
    split[used] = assigned.split
    cause = given.cause(split, inspected.labels, inspected.class_names)
    _enter_assignment(ledger, assigned, used, cause)
    return split


def _enter_assignment(ledger: Ledger, assigned: Assignment, used: Indices, cause: str) -> None:
    """``cause`` says why a class is missing, where it is known."""
    images = {int(used[position]): reason for position, reason in sorted(assigned.left_out.items())}
    for index, reason in images.items():
        ledger.left_out[index] = reason
        ledger.used[index] = False
    for finding in assigned.findings:
        if finding.kind == "missing_class":
            ledger.classes(finding.kind, finding.message + cause, finding.count)
            continue
        concerned = list(images) if finding.kind == COPY_OF_FROZEN_TEST else []
        names = [ledger.name(index) for index in concerned[:FILES]]
        members = tuple((index,) for index in concerned)
        ledger.enter(finding.kind, finding.policy, finding.message, finding.count, files=names, members=members)


def _copies_within_splits(ledger: Ledger, split: NDArray[np.str_], content: Indices, units: Indices) -> None:
    inspected = ledger.inspected
    exact, near = copies.repeated(np.where(ledger.used, split, ""), inspected.labels, content, units)
    kept = {id(group): copies.best_of(group, inspected, content) for group in [*exact, *near]}
    _repeated(ledger, "exact_duplicates", exact, [group[group != kept[id(group)]] for group in exact])
    # equal copies of the one that is kept are the other finding's
    others = [group[content[group] != content[kept[id(group)]]] for group in near]
    different = [np.sort(group[np.unique(content[group], return_index=True)[1]]) for group in near]
    _repeated(ledger, "near_duplicates", different, others)


def _repeated(ledger: Ledger, kind: str, groups: list[Indices], others: list[Indices]) -> None:
    if not groups:
        return
    policy, done = getattr(ledger.settings, kind), ""
    if policy == "quarantine":
        done = f"{ledger.leave_out(_all(others), kind)} One of each stays."
    ledger.copies(kind, policy, groups, ledger.name, done)


def _parted_groups(ledger: Ledger, split: NDArray[np.str_]) -> None:
    """Groups of the user's that the source's own splits part; those that are made here never do."""
    keys = name_keys(ledger.inspected.groups)
    images = np.flatnonzero(ledger.used & (keys >= 0))
    groups = [group for group in groups_of(keys, images) if (split[group] != split[group[0]]).any()]
    if not groups:
        return
    names = [ledger.inspected.groups[int(group[0])] for group in groups]
    firsts = [group[np.unique(split[group], return_index=True)[1]].tolist() for group in groups[:GROUPS]]
    message = (
        f"{number(len(groups), 'group')} with images in several of the splits that the source gives:"
        f" {listed(names, len(groups))}. Used all the same. Scores may come out too high: give no splits, and those"
        " that are made part no group."
    )
    shown = [[told(ledger.name(index), str(split[index])) for index in first] for first in firsts]
    members = tuple(tuple(group.tolist()) for group in groups)
    ledger.enter("parted_groups", "warn", message, len(groups), groups=shown, members=members)


def _classes(ledger: Ledger, split: NDArray[np.str_]) -> None:
    names, settings = ledger.inspected.class_names, ledger.settings
    counts = np.bincount(ledger.inspected.labels[ledger.used], minlength=len(names))
    gone = [names[label] for label in np.flatnonzero(counts == 0).tolist()]
    if gone and ledger.used.any():
        ledger.unusable.append(
            f"No image is left of {'1 class' if len(gone) == 1 else f'{len(gone):,} classes'}"
            f" ({listed(gone, len(gone), 10)}). Add or mend images, relax the policy that leaves them out, or remove"
            " the class."
        )
    for kind, message, count in balance.findings(counts, names, settings.minimum_per_class):
        ledger.classes(kind, message, count)
    given = set(ledger.inspected.splits)
    per_split = {
        name: np.bincount(ledger.inspected.labels[split == name], minlength=len(names)) for name in ("val", "test")
    }
    remarks = (
        balance.few_in_split(per_split, counts, names, settings.minimum_per_class, given),
        class_names.similar(names),
    )
    for kind, message, count in filter(None, remarks):
        ledger.enter(kind, "warn", message, count)


def _class_counts(split: NDArray[np.str_], inspected: Inspected) -> dict[str, dict[str, int]]:
    counts = {}
    for name in SPLITS:
        per_class = np.bincount(inspected.labels[split == name], minlength=len(inspected.class_names)).tolist()
        counts[name] = dict(zip(inspected.class_names, per_class, strict=True))
    return counts


def _all(groups: Sequence[Indices]) -> list[int]:
    return [index for group in groups for index in group.tolist()]
