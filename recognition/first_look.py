"""A first look at a source on this machine, within a second or two: its names, and the headers of some images."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from recognition.access import Access, local_path
from recognition.data_settings import Data, Limits
from recognition.errors import DataError, ImageError
from recognition.images import decode, read_header
from recognition.pixels import NotAnImageError
from recognition.progress import silent
from recognition.sources import archives, folders, huggingface, manifests, tables
from recognition.sources.labelled import Images
from recognition.sources.unpacking import LONGEST_SIGNATURE, compression_of
from recognition.sources.zips import is_zip
from recognition.store.survey import Survey

MOST_NAMES = 100_000
"""Files whose names are listed; of a folder or archive with more nothing is known."""
MOST_OF_A_TABLE, MOST_OF_A_COMPRESSED_TAR, MOST_OF_A_TAR = 50_000_000, 50_000_000, 2_000_000_000
"""Bytes of a manifest, of descriptions of objects, or of a tar, which can only be listed from its beginning to its
end."""
MOST_DESCRIBING = 5_000
"""Files that describe objects."""
_DESCRIBING = (".json", ".xml")
MOST_LOOKED_AT, LOOKED_AT_OF_MORE = 256, 48
"""So many headers are read: of all images where they are few, else of some that are evenly spread."""
SECONDS = 1.5
"""After which no further header is read."""
DECODED = 4
"""Images that are decoded to see whether there is colour in them."""


class _ElsewhereError(Exception):
    """The images lie elsewhere."""


def open_quickly(data: Data, access: Access) -> Images | None:
    """The source's list of images, where it lies on this machine and is not too long to be read now."""
    if data.source.startswith(huggingface.PREFIX) or "://" in data.source.removeprefix("file://"):
        return None
    path = local_path(data.source).absolute()
    at_most = data.limits.model_copy(update={"files": min(MOST_NAMES, data.limits.files)})
    try:
        if path.is_dir():
            if huggingface.is_saved(path) or _is_much_to_parse(_sizes_in_folder(path, at_most, access)):
                return None
            return folders.folder(path, at_most, silent, access, "a look")
        if tables.is_table(path):
            return _listed(path, data, access)
        if _is_slow(path, at_most):
            return None
        return archives.archive(path, at_most, "a look")
    except _ElsewhereError:
        return None
    except DataError as error:
        # more than we list may be what the run's own limits allow
        if at_most.files < data.limits.files and f"more than {at_most.files:,} files" in str(error):
            return None
        raise


def _sizes_in_folder(path: Path, limits: Limits, access: Access) -> Iterator[tuple[str, int]]:
    for name in folders.walk(path, limits, access)[0]:
        if name.lower().endswith(_DESCRIBING):
            yield name, (path / name).stat().st_size


def _is_much_to_parse(files: Iterable[tuple[str, int]]) -> bool:
    """Whether reading what describes objects (COCO, Pascal VOC) takes long."""
    sizes = [size for name, size in files if name.lower().endswith(_DESCRIBING)]
    return len(sizes) > MOST_DESCRIBING or sum(sizes) > MOST_OF_A_TABLE


def _listed(path: Path, data: Data, access: Access) -> Images | None:
    def fetch(addresses: Sequence[str]) -> Sequence[Path | str]:
        raise _ElsewhereError

    if path.stat().st_size > MOST_OF_A_TABLE:
        return None
    return manifests.manifest(path, data, fetch, silent, access=access, fingerprint="a look")


def _is_slow(path: Path, limits: Limits) -> bool:
    """Whether an archive can only be listed by unpacking much of it, or what is said in it takes long to be read."""
    if is_zip(path, limits):
        with zipfile.ZipFile(path) as archive:
            return _is_much_to_parse((info.filename, info.file_size) for info in archive.infolist())
    with path.open("rb") as file:
        compressed = compression_of(file.read(LONGEST_SIGNATURE))
    return path.stat().st_size > (MOST_OF_A_COMPRESSED_TAR if compressed else MOST_OF_A_TAR)


def spread(images: Images) -> list[int]:
    """The images to look at, in the order in which they are read fast."""
    order = list(images.reading_order)
    if len(order) <= MOST_LOOKED_AT:
        return order
    return [order[place] for place in np.linspace(0, len(order) - 1, LOOKED_AT_OF_MORE).astype(int).tolist()]


def headers(images: Images, chosen: Sequence[int]) -> tuple[Survey, bool]:
    """Size and kind of some images, and whether colour was seen in one."""
    assert images.read is not None
    seen, coloured, decoded = Survey(), False, 0
    began = time.monotonic()
    for index in chosen:
        name = images.sample_ids[index]
        try:
            content = images.read(index)
            header = read_header(content, name)
        except NotAnImageError as error:
            seen.unreadable[index] = error.reason
            continue
        seen.sizes[(header.height, header.width)] += 1
        seen.all_gray &= header.gray
        if not header.gray and not coloured and decoded < DECODED:
            decoded += 1
            coloured = _has_colour(content, name)
        if time.monotonic() - began > SECONDS:
            break
    return seen, coloured


def _has_colour(content: bytes, name: str) -> bool:
    try:
        found = decode(content, name)
    except ImageError:
        return False
    return bool((found[..., :1] != found[..., 1:]).any())
