"""What a source held when this state folder last saw it, so that a new version of its images is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError

from recognition.access import redacted
from recognition.data_settings import Data
from recognition.experiment import Experiment
from recognition.records import Located, Record
from recognition.settings import home
from recognition.sources import SOURCES
from recognition.storage import writing_to


class Content(Record):
    """What a source held."""

    name: str
    """The data's short name."""
    source: str
    """As `name_of_source` says."""
    digest: str
    """Changes whenever the content does."""
    images: int
    classes: int


def name_of_source(source: str, folder: Path) -> str:
    """A source as events name it: a path absolute, an address without credentials.

    Args:
        source: ``data.source``.
        folder: where a relative path begins.
    """
    if source in SOURCES or ":" in source.partition("/")[0]:
        return redacted(source)
    return os.path.normpath(folder / Path(source).expanduser())


def content_of(data: Data, located: Located) -> Content:
    """What a source holds now."""
    return Content(
        name=Experiment(data=data).data_name,
        source=name_of_source(data.source, Path.cwd()),
        digest=located.fingerprint,
        images=located.images,
        classes=located.classes,
    )


def keep(data: Data, content: Content, tell: Callable[[Content | None], None]) -> None:
    """Keep what a source holds, and tell somebody what it held before, where that is something else.

    Args:
        data: names the source, and the columns it is read by.
        content: what it holds now.
        tell: called before the new content is kept, so that nothing is missed when this process is killed, with what
            was kept before; with none when the source was never seen.

    Raises:
        StorageError: the state folder cannot be written.
    """
    path = _path(data)
    with writing_to(path.parent):
        path.parent.mkdir(exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            before = _read(path)
            if before is not None and before.digest == content.digest:
                return
            tell(before)
            beside = path.with_suffix(f".{os.getpid()}")
            beside.write_text(content.model_dump_json(), encoding="utf-8")
            beside.replace(path)


def _path(data: Data) -> Path:
    """A file for each source and each choice of its columns, which belong to what is seen of it."""
    source = data.source if "://" in data.source else name_of_source(data.source, Path.cwd())
    read_by = [source, data.path_column, data.label_column, data.split_column, data.group_column]
    return home() / "seen" / f"{hashlib.sha256(repr(read_by).encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> Content | None:
    try:
        return Content.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
