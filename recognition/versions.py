"""Versions of data: the digest of one, and the table of its images, which is enough to compare two."""

from __future__ import annotations

import binascii
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recognition.errors import DataError
from recognition.splits import SPLITS
from recognition.storage import writing_to

SAMPLES = "samples.parquet"

_COLUMNS = ("sample_id", "class_name", "split", "left_out", "content", "group")
_META = "meta."
_ROWS = 1 << 13
"""Rows that are turned into text at a time."""


def dataset_digest(content: NDArray[np.uint8], class_names: Sequence[str], labels: NDArray[np.int64]) -> str:
    """SHA-256 in hex of images and their classes, whatever their names, folders and order.

    Args:
        content: uint8 (N, 32), the digest of each image's pixels.
        class_names: a name for each label; one that no image has makes no difference.
        labels: int64 (N,), indices into ``class_names``.
    """
    # content has one length, so that no two pairs of name and content run into the same bytes
    starts = [hashlib.sha256(name.encode("utf-8", "surrogatepass")) for name in class_names]
    digests = bytearray()
    for row, label in zip(np.ascontiguousarray(content), labels.tolist(), strict=True):
        hashed = starts[label].copy()
        hashed.update(row)
        digests += hashed.digest()
    return hashlib.sha256(np.sort(np.frombuffer(digests, "S32")).tobytes()).hexdigest()


@dataclass(frozen=True)
class Samples:
    """The images of one version of data, those that are left out too: lists of one length, in the table's order."""

    sample_ids: list[str]
    class_names: list[str]
    """The class of each image."""
    split: list[str]
    """train, val or test, or empty text for an image that is left out."""
    left_out: list[str]
    """Why an image is left out, in a word, or empty text."""
    content: NDArray[np.uint8]
    """uint8 (N, 32), digests of the pixels; zeros for unreadable images."""
    groups: list[str]
    metadata: dict[str, list[str]] = field(default_factory=dict)
    """Further columns of the source."""

    def __len__(self) -> int:
        return len(self.sample_ids)

    def digests(self) -> list[bytes]:
        """The digest of each image's pixels, 32 bytes."""
        digests: list[bytes] = np.ascontiguousarray(self.content).view("V32").ravel().tolist()
        return digests

    def digest(self, split: str = "") -> str:
        """The `dataset_digest` of the images of one split, or of all that are in use."""
        chosen = [index for index, name in enumerate(self.split) if name and split in ("", name)]
        names = sorted({self.class_names[index] for index in chosen})
        number = {name: label for label, name in enumerate(names)}
        labels = np.array([number[self.class_names[index]] for index in chosen], np.int64)
        return dataset_digest(self.content[np.array(chosen, np.int64)], names, labels)


def write_samples(
    path: Path,
    *,
    sample_ids: Sequence[str],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    split: Sequence[str] | NDArray[np.str_],
    left_out: Mapping[int, str],
    content: NDArray[np.uint8],
    groups: Sequence[str] = (),
    metadata: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the table of all N images of a source as Parquet, all columns text.

    Args:
        path: the file, which is written over.
        sample_ids: N names; what is no valid unicode in them is escaped.
        labels: int64 (N,), indices into ``class_names``.
        split: N times train, val, test or empty text.
        left_out: index of an image in no split, and why, in a word.
        content: uint8 (N, 32).
        groups: N names of groups, or nothing.
        metadata: further columns of N texts each.

    Raises:
        StorageError: it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    extra = dict(metadata or {})
    names = [*_COLUMNS, *(_unicode(f"{_META}{name}") for name in extra)]
    schema = pa.schema([(name, pa.string()) for name in names])
    with writing_to(path.parent), pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for start in range(0, len(sample_ids), _ROWS):
            rows = range(start, min(start + _ROWS, len(sample_ids)))
            digests = np.ascontiguousarray(content[start : rows.stop])
            columns: list[Iterable[str]] = [
                sample_ids[start : rows.stop],
                [class_names[label] for label in labels[start : rows.stop].tolist()],
                [str(name) for name in split[start : rows.stop]],
                [left_out.get(index, "") for index in rows],
                [digest.hex() for digest in digests.view("V32").ravel().tolist()],
                groups[start : rows.stop] if groups else [""] * len(rows),
                *(values[start : rows.stop] for values in extra.values()),
            ]
            arrays = [pa.array([_unicode(text) for text in column], pa.string()) for column in columns]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def read_samples(path: Path) -> Samples:
    """Read what `write_samples` wrote.

    Raises:
        DataError: there is no such file, it is damaged, or it is another table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            missing = [name for name in _COLUMNS if name not in names]
            if missing:
                raise DataError(
                    f"{path} is no table of a data set's images: it has no column {missing[0]!r}. Give the {SAMPLES} of"
                    " a run or of a prepared data set."
                )
            # one column after the other takes less memory
            content = _from_hex(file.read(["content"]).column("content"))
            wanted = [name for name in names if (name in _COLUMNS and name != "content") or name.startswith(_META)]
            columns = {name: _texts(file.read([name]).column(name)) for name in wanted}
        if not {*columns["split"]} <= {"", *SPLITS}:
            raise ValueError("a split of another name")
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"it is damaged ({error})"
        raise DataError(f"{path} cannot be read as the table of a data set's images: {reason}.") from error
    return Samples(
        sample_ids=columns["sample_id"],
        class_names=columns["class_name"],
        split=columns["split"],
        left_out=columns["left_out"],
        content=content,
        groups=columns["group"],
        metadata={name.removeprefix(_META): texts for name, texts in columns.items() if name.startswith(_META)},
    )


def frozen_counts(samples: Samples) -> Counter[bytes]:
    """The content digests of the test images, and how many images have each."""
    return Counter(digest for digest, name in zip(samples.digests(), samples.split, strict=True) if name == "test")


def _check_is_text(column: Any) -> None:
    import pyarrow as pa

    if not pa.types.is_string(column.type) or column.null_count:
        raise ValueError("a column holds other things than text")


def _from_hex(column: Any) -> NDArray[np.uint8]:
    """Digests of 64 hex digits as uint8 (N, 32), without a Python object for each."""
    import pyarrow.compute as pc

    _check_is_text(column)
    if not pc.all(pc.equal(pc.binary_length(column), 64), min_count=0).as_py():
        raise ValueError("a digest of another length")
    parts = [b""]
    for chunk in column.chunks:
        if len(chunk):
            begin = int(np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset])
            parts.append(binascii.unhexlify(chunk.buffers()[2][begin : begin + 64 * len(chunk)]))
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, 32)


def _texts(column: Any) -> list[str]:
    """The texts of a column; equal ones share their memory."""
    _check_is_text(column)
    coded = column.combine_chunks().dictionary_encode()
    words: list[str] = coded.dictionary.to_pylist()
    return [words[code] for code in coded.indices.to_numpy().tolist()]


def _unicode(text: str) -> str:
    """The text with what no encoding can hold, half a pair or a byte of a strange file name, escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
