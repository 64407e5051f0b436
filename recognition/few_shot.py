"""Few images of each class: which ones, as a pure function of their content, so that nothing else moves a draw.

An image's place in a draw is a hash of its pixels, the seed and the draw's number, and the first k of a class are
taken. So a draw depends neither on names, folders and order nor on the images of other classes; a larger k adds to a
smaller one; of new images only one that comes before the last one taken changes anything, and then a single image.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recognition import datasets, tables, versions
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DataError
from recognition.families import FAMILIES, KINDS
from recognition.records import PreparedData, Scores
from recognition.store import image_store
from recognition.store.array_file import ArrayWriter

NOT_DRAWN = "not_drawn"
"""Why a training image is left out, in the table of images."""
_NAMED = 10


def drawn(
    content: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    per_class: int,
    seed: int = 0,
    draw: int = 0,
) -> NDArray[np.int64]:
    """The sorted positions of so many different images of each class.

    Args:
        content: uint8 (N, 32), the digest of each image's pixels; copies of one image count as one.
        labels: int64 (N,), indices into ``class_names``.
        per_class: images of each class, at least 1.
        seed: of all draws.
        draw: which draw.

    Returns:
        int64 (per_class * classes,).

    Raises:
        DataError: a class has fewer different images.
    """
    start = hashlib.sha256(f"{seed}\nfew-shot\n{draw}\n".encode())

    def place(digest: bytes) -> bytes:
        hashed = start.copy()
        hashed.update(digest)
        return hashed.digest()

    digests = np.ascontiguousarray(content).view("V32").ravel().tolist()
    chosen: list[int] = []
    few: dict[str, int] = {}
    for label, name in enumerate(class_names):
        # of copies the first is taken
        members = {digests[position]: position for position in np.flatnonzero(labels == label)[::-1].tolist()}
        if len(members) < per_class:
            few[name] = len(members)
        chosen += [members[digest] for digest in sorted(members, key=place)[:per_class]]
    if few:
        named = ", ".join(f"{name!r} has {count}" for name, count in list(few.items())[:_NAMED])
        more = f" and {len(few) - _NAMED} more have too few" if len(few) > _NAMED else ""
        raise DataError(
            f"data.per_class={per_class} asks for more different training images than there are: {named}{more}. Set"
            f" data.per_class={max(1, min(few.values()))}, or add images of these classes."
        )
    return np.sort(np.array(chosen, np.int64))


def check_kind(data: PreparedData) -> None:
    """Refuse images without a class each.

    Raises:
        ConfigurationError: there is nothing to count by.
    """
    if data.kind != "classes":
        raise ConfigurationError(
            f"data.per_class counts the images of each class, but the data hold {KINDS[data.kind]}: leave"
            " data.per_class out."
        )


def write(data: Data, prepared: PreparedData, building: Path, folder: Path) -> None:
    """Fill an empty folder with the data set of one draw; validation and test are those of ``prepared``.

    Args:
        data: ``per_class``, ``split_seed`` and ``draw``.
        prepared: the whole data set, or any draw of it.
        building: the folder to fill.
        folder: where it will lie.

    Raises:
        DataError: a class has too few training images.
    """
    arrays = datasets.open_arrays(prepared.path)
    samples = versions.read_samples(prepared.path / versions.SAMPLES)
    names, labels = prepared.class_names, np.asarray(arrays.labels)
    left_out = np.asarray(samples.left_out, object)
    pool = np.flatnonzero((np.asarray(samples.split) == "train") | (left_out == NOT_DRAWN))
    train = pool[drawn(samples.content[pool], labels[pool], names, data.per_class, data.split_seed, data.draw)]
    split = np.array(samples.split, "<U5")
    split[pool], left_out[pool] = "", NOT_DRAWN
    split[train], left_out[train] = "train", ""
    for name in ("labels.npy", "val.npy", "test.npy"):
        shutil.copyfile(prepared.path / name, building / name)
    with ArrayWriter(building / "train.npy", train.shape, train.dtype) as file:
        file.put(0, train)
    versions.write_samples(
        building / versions.SAMPLES,
        sample_ids=samples.sample_ids,
        labels=labels,
        class_names=names,
        split=split,
        left_out={index: why for index, why in enumerate(left_out.tolist()) if why},
        content=samples.content,
        groups=samples.groups,
        metadata=samples.metadata,
    )
    used = np.flatnonzero(split != "")
    mean, std = image_store.open_store(prepared.images).mean_and_std(train)
    record = prepared.model_copy(
        update={
            "path": folder,
            "digest": versions.dataset_digest(samples.content[used], names, labels[used]),
            "counts": {**prepared.counts, "train": len(train)},
            "class_counts": {**prepared.class_counts, "train": dict.fromkeys(names, data.per_class)},
            "mean": mean,
            "std": std,
        }
    )
    (building / datasets.RECORD).write_text(record.model_dump_json(indent=1), encoding="utf-8")


def over_draws(first: int, draws: Sequence[Scores]) -> Scores:
    """The first draw's scores, and beside them mean and sample standard deviation over all draws of the main ones.

    They are ``draws/<score>_mean`` and ``draws/<score>_sd``; ``draws.csv`` in the first's folder has a row a draw.

    Args:
        first: the number of the first draw.
        draws: scores on the same test images, of two draws at least.
    """
    import pandas as pd

    rows = [{name.removeprefix("test/"): value for name, value in scores.metrics.items()} for scores in draws]
    names = [name for name in FAMILIES[draws[0].task].headline if all(name in row for row in rows)]
    table = pd.DataFrame([{"draw": first + number, **row} for number, row in enumerate(rows)])[["draw", *names]]
    tables.write_csv(table, draws[0].path / "draws.csv")
    summary: dict[str, float] = {}
    for name in names:
        values = [row[name] for row in rows]
        summary[f"draws/{name}_mean"] = statistics.fmean(values)
        summary[f"draws/{name}_sd"] = statistics.stdev(values)
    return draws[0].model_copy(update={"metrics": draws[0].metrics | summary})
