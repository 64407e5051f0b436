"""Images in a folder of one's own."""

from __future__ import annotations

import os
from pathlib import Path

from recognition.access import UNRESTRICTED, Access
from recognition.data_settings import Limits
from recognition.errors import ConfigurationError, DataError
from recognition.progress import Progress
from recognition.sources.annotated import arrange
from recognition.sources.files import hash_of_contents, laid_out, read_file, special_files
from recognition.sources.labelled import Images
from recognition.sources.layout import clean


def folder(
    path: Path, limits: Limits, on_progress: Progress, access: Access = UNRESTRICTED, fingerprint: str = ""
) -> Images:
    """Read a folder; its fingerprint is made of names and contents, unless it is known already.

    Raises:
        DataError: the layout is not as expected, there are too many files, or a folder cannot be opened.
    """
    files, folders, special = walk(path, limits, access)

    def read_by_path(name: str) -> bytes:
        return read_file(path / name, clean(name), limits)

    layout = arrange(files, folders, f"The folder {path}", lambda _: read_by_path)

    def read(index: int) -> bytes:
        return read_file(path / layout.placed[index].path, layout.placed[index].sample_id, limits)

    sample_ids = [item.sample_id for item in layout.placed]
    if not fingerprint:
        fingerprint = f"folder:{hash_of_contents(sample_ids, read, on_progress)}"
        if described := layout.annotations:
            by_number = [clean(name) for name in described.files]
            contents = hash_of_contents(by_number, lambda index: read_by_path(described.files[index]), on_progress)
            fingerprint += f":{contents}"
    return laid_out(layout, fingerprint, read, range(len(sample_ids)), special_files(special))


def walk(root: Path, limits: Limits, access: Access = UNRESTRICTED) -> tuple[list[str], list[str], list[str]]:
    """Files, folders, and things that are neither (broken links, pipes), relative to ``root``.

    Links are followed, but with restricted access only to where may be read.

    Raises:
        DataError: there are more files than the limits allow, or a folder cannot be opened.
    """
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
                    if access.restricted and entry.is_symlink() and not _allowed(root / name, access):
                        special.append(name)
                    elif entry.is_dir():
                        folders.append(name)
                        waiting.append(name)
                    else:
                        (files if entry.is_file() else special).append(name)
        except OSError as error:
            raise DataError(f"The folder {root / here} cannot be read ({error.strerror}).") from error
        if len(files) > limits.files:
            raise DataError(
                f"The folder {root} holds more than {limits.files:,} files. If it is meant to, raise data.limits.files."
            )
    return files, folders, special


def _allowed(path: Path, access: Access) -> bool:
    try:
        access.check_path(path)
    except ConfigurationError:
        return False
    return True
