"""Writing prepared images as shards, in any order, from any thread.

Image ``i`` lies in row ``i * step % N``, counted over all shards. The step is near the golden section of N: the images
of a class, which often follow each other in a source, are spread evenly, and a few shards are a fair sample of the
whole.

Images of at least `SMALLEST_JPEG` pixels are JPEGs of quality 95 without chroma subsampling: on photographs the values
differ by 0.3 to 1.0 of 255 on average, and by 16 at most in those measured. Smaller ones are kept as they are, since
decoding them would cost more than ten times as much as reading them. `benchmarks/shard_formats.py` measures both.
"""

from __future__ import annotations

import math
import os
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from recognition.pixels import Pixels
from recognition.storage import flush
from recognition.store.shard_files import (
    INDEX,
    Codec,
    Shard,
    ShardIndex,
    digest_of_file,
    encode,
    write_arrow,
    write_index,
)

SMALLEST_JPEG = 64 * 64
SHARD_BYTES = 64 << 20
"""About what a shard holds: worth a request to object storage, and little to keep in memory while it is written."""
JPEG_SHARE = 0.15
"""Size of such a JPEG as a part of its pixels, on photographs."""
_HEAD = struct.Struct("<qi")
_LOCKS = 16


class ShardWriter:
    """Writes a set of shards; images come in any order, from any thread.

    An arriving image is encoded and appended, with its row, to a file of its shard; ``finish`` sorts one shard after
    the other. So no more than one shard is in memory, and `shards.json` is written last: what a killed process leaves
    is no set. Images that never come are black.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, int, int, int],
        rows_per_shard: int = 0,
        codec: Codec | Literal["auto"] = "auto",
    ) -> None:
        """Begin a set.

        Args:
            folder: made if it is not there; an older set in it is removed.
            shape: (N, height, width, channels), with 1 or 3 channels.
            rows_per_shard: images a shard; 0 makes shards of about `SHARD_BYTES`.
            codec: auto takes JPEG for images of at least `SMALLEST_JPEG` pixels.
        """
        self.shape = shape
        self._folder = folder
        self._codec: Codec = codec_for(shape) if codec == "auto" else codec
        self._rows = rows_per_shard or fitting_rows(shape, self._codec)
        self._step = spreading_step(shape[0])
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        folder.mkdir(parents=True, exist_ok=True)
        for old in (folder / INDEX, *folder.glob("*.arrow"), *folder.glob("*.arriving")):
            old.unlink(missing_ok=True)

    def put(self, index: int, pixels: Pixels) -> None:
        """Add the image of an index: uint8 (height, width, channels)."""
        assert pixels.dtype == np.uint8, "images are prepared before"
        assert pixels.shape == self.shape[1:], "images are prepared before"
        assert 0 <= index < self.shape[0], "the number of images is known before"
        shard, row = divmod(index * self._step % self.shape[0], self._rows)
        content = encode(pixels, self._codec)
        record = memoryview(_HEAD.pack(row, len(content)) + content)
        with self._locks[shard % _LOCKS]:
            # opened each time: there may be more shards than a process may have open files
            handle = os.open(self._arriving(shard), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                while record:
                    record = record[os.write(handle, record) :]
            finally:
                os.close(handle)

    def finish(self) -> None:
        """Sort what has come into shards, and make them a set."""
        count = math.ceil(self.shape[0] / self._rows)
        shards = tuple(self._seal(number) for number in range(count))
        index = ShardIndex(
            shape=self.shape,
            stored_channels=self.shape[3],
            rows_per_shard=self._rows,
            step=self._step,
            codec=self._codec,
            shards=shards,
        )
        flush(self._folder)
        write_index(index, self._folder)

    def _seal(self, number: int) -> Shard:
        rows = min(self._rows, self.shape[0] - number * self._rows)
        images = [b""] * rows
        arriving = self._arriving(number)
        if arriving.exists():
            content = arriving.read_bytes()
            at = 0
            while at < len(content):
                row, length = _HEAD.unpack_from(content, at)
                at += _HEAD.size
                images[row] = content[at : at + length]
                at += length
            del content
        path = self._folder / f"{number:05d}.sealing"
        write_arrow(path, images)
        digest = digest_of_file(path)
        shard = Shard(name=f"{number:05d}-{digest[:16]}.arrow", bytes=path.stat().st_size, sha256=digest)
        path.replace(self._folder / shard.name)
        arriving.unlink(missing_ok=True)
        return shard

    def _arriving(self, shard: int) -> Path:
        return self._folder / f"{shard:05d}.arriving"

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()


def codec_for(shape: tuple[int, int, int, int]) -> Codec:
    """How images of shape (N, height, width, channels) are kept."""
    return "jpeg" if shape[1] * shape[2] >= SMALLEST_JPEG else "raw"


def expected_bytes(shape: tuple[int, int, int, int]) -> int:
    """About what a set takes on the disk, and while it is written, for images of photographs."""
    return int(math.prod(shape) * (JPEG_SHARE if codec_for(shape) == "jpeg" else 1)) + SHARD_BYTES


def fitting_rows(shape: tuple[int, int, int, int], codec: Codec) -> int:
    """Images a shard, so that shards are of one size and hold at most about `SHARD_BYTES`."""
    image_bytes = math.prod(shape[1:]) * (JPEG_SHARE if codec == "jpeg" else 1)
    shards = max(1, math.ceil(shape[0] * image_bytes / SHARD_BYTES))
    return max(1, math.ceil(shape[0] / shards))


def spreading_step(length: int) -> int:
    """A number without common factor with ``length``, near its golden section."""
    step = max(1, round(length * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, length) > 1:
        step += 1
    return step
