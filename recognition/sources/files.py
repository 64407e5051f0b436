"""What all sources of files share: their layout as labelled images, and the hash of their contents."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from recognition.data_settings import Limits
from recognition.pixels import NotAnImageError
from recognition.progress import Progress
from recognition.records import Finding
from recognition.sources.labelled import Images
from recognition.sources.layout import Layout, some


def laid_out(
    layout: Layout,
    fingerprint: str,
    read: Callable[[int], bytes],
    order: Sequence[int],
    findings: Sequence[Finding],
    close: Callable[[], None] = lambda: None,
) -> Images:
    """The images of a layout, with what its reader has found besides."""
    number = {name: label for label, name in enumerate(layout.class_names)}
    return Images(
        class_names=layout.class_names,
        sample_ids=tuple(item.sample_id for item in layout.placed),
        labels=np.array([number[item.class_name] for item in layout.placed], np.int64),
        splits=tuple(item.split for item in layout.placed),
        fingerprint=fingerprint,
        read=read,
        reading_order=order,
        findings=(*layout.findings, *findings),
        annotations=layout.annotations,
        close=close,
    )


def special_files(names: Sequence[str]) -> Sequence[Finding]:
    """The finding about what is no regular file, if there is any."""
    if not names:
        return ()
    message = f"Links, devices or the like ({len(names)}): left out, since only regular files are read."
    return (Finding(kind="special_files", message=message, files=some(names), count=len(names)),)


def read_file(path: Path, sample_id: str, limits: Limits) -> bytes:
    """The content of a local file.

    Raises:
        NotAnImageError: it does not exist, is no regular file, cannot be opened, or is too large.
    """
    try:
        if not path.is_file():
            raise NotAnImageError(sample_id, "is no regular file" if path.exists() else "does not exist")
        check_size(path.stat().st_size, sample_id, limits)
        return path.read_bytes()
    except OSError as error:
        raise NotAnImageError(sample_id, f"cannot be opened ({error.strerror or error})") from error


def check_size(size: int, sample_id: str, limits: Limits) -> None:
    """Refuse a file that is larger than any image, before it is read.

    Raises:
        NotAnImageError: it is.
    """
    if size > limits.file_megabytes * 1e6:
        reason = f"is too large for an image file ({size / 1e6:,.0f} MB, data.limits.file_megabytes is"
        raise NotAnImageError(sample_id, f"{reason} {limits.file_megabytes:g})")


def hash_of_contents(
    sample_ids: Sequence[str], read: Callable[[int], bytes], on_progress: Progress, *, parallel: bool = True
) -> str:
    """SHA-256 over all names and contents, in the order of the names; unreadable files count by their reason."""

    def one(index: int) -> bytes:
        try:
            return hashlib.sha256(read(index)).digest()
        except NotAnImageError as error:
            return hashlib.sha256(error.reason.encode("utf-8", "replace")).digest()

    total = len(sample_ids)
    whole = hashlib.sha256()
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1) if parallel else 1) as pool:
        for start in range(0, total, 256):
            stop = min(start + 256, total)
            for index, digest in zip(range(start, stop), pool.map(one, range(start, stop)), strict=True):
                whole.update(sample_ids[index].encode() + b"\0" + digest)
            on_progress(stop, total, "reading files")
    return whole.hexdigest()
