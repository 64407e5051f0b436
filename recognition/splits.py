"""Which image is for training, validation and test: by a hash of what is on it, so that growing data moves nothing.

The unit of a split is a set of images that must stay together: copies of one image, images of one patient. A unit is
known by the smallest content digest of its images, and two hashes of that, u and v in [0, 1), decide for all of them:
test where u < ``test_fraction``, else validation where v < ``val_fraction``, else training. So a split depends neither
on names, folders and order nor on what other images there are; another ``val_fraction`` leaves the test as it is, and a
larger ``test_fraction`` only adds to it.

Any rule that keeps no state and never moves an image must decide for each unit alone, since it must decide the same
where that unit is all there is. So shares cannot be exact: of n units of a class, a share p has a standard deviation of
sqrt(p (1 - p) / n), that is 0.4 % for p = 20 % and n = 10,000, and 4 % for n = 100.

Growth moves an image in three cases only, and the first two concern few:

- The hashes give a split no image of a small class. The unit nearest to the threshold is then taken, and the finding
  ``small_class_split`` names the class; it goes back when a new image comes nearer.
- A new image joins a unit (as a copy, or by its group) and has a smaller digest, or joins two units into one: the unit
  is then known by another digest.
- The source itself gives an image another split.

A test set that must stay whatever comes is frozen, see `assign`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DataError
from recognition.records import Finding
from recognition.spreading import Membership, spread

SPLITS = ("train", "val", "test")
COPY_OF_FROZEN_TEST = "copy_of_frozen_test"

Frozen = AbstractSet[bytes] | Mapping[bytes, int]
"""Content digests of the images of a frozen test set. A mapping says how many images have each; with a set, all images
with such a digest are test."""

_NAMED = 10


@dataclass(frozen=True)
class Assignment:
    """Where each of N images goes."""

    split: NDArray[np.str_]
    """``<U5``, shape (N,): train, val or test, or empty text for an image that is left out."""
    left_out: dict[int, str]
    """Index of an image that is in no split, and why, in a word."""
    findings: tuple[Finding, ...]
    """small_class_split, missing_class and copy_of_frozen_test, without names of files."""

    def indices(self, name: str) -> NDArray[np.int64]:
        """The sorted indices of the images of train, val or test."""
        return np.flatnonzero(self.split == name).astype(np.int64)


def assign(
    content: NDArray[np.uint8],
    labels: NDArray[np.int64],
    given: Sequence[str],
    class_names: Sequence[str],
    units: NDArray[np.int64],
    *,
    data: Data,
    frozen: Frozen = frozenset(),
) -> Assignment:
    """Assign each of N images to one split.

    A split that the source gives is kept; one that it does not give is carved from the rest. An image for which the
    source says nothing goes with the val or test images of its unit, if there are any.

    With a frozen test set, exactly its images are test, whatever the source or the hashes say. Other images of their
    units are in no split. The source may give no test images besides.

    Args:
        content: uint8 (N, 32), digest of the pixels of each image; all of them readable.
        labels: int64 (N,), indices into ``class_names``.
        given: what the source says of each image: train, val, test or empty text.
        units: int64 (N,), the number of the unit that each image belongs to.
        data: fractions, seed, folds and the policy ``audit.missing_class``.
        frozen: content digests of the images of a frozen test set, or nothing.

    Raises:
        ConfigurationError: folds, or a frozen test set, of a source that gives that split itself.
        DataError: a class has too few images, or images of the frozen test set are missing.
    """
    if data.folds and "val" in given:
        raise ConfigurationError(
            f"data.folds={data.folds} cuts the validation set from the images, but {data.source} gives one: set"
            " data.folds=0, or give these images as train."
        )
    said = np.array(given, dtype="<U5")
    unit_numbers, unit = np.unique(units, return_inverse=True)
    left_out: NDArray[np.int64] = np.zeros(0, np.int64)
    if frozen:
        said, left_out = _freeze(content, labels, said, unit, frozen, data)
    split = _with_the_given(said, unit, len(unit_numbers))
    split[left_out] = ""
    identities = _identities(content, unit, len(unit_numbers))
    carved = {"test"} - set(given) if not frozen else set()
    carved |= {"val"} - set(given)
    carving = _Carving(split, labels, class_names, unit, identities, data, carved)
    if "test" in carved:
        carving.carve_test()
    if "val" in carved:
        carving.carve_validation()
    findings = carving.findings(frozen=bool(frozen))
    if len(left_out):
        message = f"Images that are copies of frozen test images, or of their group ({len(left_out)}): left out."
        findings.append(Finding(kind=COPY_OF_FROZEN_TEST, message=message, count=len(left_out), policy="quarantine"))
    return Assignment(split, dict.fromkeys(left_out.tolist(), COPY_OF_FROZEN_TEST), tuple(findings))


class _Carving:
    """Cuts test and validation from the training images of ``split``, in place."""

    def __init__(
        self,
        split: NDArray[np.str_],
        labels: NDArray[np.int64],
        class_names: Sequence[str],
        unit: NDArray[np.int64],
        identities: Sequence[bytes],
        data: Data,
        carved: set[str],
    ) -> None:
        self.split, self.labels, self.class_names, self.unit = split, labels, class_names, unit
        self.identities, self.data, self.carved = identities, data, carved
        self.rare: set[int] = set()
        """Classes for which a unit was moved across a threshold."""
        self.unfilled: set[int] = set()
        """Classes with too few units for the folds."""
        held_out = np.zeros(len(identities), bool)
        held_out[unit[split == "val"]] = True
        # a copy of an image that the source gives as val is no test image
        self.pool = (split == "train") & ~held_out[unit]
        self.per_class = self._members(self.pool).units_per_class()

    def carve_test(self) -> None:
        members, available = self._members(self.pool), self.per_class
        fixed = np.bincount(self.labels[(self.split == "train") & ~self.pool], minlength=len(self.class_names)) > 0
        train = np.where(fixed, 0, 1)
        wanted = self.data.folds or train + int("val" in self.carved)
        # where there are too few: first training, then test, then validation
        test = (available > train).astype(np.int64)
        needs = np.stack([test, np.clip(wanted, 0, available - test)], axis=1)
        edges = np.array([0.0, self.data.test_fraction, 1.0])
        part, moved = spread(self._hashed("test"), edges, needs, members, self._class_order())
        self.rare |= moved
        self.split[self.pool & (part[self.unit] == 0)] = "test"

    def carve_validation(self) -> None:
        data, rest = self.data, self.split == "train"
        members = self._members(rest)
        available = members.units_per_class()
        if data.folds:
            enough = available >= data.folds
            needs = np.repeat(enough.astype(np.int64)[:, None], data.folds, axis=1)
            edges, wanted = np.linspace(0.0, 1.0, data.folds + 1), data.fold
        else:
            needs = np.stack([available > 1, available > 0], axis=1).astype(np.int64)
            edges, wanted = np.array([0.0, data.val_fraction, 1.0]), 0
        part, moved = spread(self._hashed("val"), edges, needs, members, self._class_order())
        if data.folds:  # another fold would be without the class, if not this one
            self.unfilled = set(np.flatnonzero((members.count(part, data.folds) == 0).any(axis=1)).tolist())
        self.rare |= moved
        self.split[rest & (part[self.unit] == wanted)] = "val"

    def findings(self, *, frozen: bool) -> list[Finding]:
        """What is to be known about small classes; raises where the policy says so."""
        result = []
        if self.rare:
            names = sorted(self.class_names[label] for label in self.rare)
            result.append(
                Finding(
                    kind="small_class_split",
                    message=f"Classes with so few images that some were given to a split to fill it: {_named(names)}."
                    " New images of these classes may move them between splits.",
                    count=len(names),
                )
            )
        lacking = self._lacking()
        if lacking:
            message = self._too_few(lacking, frozen)
            if self.data.audit.missing_class == "fail":
                raise DataError(f"{message} Or set data.audit.missing_class=warn.")
            result.append(Finding(kind="missing_class", message=message, count=len(lacking)))
        return result

    def _lacking(self) -> dict[int, str]:
        """The classes that some split has no image of, and the first such split."""
        result = dict.fromkeys(sorted(self.unfilled), "val")
        for name in SPLITS:
            present = np.bincount(self.labels[self.split == name], minlength=len(self.class_names))
            for label in np.flatnonzero(present == 0).tolist():
                result.setdefault(label, name)
        return dict(sorted(result.items()))

    def _too_few(self, lacking: Mapping[int, str], frozen: bool) -> str:
        needed = int("test" in self.carved) + (self.data.folds or 1 + int("val" in self.carved))
        few = {label: int(self.per_class[label]) for label in lacking if self.per_class[label] < needed}
        if few and needed > 1:
            named = _named([self.class_names[label] for label in few], [f" has {count}" for count in few.values()])
            return (
                f"Too few images to split: every class needs at least {needed} that are not given as test or"
                f" validation, where copies and images of one group count as one, but {named}. Add images, or remove"
                " the class."
            )
        label, name = next(iter(lacking.items()))
        others = f" (and {len(lacking) - 1} more classes lack images)" if len(lacking) > 1 else ""
        which, fix = f"The {name} images have none of class {self.class_names[label]!r}{others}", "add some."
        if name == "test" and frozen:
            fix = "let data.frozen_test name a run whose test set has some."
        elif name in self.carved or (name == "train" and self.carved):
            fix = "its images are in groups with those of other classes; add some, or try another data.split_seed."
        return f"{which}: {fix}"

    def _members(self, images: NDArray[np.bool_]) -> Membership:
        return Membership.of(self.unit[images], self.labels[images], len(self.class_names))

    def _hashed(self, purpose: str) -> NDArray[np.float64]:
        """For each unit a number in [0, 1) that is as good as random."""
        start = hashlib.sha256(f"{self.data.split_seed}\n{purpose}\n".encode())
        digests = bytearray()
        for identity in self.identities:
            hashed = start.copy()
            hashed.update(identity)
            digests += hashed.digest()[:8]
        # 53 bits are what a float64 holds exactly
        return (np.frombuffer(digests, ">u8") >> 11).astype(np.float64) * 2.0**-53

    def _class_order(self) -> list[int]:
        return sorted(range(len(self.class_names)), key=lambda label: self.class_names[label])


def _freeze(
    content: NDArray[np.uint8],
    labels: NDArray[np.int64],
    said: NDArray[np.str_],
    unit: NDArray[np.int64],
    frozen: Frozen,
    data: Data,
) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Make exactly the frozen images test; the sorted indices of what else is in their units are the second result."""
    digests = np.ascontiguousarray(content).view("V32").ravel().tolist()
    found: dict[bytes, list[int]] = {}
    for index, digest in enumerate(digests):
        if digest in frozen:
            found.setdefault(digest, []).append(index)
    test: list[int] = []
    missing, all_of_them = 0, len(frozen)
    if isinstance(frozen, Mapping):
        all_of_them = sum(frozen.values())
        for digest, count in frozen.items():
            copies = found.get(digest, [])
            # of more copies than were frozen, those that the source gives as test
            ranked = sorted(copies, key=lambda index: (said[index] != "test", int(labels[index]), index))
            test += ranked[:count]
            missing += max(0, count - len(copies))
    else:
        test = [index for copies in found.values() for index in copies]
        missing = len(frozen) - len(found)
    if missing:
        raise DataError(
            f"The frozen test set is not whole: {missing} of its {all_of_them} images are not in the data, or are left"
            " out by the audit. Bring them back, or let data.frozen_test name another run."
        )
    is_test = np.zeros(len(said), bool)
    is_test[test] = True
    touched = np.zeros(int(unit.max(initial=-1)) + 1, bool)
    touched[unit[is_test]] = True
    others = (said == "test") & ~touched[unit]
    if others.any():
        raise ConfigurationError(
            f"{data.source} gives {int((said == 'test').sum())} test images, {int(others.sum())} of which are not in"
            " the frozen test set: clear data.frozen_test, or give these images as train."
        )
    related = touched[unit]
    related[[index for copies in found.values() for index in copies]] = True
    said = np.where(is_test, "test", said).astype("<U5")
    return said, np.flatnonzero(related & ~is_test).astype(np.int64)


def _with_the_given(said: NDArray[np.str_], unit: NDArray[np.int64], count: int) -> NDArray[np.str_]:
    """Train where the source says nothing, or the split of what it says of other images of the unit."""
    split = said.copy()
    for name in ("val", "test"):  # test last: it wins
        holds = np.zeros(count, bool)
        holds[unit[said == name]] = True
        split[(said == "") & holds[unit]] = name
    split[split == ""] = "train"
    return split


def _identities(content: NDArray[np.uint8], unit: NDArray[np.int64], count: int) -> list[bytes]:
    """The smallest content of each unit."""
    words = np.ascontiguousarray(content).view(">u8").reshape(-1, 4)
    order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0], unit))
    first = order[np.searchsorted(unit[order], np.arange(count))]
    smallest: list[bytes] = np.ascontiguousarray(content[first]).view("V32").ravel().tolist()
    return smallest


def _named(names: Sequence[str], facts: Sequence[str] = ()) -> str:
    facts = facts or [""] * len(names)
    listed = ", ".join(f"{name!r}{fact}" for name, fact in list(zip(names, facts, strict=True))[:_NAMED])
    return f"{listed} and {len(names) - _NAMED} more" if len(names) > _NAMED else listed
