"""Images in a folder of one's own, or in a zip or tar of such a folder, whose members are read where they lie."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from recognition.errors import DataError
from recognition.pixels import NotAnImageError
from recognition.progress import Progress
from recognition.records import Finding
from recognition.sources.labelled import Images
from recognition.sources.layout import Layout, arrange

MAX_FILE_BYTES = 1 << 30
"""A file that claims to be larger is no photograph; a small archive may claim anything."""


def folder(path: Path, on_progress: Progress) -> Images:
    """Read a folder; its fingerprint is made of names and contents.

    Raises:
        DataError: the layout is not as expected, or a folder cannot be opened.
    """
    files, folders, special = _list(path)
    layout = arrange(files, folders, f"The folder {path}")

    def read(index: int) -> bytes:
        return _read_file(path / layout.placed[index].path, layout.placed[index].sample_id)

    return _images(layout, _hash_of_contents(layout, read, on_progress), read, range(len(layout.placed)), special)


def archive(path: Path, on_progress: Progress) -> Images:
    """Read a zip or tar; its fingerprint is the file's SHA-256. Nothing is unpacked to disk.

    Raises:
        DataError: the archive is damaged or encrypted, or its layout is not as expected.
    """
    fingerprint = "archive:" + hash_of(path)
    try:
        return _zip(path, fingerprint) if zipfile.is_zipfile(path) else _tar(path, fingerprint)
    except DataError:
        raise
    except Exception as error:  # each decompressor has error types of its own
        raise DataError(f"The archive {path} is damaged ({error}). Make or fetch it again.") from error


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, by its content."""
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def hash_of(path: Path, kind: str = "sha256") -> str:
    """Hash of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _zip(path: Path, fingerprint: str) -> Images:
    source = zipfile.ZipFile(path)
    try:
        files: dict[str, zipfile.ZipInfo] = {}
        folders, special = [], []
        for info in source.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            name = _tidy(info.filename)
            if info.is_dir():
                folders.append(name)
            elif kind not in (0, stat.S_IFREG):
                special.append(name)
            else:
                files[name] = info
        if any(info.flag_bits & 1 for info in files.values()):
            raise DataError(f"The archive {path} is encrypted: unpack it, and give the folder as data.source.")
        layout = arrange(files, folders, f"The archive {path}")
    except BaseException:
        source.close()
        raise
    infos = [files[item.path] for item in layout.placed]

    def read(index: int) -> bytes:
        _check_size(infos[index].file_size, layout.placed[index].sample_id)
        return _member(lambda: source.read(infos[index]), layout.placed[index].sample_id)

    order = sorted(range(len(infos)), key=lambda index: infos[index].header_offset)
    return _images(layout, fingerprint, read, order, special, source.close)


def _tar(path: Path, fingerprint: str) -> Images:
    source = tarfile.open(path)  # noqa: SIM115  # stays open until the images have been read
    try:
        files: dict[str, tarfile.TarInfo] = {}
        folders, special = [], []
        for info in source:
            name = _tidy(info.name)
            if info.isdir():
                folders.append(name)
            elif info.isreg():
                files[name] = info
            else:
                special.append(name)
        layout = arrange(files, folders, f"The archive {path}")
    except BaseException:
        source.close()
        raise
    infos = [files[item.path] for item in layout.placed]

    def content(index: int) -> bytes:
        member = source.extractfile(infos[index])
        assert member is not None, "only regular files are listed"
        with member:
            return member.read()

    def read(index: int) -> bytes:
        _check_size(infos[index].size, layout.placed[index].sample_id)
        return _member(lambda: content(index), layout.placed[index].sample_id)

    order = sorted(range(len(infos)), key=lambda index: infos[index].offset)
    return _images(layout, fingerprint, read, order, special, source.close)


def _images(
    layout: Layout,
    fingerprint: str,
    read: Callable[[int], bytes],
    order: Sequence[int],
    special: list[str],
    close: Callable[[], None] = lambda: None,
) -> Images:
    findings = list(layout.findings)
    if special:
        message = f"Links, devices or the like ({len(special)}): left out, since only regular files are read."
        findings.append(Finding(kind="special_files", message=message, files=tuple(sorted(special)[:100])))
    number = {name: label for label, name in enumerate(layout.class_names)}
    return Images(
        class_names=layout.class_names,
        sample_ids=tuple(item.sample_id for item in layout.placed),
        labels=np.array([number[item.class_name] for item in layout.placed], np.int64),
        splits=tuple(item.split for item in layout.placed),
        fingerprint=fingerprint,
        read=read,
        reading_order=order,
        findings=tuple(findings),
        close=close,
    )


def _list(root: Path) -> tuple[list[str], list[str], list[str]]:
    """Files, folders, and things that are neither (broken links, pipes), relative to ``root``; links are followed."""
    files: list[str] = []
    folders: list[str] = []
    special: list[str] = []
    entered: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        here = waiting.pop()
        try:
            status = (root / here).stat()
            if (status.st_dev, status.st_ino) in entered:
                continue  # a link to a folder further up would lead in circles
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(root / here) as entries:
                for entry in entries:
                    name = f"{here}/{entry.name}" if here else entry.name
                    if entry.is_dir():
                        folders.append(name)
                        waiting.append(name)
                    else:
                        (files if entry.is_file() else special).append(name)
        except OSError as error:
            raise DataError(f"The folder {root / here} cannot be read ({error.strerror}).") from error
    return files, folders, special


def _hash_of_contents(layout: Layout, read: Callable[[int], bytes], on_progress: Progress) -> str:
    def one(index: int) -> bytes:
        try:
            return hashlib.sha256(read(index)).digest()
        except NotAnImageError as error:
            return hashlib.sha256(error.reason.encode()).digest()

    total = len(layout.placed)
    whole = hashlib.sha256()
    with ThreadPoolExecutor(4) as pool:
        for index, digest in enumerate(pool.map(one, range(total), chunksize=64)):
            whole.update(layout.placed[index].sample_id.encode() + b"\0" + digest)
            if index % 256 == 0 or index + 1 == total:
                on_progress(index + 1, total, "reading files")
    return f"folder:{whole.hexdigest()}"


def _read_file(path: Path, sample_id: str) -> bytes:
    try:
        _check_size(path.stat().st_size, sample_id)
        return path.read_bytes()
    except OSError as error:
        raise NotAnImageError(sample_id, f"cannot be opened ({error.strerror})") from error


def _member(read: Callable[[], bytes], sample_id: str) -> bytes:
    try:
        return read()
    except Exception as error:  # each decompressor has error types of its own
        raise NotAnImageError(sample_id, f"cannot be read from the archive ({error})") from error


def _check_size(size: int, sample_id: str) -> None:
    if size > MAX_FILE_BYTES:
        raise NotAnImageError(sample_id, f"is too large for an image file ({size:,} bytes)")


def _tidy(name: str) -> str:
    """A member's name without leading ./ or /; it is only a label, never a place to write to."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))
