"""What the audit of a source ends with: findings, the images that are left out, and the split of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recognition.errors import DataError
from recognition.records import Finding

Groups = tuple[tuple[int, ...], ...]
"""Images by their index; those of one group belong together (copies), and a single image is a group of its own."""


@dataclass(frozen=True)
class Audited:
    """Findings with their policies applied, about the N images of an `Inspected`."""

    findings: tuple[Finding, ...]
    """The gravest first."""
    members: tuple[Groups, ...]
    """For each finding all images that it is about; () where it is about classes."""
    left_out: Mapping[int, str]
    """Index of an image that is not used, and the kind of the finding that says why."""
    split: NDArray[np.str_]
    """``<U5``, shape (N,): train, val or test, or empty text for an image that is left out."""
    unit: NDArray[np.int64]
    """Shape (N,): images with one number are copies of each other, or of one group of the user's."""
    class_counts: Mapping[str, Mapping[str, int]]
    """For each of train, val and test the number of images in use of every class."""
    object_counts: Mapping[str, Mapping[str, int]] | None = None
    """The same for objects, where the classes are theirs."""
    failures: str = ""
    """Why the images cannot be used, by the policies of ``data.audit``; empty when they can."""

    @property
    def counts(self) -> dict[str, int]:
        """The number of images in use of each split."""
        return {name: sum(counts.values()) for name, counts in self.class_counts.items()}

    def raise_failures(self) -> None:
        """Raise `DataError` when the policies forbid to use the images."""
        if self.failures:
            raise DataError(self.failures)

    def with_finding(self, finding: Finding, members: Groups) -> Audited:
        """The same with one more finding, which changes no split (likely wrong labels)."""
        return replace(self, findings=(*self.findings, finding), members=(*self.members, members))
