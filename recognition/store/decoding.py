"""Filling the store: each file of a source decoded once, measured, brought to size and summed up."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recognition import pixels
from recognition.audit.inspected import Measures
from recognition.audit.measures import MEASURES, measure
from recognition.data_settings import Data
from recognition.errors import DataError, DownloadError
from recognition.experiment import digest_of
from recognition.pixels import NotAnImageError, Pixels
from recognition.progress import Progress
from recognition.sources.labelled import Images
from recognition.storage import build_once, check_free_space
from recognition.store import image_store, pixel_store, shards, shared_store
from recognition.store.array_file import ArrayWriter
from recognition.store.image_store import ImageStore, StoreRecord, open_store
from recognition.store.object_writing import ObjectWriter
from recognition.store.shard_writing import ShardWriter, expected_bytes
from recognition.store.survey import Survey, survey, target_shape

logger = logging.getLogger("recognition")

VERSION = 2
"""Raised when the same images would be stored as other bytes: what was stored before is then left alone."""
LARGEST_ARRAY_BYTES = 4_000_000_000
"""Above this size ``data.storage: auto`` keeps shards of encoded images."""

_BATCH_FILES = 64
_BATCH_BYTES = 4 << 20
_SMALL_BATCH_BYTES = 1 << 20
"""Decoding such small files takes less time than threads lose in waiting for each other."""
_NAMED = 10
_RELEVANT = {"image_size", "channels", "resize", "storage"}


def decode_source(images: Images, data: Data, folder: Path, on_progress: Progress, fresh: bool = False) -> ImageStore:
    """Decode all images of a source into ``<folder>/<key>``, or find them decoded.

    The key is a digest of the source's content, the wanted size and `VERSION`. Where machines share stores
    (`recognition.store.shared_store`), one that another machine has made is used, and one made in shards is handed on.

    Raises:
        DataError: no file is an image.
        StorageError: the folder cannot be written.
    """
    settings = data.model_dump(mode="json", include=_RELEVANT)
    key = digest_of({"version": VERSION, "content": images.fingerprint, "settings": settings})[:16]
    shared = shared_store.address_of(key)

    decoded_here = False

    def build(building: Path) -> None:
        nonlocal decoded_here
        if shared and not fresh and shared_store.fetch(shared, building, image_store.RECORD):
            if _is_whole(building):
                logger.info(f"The images of {data.source} were decoded by another machine.")
                return
            for left in building.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        _build(images, data, building, on_progress)
        decoded_here = True

    build_once(folder / key, _is_whole, build, fresh)
    if shared and decoded_here and (folder / key / "shards").is_dir():
        try:
            shared_store.publish(folder / key, shared, image_store.RECORD)
        except DownloadError as error:  # what is decoded can be used here all the same
            logger.warning(f"The images of {data.source} could not be handed on to other machines: {error}")
    return open_store(folder / key)


def _is_whole(path: Path) -> bool:
    try:
        found = open_store(path)
        shape = found.images().shape
        rows = len(found.measures())
        objects = found.objects()
    except (DataError, OSError, ValueError, EOFError):
        return False
    record = found.record
    whole = shape == (record.images, record.height, record.width, record.channels) and rows == record.images
    return whole and len(objects or ()) == (record.images if record.kind != "classes" else 0)


def _build(images: Images, data: Data, folder: Path, on_progress: Progress) -> None:
    seen = survey(images, on_progress)
    if len(seen.unreadable) == len(images):
        raise _nothing_readable(images, seen.unreadable)
    height, width, channels = target_shape(seen, data)
    size = len(images) * height * width * channels
    storage = data.storage
    if storage == "auto":
        storage = "array" if size <= LARGEST_ARRAY_BYTES else "shards"
    shape = (len(images), height, width, channels)
    check_free_space(folder, (size if storage == "array" else expected_bytes(shape)) + (1 << 20))
    found = _Found(colour=channels == 1)
    with (
        ArrayWriter(folder / "measures.npy", (len(images),), MEASURES) as rows,
        ArrayWriter(folder / "sums.npy", (len(images), 2, channels), np.int64) as sums,
        _object_writer(folder, images, shape, data) as objects,
    ):
        if storage == "array":
            with ArrayWriter(folder / "images.npy", shape) as array:
                outputs = _Outputs(array.put, rows.put, sums.put, objects)
                _decode(images, shape, data, seen, found, outputs, on_progress)
        else:
            with ShardWriter(folder / "shards", shape) as writer:
                outputs = _Outputs(writer.put, rows.put, sums.put, objects)
                _decode(images, shape, data, seen, found, outputs, on_progress)
    unreadable = seen.unreadable | found.unreadable
    if len(unreadable) == len(images):
        raise _nothing_readable(images, unreadable)
    if data.channels == "auto" and not found.colour and channels == 3:
        channels = 1  # stored as colour, but every pixel is gray
        if storage == "array":
            pixel_store.keep_channels(folder / "images.npy", channels)
        else:
            shards.keep_channels(folder / "shards", channels)
    record = StoreRecord(
        images=len(images),
        height=height,
        width=width,
        channels=channels,
        storage=storage,
        unreadable={index: unreadable[index] for index in sorted(unreadable)},
        remarks={kind: tuple(sorted(found)) for kind, found in sorted(seen.remarks.items())},
        kind=images.kind,
    )
    (folder / image_store.RECORD).write_text(record.model_dump_json(indent=1))


def _object_writer(
    folder: Path, images: Images, shape: tuple[int, int, int, int], data: Data
) -> AbstractContextManager[ObjectWriter | None]:
    if images.annotations is None:
        return nullcontext()
    return ObjectWriter(folder, images.annotations, shape[:3], data.resize)


@dataclass
class _Found:
    colour: bool
    unreadable: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Outputs:
    """Where an image goes by its index: its pixels, its measures, its sums (of values and of squares per channel),
    its objects."""

    pixels: Callable[[int, Pixels], None]
    measures: Callable[[int, Measures], None]
    sums: Callable[[int, NDArray[np.int64]], None]
    objects: ObjectWriter | None


def _decode(
    images: Images,
    shape: tuple[int, int, int, int],
    data: Data,
    seen: Survey,
    found: _Found,
    outputs: _Outputs,
    on_progress: Progress,
) -> None:
    """Decode, measure and fit all images, in a pool of threads: the decoders release the interpreter."""
    _, height, width, channels = shape

    def keep(index: int, decoded: Pixels, file_bytes: int) -> None:
        row = measure(decoded)
        row["file_bytes"] = file_bytes
        outputs.measures(index, row)
        fitted = pixels.prepare_array(decoded, height, width, channels, data.resize)
        outputs.pixels(index, fitted)
        values = fitted.reshape(-1, channels).astype(np.int64)
        outputs.sums(index, np.stack([values.sum(axis=0), (values * values).sum(axis=0)]))
        if not found.colour:
            found.colour = bool((fitted[..., :1] != fitted[..., 1:]).any())

    def decode_all(batch: list[tuple[int, bytes]]) -> int:
        for index, content in batch:
            try:
                decoded = pixels.decode(content, images.sample_ids[index])
            except NotAnImageError as error:
                found.unreadable[index] = error.reason
                continue
            keep(index, decoded, len(content))
            if outputs.objects:
                outputs.objects.put(index, (decoded.shape[0], decoded.shape[1]), content)
        return len(batch)

    def keep_all(batch: range) -> int:
        assert images.pixels is not None
        for index in batch:
            keep(index, images.pixels[index], 0)
        return len(batch)

    done = 0
    workers = min(8, os.cpu_count() or 1)
    waiting: set[Future[int]] = set()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            if images.pixels is not None:
                starts = range(0, len(images), _BATCH_FILES)
                waiting = {
                    pool.submit(keep_all, range(start, min(start + _BATCH_FILES, len(images)))) for start in starts
                }
            else:
                for batch in _batches(images, seen.unreadable, found.unreadable):
                    if sum(len(content) for _, content in batch) < _SMALL_BATCH_BYTES:
                        done += decode_all(batch)
                        on_progress(done, len(images), "decoding images")
                        continue
                    waiting.add(pool.submit(decode_all, batch))
                    if len(waiting) > 2 * workers:
                        finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        done += sum(future.result() for future in finished)
                        on_progress(done, len(images), "decoding images")
            for future in waiting:
                done += future.result()
            on_progress(done, len(images), "decoding images")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _batches(images: Images, skipped: dict[int, str], unreadable: dict[int, str]) -> Iterator[list[tuple[int, bytes]]]:
    assert images.read is not None
    batch: list[tuple[int, bytes]] = []
    size = 0
    for index in images.reading_order:
        if index in skipped:
            continue
        try:
            content = images.read(index)
        except NotAnImageError as error:
            unreadable[index] = error.reason
            continue
        batch.append((index, content))
        size += len(content)
        if len(batch) == _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _nothing_readable(images: Images, reasons: dict[int, str]) -> DataError:
    lines = [f"  {images.sample_ids[index]} {reasons[index]}" for index in sorted(reasons)[:_NAMED]]
    more = [f"  and {len(reasons) - _NAMED} more"] if len(reasons) > _NAMED else []
    first = f"None of the {len(images)} files is a whole image:"
    return DataError("\n".join([first, *lines, *more, "Check that these are the files that you mean."]))
