"""CIFAR-10 and CIFAR-100 in their binary form: 60,000 colour images of 32x32.

Source: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009). The binary archives, never the pickled ones:
reading a pickle runs what is in it.
"""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from recognition.access import Access
from recognition.data_settings import Data
from recognition.errors import DataError
from recognition.fetching.downloads import fetch
from recognition.progress import Progress
from recognition.sources.labelled import Images

MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _CifarSet:
    name: str
    archive: str
    md5: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label_bytes: int
    """Labels before each image; the last is the one that is used."""


CIFAR10 = _CifarSet(
    "cifar10",
    "cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    ("test_batch.bin",),
    "batches.meta.txt",
    1,
)
CIFAR100 = _CifarSet(
    "cifar100",
    "cifar-100-binary.tar.gz",
    "03b5dce01913d631647c71ecec9e9cb8",
    ("train.bin",),
    ("test.bin",),
    "fine_label_names.txt",
    2,
)


def cifar10(data: Data, downloads: Path, on_progress: Progress, access: Access, fresh: bool) -> Images:
    """60,000 images of ten classes; 10,000 are given as the test."""
    return _fetch_and_read(CIFAR10, data, downloads, on_progress, access, fresh)


def cifar100(data: Data, downloads: Path, on_progress: Progress, access: Access, fresh: bool) -> Images:
    """60,000 images of a hundred (fine) classes; 10,000 are given as the test."""
    return _fetch_and_read(CIFAR100, data, downloads, on_progress, access, fresh)


def _fetch_and_read(
    what: _CifarSet, data: Data, downloads: Path, on_progress: Progress, access: Access, fresh: bool
) -> Images:
    return _read(
        what,
        fetch(what.name, what.archive, f"md5:{what.md5}", MIRRORS, data.mirror, downloads, on_progress, access, fresh),
    )


def _read(what: _CifarSet, path: Path) -> Images:
    wanted = {what.names, *what.train, *what.test}
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                file = archive.extractfile(member) if member.isreg() and name in wanted else None
                if file is not None:
                    contents[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}). Remove it, to fetch it again.") from error
    if missing := sorted(wanted - contents.keys()):
        raise DataError(f"{path} holds no {missing[0]}: it is not the binary archive of {what.name}.")
    record = what.label_bytes + _PIXELS
    parts: list[np.ndarray[tuple[int, int], np.dtype[np.uint8]]] = []
    splits: list[str] = []
    sample_ids: list[str] = []
    for split, names in (("test", what.test), ("train", what.train)):
        rows = np.frombuffer(b"".join(contents[name] for name in names), np.uint8)
        if len(rows) % record:
            raise DataError(f"{path}: its {split} images are not whole records of {record} bytes.")
        parts.append(rows.reshape(-1, record))
        splits += [split] * len(parts[-1])
        sample_ids += [f"{split}/{number:05d}" for number in range(len(parts[-1]))]
    rows = np.concatenate(parts)
    planes = rows[:, what.label_bytes :].reshape(-1, 3, 32, 32)
    return Images(
        class_names=tuple(contents[what.names].decode("ascii").split()),
        sample_ids=tuple(sample_ids),
        labels=rows[:, what.label_bytes - 1].astype(np.int64),
        splits=tuple(splits),
        fingerprint=f"{what.name}:{what.md5}",
        pixels=np.ascontiguousarray(planes.transpose(0, 2, 3, 1)),
        published=True,
    )
