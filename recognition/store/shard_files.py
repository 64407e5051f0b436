"""The files of a set of shards: its index, and Arrow IPC files of encoded images.

A shard is one record batch with one column of bytes, `image`, which pyarrow reads anywhere. Here only the offsets are
taken from it, so that any image can be read without the others.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, ValidationError

from recognition.errors import DataError
from recognition.pixels import Pixels
from recognition.records import Record
from recognition.storage import flush

INDEX = "shards.json"
Codec = Literal["jpeg", "raw"]
JPEG_QUALITY = 95


class Shard(Record):
    """One file of a set. Its name holds its hash, so that another version of a set shares no name with it."""

    name: str = Field(pattern=r"^[0-9]{5,}-[0-9a-f]{16}\.arrow$")
    """A plain file name, since an index may come from object storage."""
    bytes: int
    sha256: str


class ShardIndex(Record):
    """The content of `shards.json`: what belongs to a set, and where each image lies."""

    version: Literal[1] = 1
    shape: tuple[int, int, int, int]
    """(N, height, width, channels), as read."""
    stored_channels: int
    rows_per_shard: int
    step: int
    """Image ``i`` is row ``i * step % N``."""
    codec: Codec
    shards: tuple[Shard, ...]
    address: str = ""
    """Where shards that are not here are fetched from."""


def read_index(folder: Path) -> ShardIndex:
    """The index of the set in a folder.

    Raises:
        DataError: there is no whole set.
    """
    try:
        return ShardIndex.model_validate_json((folder / INDEX).read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{folder} holds no whole set of shards: prepare the data again.") from error


def write_index(index: ShardIndex, folder: Path) -> None:
    """Make what lies in a folder a set, at once or not at all."""
    path = folder / f".{INDEX}.{os.getpid()}.{threading.get_ident()}"
    path.write_text(index.model_dump_json(indent=1))
    flush(path)
    path.replace(folder / INDEX)
    flush(folder)


def damaged(path: Path, what: str) -> DataError:
    """What to raise about a file that is not what it was."""
    return DataError(f"{path} is no whole shard ({what}): remove the folder {path.parent}, and prepare the data again.")


def encode(pixels: Pixels, codec: Codec) -> bytes:
    """The bytes that are kept of an image, uint8 (H, W, 1 or 3)."""
    if codec == "raw":
        return pixels.tobytes()
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


@dataclass(frozen=True)
class Layout:
    """Where the images of a shard lie in its file: image ``i`` from start + offsets[i] to start + offsets[i + 1]."""

    start: int
    offsets: NDArray[np.int32]


def write_arrow(path: Path, images: list[bytes]) -> None:
    """Write a shard to the disk."""
    import pyarrow as pa

    offsets = np.zeros(len(images) + 1, np.int64)
    np.cumsum([len(image) for image in images], out=offsets[1:])
    assert offsets[-1] < 2**31, "a shard is far smaller"
    column = pa.Array.from_buffers(
        pa.binary(), len(images), [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(b"".join(images))]
    )
    table = pa.record_batch([column], names=["image"])
    with path.open("wb") as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_batch(table)
        file.flush()
        os.fsync(file.fileno())


def read_layout(path: Path) -> Layout:
    """Find the images in a shard.

    Raises:
        DataError: it is damaged.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            column = pa.ipc.open_file(file).get_batch(0).column("image")
            column.validate(full=True)
            file.seek(0)
            begin = file.read_buffer(1).address
            _, offsets, values = column.buffers()
            copied = np.frombuffer(offsets, np.int32, len(column) + 1).copy()
            return Layout(values.address - begin if values is not None else 0, copied)
    except (pa.ArrowInvalid, KeyError, ValueError, OSError) as error:
        raise damaged(path, str(error)) from error


def check_file(path: Path, shard: Shard) -> None:
    """Compare a file's size with what its index says.

    Raises:
        DataError: it is missing, or of another size.
    """
    try:
        size = path.stat().st_size
    except OSError:
        raise damaged(path, "it is missing") from None
    if size != shard.bytes:
        raise damaged(path, f"it holds {size:,} bytes instead of {shard.bytes:,}")


def digest_of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
