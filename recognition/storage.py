"""Writing into the state folder: a full disk or a missing permission becomes a message that says what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

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


def build_once(
    folder: Path, is_whole: Callable[[Path], bool], build: Callable[[Path], None], fresh: bool = False
) -> bool:
    """Make a folder that is there whole or not at all, whatever happens meanwhile, and whoever else wants it.

    It is built under another name and renamed. A second process waits for the first and finds it done; what a killed
    process left behind is removed by the next.

    Args:
        folder: the folder to make; its name says what it holds.
        is_whole: whether a folder that is there can be used.
        build: fills an empty folder.
        fresh: build it again, even when it is there.

    Returns:
        Whether it was built now.

    Raises:
        StorageError: it cannot be written; what ``build`` raises passes, and nothing is left.
    """
    with writing_to(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{folder.name}.lock"):
            if not fresh and is_whole(folder):
                return False
            for left_behind in folder.parent.glob(f".{folder.name}.*"):  # by a killed process; the lock is ours
                shutil.rmtree(left_behind, ignore_errors=True)
            building = folder.parent / f".{folder.name}.{os.getpid()}"
            try:
                building.mkdir()
                build(building)
                for path in [*building.rglob("*"), building]:
                    flush(path)
                if folder.exists():
                    shutil.rmtree(folder)
                building.replace(folder)
                flush(folder.parent)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return True


_FIX = "Free some, or set RECOGNITION_HOME to a folder on a larger disk."
