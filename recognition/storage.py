"""Writing into the state folder: a full disk or a missing permission becomes a message that says what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recognition.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write below ``folder`` into a `StorageError`; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(f"{folder} cannot be written: no space is left ({error.strerror}). {_FIX}") from error
        if error.errno in _REFUSED:
            raise StorageError(
                f"{folder} cannot be written ({error.strerror}). Give yourself permission to write there, or set "
                "RECOGNITION_HOME to a folder that you may write to."
            ) from error
        raise


def check_free_space(folder: Path, needed: int) -> None:
    """Raise `StorageError` when fewer than ``needed`` bytes are free where ``folder`` lies."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{folder} has no space for this: {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free. {_FIX}"
        )


def flush(path: Path) -> None:
    """Make sure that a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_FIX = "Free some, or set RECOGNITION_HOME to a folder on a larger disk."
