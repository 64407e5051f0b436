"""MNIST and Fashion-MNIST in their original form: four gzipped idx files, 28x28, gray, ten classes.

Format: http://yann.lecun.com/exdb/mnist/ (big-endian header, then bytes). MNIST: LeCun, Bottou, Bengio, Haffner 1998.
Fashion-MNIST: Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747, MIT licence.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recognition.access import Access
from recognition.data_settings import Data
from recognition.errors import DataError
from recognition.experiment import digest_of
from recognition.fetching.downloads import fetch
from recognition.progress import Progress
from recognition.sources.labelled import Images

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@dataclass(frozen=True)
class _IdxSet:
    name: str
    mirrors: tuple[str, ...]
    md5: tuple[str, str, str, str]
    """In the order of `FILES`."""
    class_names: tuple[str, ...]


MNIST = _IdxSet(
    "mnist",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    tuple("0123456789"),
)
FASHION_MNIST = _IdxSet(
    "fashion_mnist",
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
)


def mnist(data: Data, downloads: Path, on_progress: Progress, access: Access, fresh: bool) -> Images:
    """70,000 handwritten digits; 10,000 are given as the test."""
    return _read_set(MNIST, data, downloads, on_progress, access, fresh)


def fashion_mnist(data: Data, downloads: Path, on_progress: Progress, access: Access, fresh: bool) -> Images:
    """70,000 pictures of clothes; 10,000 are given as the test."""
    return _read_set(FASHION_MNIST, data, downloads, on_progress, access, fresh)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped idx file of unsigned bytes, in the shape that its header gives.

    Raises:
        DataError: it is not one.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        zeros, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path} is no gzipped idx file ({error}).") from error
    start = 4 + 4 * dimensions
    if zeros != 0 or kind != 8 or len(content) - start != math.prod(shape):
        raise DataError(f"{path} is no idx file of bytes: its header and its length do not fit.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_set(what: _IdxSet, data: Data, downloads: Path, on_progress: Progress, access: Access, fresh: bool) -> Images:
    arrays = [
        read_idx(fetch(what.name, name, f"md5:{md5}", what.mirrors, data.mirror, downloads, on_progress, access, fresh))
        for name, md5 in zip(FILES, what.md5, strict=True)
    ]
    train, train_labels, test, test_labels = arrays
    return Images(
        class_names=what.class_names,
        sample_ids=tuple(
            f"{split}/{number:05d}" for split, part in (("test", test), ("train", train)) for number in range(len(part))
        ),
        labels=np.concatenate([test_labels, train_labels]).astype(np.int64),
        splits=("test",) * len(test) + ("train",) * len(train),
        fingerprint=f"{what.name}:{digest_of(what.md5)}",
        pixels=np.concatenate([test, train])[..., np.newaxis],
        published=True,
    )
