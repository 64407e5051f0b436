"""Prepared images in shards: Arrow IPC files of encoded images, any of which is read without the others.

A set is a folder of `<number>-<hash>.arrow` files and `shards.json`, written by `recognition.store.shard_writing`.
Images are addressed by their index.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recognition import randomness
from recognition.pixels import Pixels
from recognition.store import shard_cache
from recognition.store.shard_files import Layout, check_file, damaged, read_index, read_layout, write_index

_LAYOUTS = 1024


class ShardedImages:
    """The images of a set of shards, decoded as they are read. Nothing decoded is kept, so memory stays flat.

    Pickles as its place; forked processes may share it. Files are read, not mapped: what is read does not count as the
    process's memory, and a file that is cut meanwhile is an error here, not the end of the process.
    """

    def __init__(self, place: Path | str, cache: Path | None = None, cache_bytes: int = 0) -> None:
        """Open a set.

        Args:
            place: a folder, or an address that fsspec knows (``s3://bucket/prefix``). Of an address each shard is
                fetched whole when it is first read.
            cache: where fetched shards are kept, each set in a folder of its own; none: in the state folder.
            cache_bytes: what fetched shards of this set may take; those not used for longest go first. 0: all stay.

        Raises:
            DataError: there is no whole set.
            DownloadError: the address does not answer.
        """
        self.folder = shard_cache.mirror(place, cache) if isinstance(place, str) and "://" in place else Path(place)
        self._cache_bytes = cache_bytes
        self._index = read_index(self.folder)
        self._layouts: dict[int, Layout] = {}
        if not self._index.address:
            for shard in self._index.shards:
                check_file(self.folder / shard.name, shard)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return self._index.shape

    @property
    def is_encoded(self) -> bool:
        """Whether reading an image means decoding it."""
        return self._index.codec != "raw"

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self._index.shards)

    def __len__(self) -> int:
        return self._index.shape[0]

    def __reduce__(self) -> tuple[type[ShardedImages], tuple[Path, None, int]]:
        return ShardedImages, (self.folder, None, self._cache_bytes)

    def __getitem__(self, indices: NDArray[np.int64] | slice | int) -> Pixels:
        """The images at some indices, uint8 (n, H, W, C); of a single number (H, W, C).

        Raises:
            DataError: a shard is missing or damaged.
            DownloadError: a shard cannot be fetched.
        """
        if isinstance(indices, int | np.integer):
            single: Pixels = self[np.array([indices])][0]
            return single
        wanted = np.arange(len(self))[indices] if isinstance(indices, slice) else np.asarray(indices, np.int64)
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"an index is outside of the {len(self)} images")
        shards, rows = np.divmod(wanted * self._index.step % max(1, len(self)), self._index.rows_per_shard)
        images: Pixels = np.zeros((len(wanted), *self.shape[1:]), np.uint8)
        here = np.unique(shards)
        shard_cache.fetch_all(self.folder, self._index, here.tolist(), self._cache_bytes)
        for shard in here.tolist():
            self._read(shard, rows, np.flatnonzero(shards == shard), images)
        return images

    def indices_in(self, shard: int) -> NDArray[np.int64]:
        """The sorted indices of the images in a shard."""
        start = shard * self._index.rows_per_shard
        rows = np.arange(start, min(start + self._index.rows_per_shard, len(self)))
        back = pow(self._index.step, -1, len(self)) if len(self) > 1 else 0
        return np.sort(rows * back % len(self))

    def _read(self, shard: int, rows: NDArray[np.int64], places: NDArray[np.int64], images: Pixels) -> None:
        path = self.folder / self._index.shards[shard].name
        handle = self._open(shard, path)
        try:
            layout = self._layout(shard, path)
            starts, ends = layout.offsets[rows[places]], layout.offsets[rows[places] + 1]
            for place, start, end in zip(places.tolist(), starts.tolist(), ends.tolist(), strict=True):
                if start == end:
                    continue  # never came: black
                content = os.pread(handle, end - start, layout.start + start)
                if len(content) != end - start:
                    raise damaged(path, "it has been cut")
                images[place] = self._decode(content, path)
        finally:
            os.close(handle)

    def _open(self, shard: int, path: Path) -> int:
        for _ in range(3):
            try:
                return os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                # removed meanwhile by another process that needed the room
                shard_cache.fetch_all(self.folder, self._index, [shard], self._cache_bytes)
        raise damaged(path, "it is missing")

    def _layout(self, shard: int, path: Path) -> Layout:
        layout = self._layouts.get(shard)
        if layout is None:
            check_file(path, self._index.shards[shard])
            layout = read_layout(path)
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            self._layouts[shard] = layout
        return layout

    def _decode(self, content: bytes, path: Path) -> Pixels:
        _, height, width, channels = self.shape
        try:
            if self._index.codec == "raw":
                stored: Pixels = np.frombuffer(content, np.uint8).reshape(height, width, self._index.stored_channels)
                return stored[..., :channels]
            image = Image.open(io.BytesIO(content), formats=("JPEG",))
            if channels == 1:
                image.draft("L", image.size)  # gray stored as colour: the decoder gives brightness alone
            return np.asarray(image).reshape(height, width, channels)
        except (OSError, SyntaxError, ValueError) as error:
            raise damaged(path, f"an image in it cannot be decoded: {error}") from error


@dataclass(frozen=True)
class ShardOrder:
    """In which order a split of a sharded set is read: shard by shard or window by window, never all at once.

    Attributes:
        images: the set.
        indices: the sorted indices of the split's images, shape (n,), best memory-mapped.
    """

    images: ShardedImages
    indices: NDArray[np.int64]

    def positions_in(self, shard: int) -> NDArray[np.int64]:
        """The sorted positions in the split of its images in a shard."""
        there = self.images.indices_in(shard)
        positions = np.searchsorted(self.indices, there)
        inside = positions < len(self.indices)
        positions, there = positions[inside], there[inside]
        members: NDArray[np.int64] = positions[self.indices[positions] == there]
        return members

    def in_sequence(self) -> Iterator[NDArray[np.int64]]:
        """The positions of each shard in turn."""
        for shard in range(self.images.shards):
            yield self.positions_in(shard)

    def shuffled(self, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
        """The positions of an epoch in random order, a window of shards at a time."""
        return randomness.windows(seed, epoch, self.images.shards, self.positions_in)


def keep_channels(folder: Path, channels: int) -> None:
    """Read a set as gray from now on: for images that were stored as colour and all turned out to be gray."""
    assert channels == 1, "what can be left out is colour"
    index = read_index(folder)
    write_index(index.model_copy(update={"shape": (*index.shape[:3], channels)}), folder)
