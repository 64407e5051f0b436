"""From a source to a prepared data set: decoded once, memory-mapped, addressed by a digest of content and settings."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from recognition import datasets
from recognition.errors import DataError
from recognition.experiment import Data, digest_of
from recognition.pixel_store import PixelWriter, digest_of_all, image_digests, mean_and_std, rewrite
from recognition.pixels import NotAnImageError, Pixels, prepare_array
from recognition.pixels import prepare as prepare_file
from recognition.progress import Progress, silent
from recognition.records import Finding, PreparedData
from recognition.settings import home
from recognition.sources import open_source
from recognition.sources.labelled import Images
from recognition.splits import SPLITS, split
from recognition.storage import check_free_space, flush, writing_to
from recognition.survey import survey, target_shape

logger = logging.getLogger("recognition")

VERSION = 1
"""Raised when the same images would be prepared to other bytes: what was prepared before is then left alone."""

_BATCH_FILES = 64
_BATCH_BYTES = 4 << 20
_SMALL_BATCH_BYTES = 1 << 20
"""Decoding such small files takes less time than threads lose in waiting for each other."""
_NAMED = 10
_RELEVANT = {"image_size", "channels", "resize", "test_fraction", "val_fraction", "split_seed", "unreadable"}


def prepare(data: Data, on_progress: Progress = silent) -> PreparedData:
    """Fetch, check, decode and split the images; what is prepared already is found and reused.

    Raises:
        ConfigurationError: the source is unknown.
        DownloadError: it cannot be fetched whole.
        DataError: images or folders cannot be used as they are.
        StorageError: the state folder cannot be written.
    """
    datasets_folder = home() / "datasets"
    with closing(open_source(data, home() / "downloads", on_progress)) as images:
        settings = data.model_dump(mode="json", include=_RELEVANT)
        key = digest_of({"version": VERSION, "content": images.fingerprint, "settings": settings})[:16]
        folder = datasets_folder / key
        with writing_to(datasets_folder):
            datasets_folder.mkdir(parents=True, exist_ok=True)
            with FileLock(datasets_folder / f"{key}.lock"):
                if not _is_whole(folder):
                    _build_and_rename(images, data, folder, on_progress)
                else:
                    logger.info("The images of %s are prepared already: %s", data.source, folder)
    return datasets.load(folder).model_copy(update={"source": data.source})


def _is_whole(folder: Path) -> bool:
    try:
        record = datasets.load(folder)
        arrays = datasets.open_arrays(folder)
    except DataError:
        return False
    counts = {name: len(indices) for name, indices in arrays.indices.items()}
    return (folder / "samples.parquet").is_file() and counts == record.counts and len(arrays.images) == len(arrays)


def _build_and_rename(images: Images, data: Data, folder: Path, on_progress: Progress) -> None:
    for left_behind in folder.parent.glob(f".{folder.name}.*"):  # by a process that was killed; the lock is ours
        shutil.rmtree(left_behind, ignore_errors=True)
    building = folder.parent / f".{folder.name}.{os.getpid()}"
    try:
        building.mkdir()
        record = _build(images, data, building, on_progress).model_copy(update={"path": folder})
        (building / datasets.RECORD).write_text(record.model_dump_json(indent=1))
        for path in [*building.iterdir(), building]:
            flush(path)
        if folder.exists():
            shutil.rmtree(folder)
        building.replace(folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _build(images: Images, data: Data, folder: Path, on_progress: Progress) -> PreparedData:
    _split(images, data)  # too few images are told before the long work
    seen = survey(images, on_progress)
    if len(seen.unreadable) == len(images):
        raise _unreadable(images, seen.unreadable)
    height, width, channels = target_shape(seen, data)
    check_free_space(folder, len(images) * height * width * channels + (1 << 20))
    path = folder / "images.npy"
    written = _write(images, path, (height, width, channels), data, seen.unreadable, on_progress)
    unreadable = seen.unreadable | written.unreadable
    findings = [*images.findings, *seen.findings()]
    if unreadable:
        if data.unreadable == "fail":
            raise _unreadable(images, unreadable)
        findings.append(_left_out(images, unreadable))
    if data.channels == "auto" and channels == 3 and not written.colour:
        channels = 1  # stored as colour, but every pixel is gray
    kept = np.array([index for index in range(len(images)) if index not in unreadable], np.int64)
    if unreadable or channels != (written.channels):
        rewrite(path, kept, channels)
        images = _subset(images, kept)
    indices = _split(images, data)
    _save_tables(images, indices, folder)
    pixels: Pixels = np.load(path, mmap_mode="r")
    on_progress(len(images), len(images), "computing digests")
    digests = image_digests(pixels, images.labels, images.class_names)
    mean, std = mean_and_std(pixels, indices["train"])
    return PreparedData(
        path=folder,
        digest=digest_of_all(digests),
        test_digest=digest_of_all([digests[index] for index in indices["test"]]),
        source=data.source,
        class_names=images.class_names,
        height=height,
        width=width,
        channels=channels,
        counts={name: len(indices[name]) for name in SPLITS},
        class_counts={name: _class_counts(images, indices[name]) for name in SPLITS},
        mean=mean,
        std=std,
        findings=tuple(findings),
    )


@dataclass
class _Written:
    channels: int
    colour: bool
    unreadable: dict[int, str]


def _write(
    images: Images,
    path: Path,
    shape: tuple[int, int, int],
    data: Data,
    skipped: dict[int, str],
    on_progress: Progress,
) -> _Written:
    """Decode and fit all images into an array file; a pool of threads, since the decoders release the interpreter."""
    height, width, channels = shape
    result = _Written(channels, colour=channels == 1, unreadable={})
    with PixelWriter(path, (len(images), *shape)) as writer:

        def put(index: int, pixels: Pixels) -> None:
            writer.put(index, pixels)
            if not result.colour:
                result.colour = bool((pixels[..., :1] != pixels[..., 1:]).any())

        def decode_all(batch: list[tuple[int, bytes]]) -> int:
            for index, content in batch:
                try:
                    name = images.sample_ids[index]
                    put(index, prepare_file(content, name, height, width, channels, data.resize))
                except NotAnImageError as error:
                    result.unreadable[index] = error.reason
            return len(batch)

        def fit_all(batch: range) -> int:
            assert images.pixels is not None
            for index in batch:
                put(index, prepare_array(images.pixels[index], height, width, channels, data.resize))
            return len(batch)

        done = 0
        workers = min(8, os.cpu_count() or 1)
        waiting: set[Future[int]] = set()
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            try:
                if images.pixels is not None:
                    starts = range(0, len(images), _BATCH_FILES)
                    waiting = {
                        pool.submit(fit_all, range(start, min(start + _BATCH_FILES, len(images)))) for start in starts
                    }
                else:
                    for batch in _batches(images, skipped, result.unreadable):
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
    return result


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


def _split(images: Images, data: Data) -> dict[str, NDArray[np.int64]]:
    return split(
        images.sample_ids,
        images.labels,
        images.splits,
        images.class_names,
        test_fraction=data.test_fraction,
        val_fraction=data.val_fraction,
        seed=data.split_seed,
    )


def _subset(images: Images, kept: NDArray[np.int64]) -> Images:
    return replace(
        images,
        sample_ids=tuple(images.sample_ids[index] for index in kept),
        labels=images.labels[kept],
        splits=tuple(images.splits[index] for index in kept),
    )


def _save_tables(images: Images, indices: dict[str, NDArray[np.int64]], folder: Path) -> None:
    import pandas as pd

    names = np.empty(len(images), dtype="<U5")
    for name, positions in indices.items():
        names[positions] = name
        np.save(folder / f"{name}.npy", positions)
    np.save(folder / "labels.npy", images.labels)
    table = pd.DataFrame({"sample_id": list(images.sample_ids), "label": images.labels, "split": names.tolist()})
    table.to_parquet(folder / "samples.parquet", index=False)


def _class_counts(images: Images, indices: NDArray[np.int64]) -> dict[str, int]:
    counts = Counter(images.labels[indices].tolist())
    return {name: counts[label] for label, name in enumerate(images.class_names)}


def _unreadable(images: Images, reasons: dict[int, str]) -> DataError:
    lines = [f"  {images.sample_ids[index]} {reasons[index]}" for index in sorted(reasons)[:_NAMED]]
    more = [f"  and {len(reasons) - _NAMED} more"] if len(reasons) > _NAMED else []
    return DataError(
        "\n".join(
            [
                f"Files that are no whole images, {len(reasons)} of {len(images)}:",
                *lines,
                *more,
                "Remove or replace them, or set data.unreadable=skip to leave them out.",
            ]
        )
    )


def _left_out(images: Images, reasons: dict[int, str]) -> Finding:
    first = min(reasons)
    message = f"Files that are no whole images ({len(reasons)}): left out, such as {images.sample_ids[first]}"
    names = tuple(images.sample_ids[index] for index in sorted(reasons))
    return Finding(kind="unreadable", message=f"{message}, which {reasons[first]}.", files=names)
