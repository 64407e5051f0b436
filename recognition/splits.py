"""Which image is for training, validation and test: stratified, and a pure function of seed and sample ids.

Within each class, images are ranked by a hash of (seed, sample id); the first go to the test, the next to validation.
So a split depends neither on the order of files nor on the validation fraction where the test is concerned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recognition.errors import DataError

SPLITS = ("train", "val", "test")


def split(
    sample_ids: Sequence[str],
    labels: NDArray[np.int64],
    given: Sequence[str],
    class_names: Sequence[str],
    *,
    test_fraction: float,
    val_fraction: float,
    seed: int,
) -> dict[str, NDArray[np.int64]]:
    """Assign every image to one split.

    Args:
        sample_ids: one unique text an image.
        labels: int64 (N,), indices into ``class_names``.
        given: what the source says: train, val, test or empty text, one an image. A split that it gives is kept as
            it is; one that it does not give is carved from the rest.
        test_fraction: share of all images that a carved test set gets, of every class.
        val_fraction: share that a carved validation set gets of what is then left.

    Returns:
        For each of train, val and test the sorted indices (int64) of its images: disjoint, together all N, with at
        least one image of every class in each.

    Raises:
        DataError: a class has too few images.
    """
    assigned = np.array([name or "train" for name in given], dtype="<U5")
    carved = [name for name in ("test", "val") if name not in given]
    fractions = {"test": test_fraction, "val": val_fraction}
    too_few: dict[str, int] = {}
    for label, class_name in enumerate(class_names):
        pool = np.flatnonzero((labels == label) & (assigned == "train"))
        if len(pool) <= len(carved):
            too_few[class_name] = len(pool)
            continue
        ranked = sorted(pool.tolist(), key=lambda index: _rank(seed, sample_ids[index]))
        for position, name in enumerate(carved):
            # one image each stays for the splits that are still to be made
            most = len(ranked) - (len(carved) - position)
            count = min(max(1, round(fractions[name] * len(ranked))), most)
            assigned[ranked[:count]] = name
            ranked = ranked[count:]
    if too_few:
        named = ", ".join(f"{name!r} has {count}" for name, count in list(too_few.items())[:10])
        raise DataError(
            f"Too few images to split: every class needs at least {len(carved) + 1} that are not given as test or"
            f" validation, but {named}. Add images, or remove the class."
        )
    result = {name: np.flatnonzero(assigned == name).astype(np.int64) for name in SPLITS}
    for name, indices in result.items():
        missing = sorted(set(range(len(class_names))) - set(labels[indices].tolist()))
        if missing:
            raise DataError(f"The {name} images have none of class {class_names[missing[0]]!r}: add some.")
    return result


def _rank(seed: int, sample_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{sample_id}".encode("utf-8", "surrogateescape")).digest()
