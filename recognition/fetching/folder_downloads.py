"""Fetching all objects below an address of object storage into a folder that mirrors them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath

from filelock import FileLock

from recognition.access import UNRESTRICTED, Access, redacted
from recognition.data_settings import Limits
from recognition.errors import ConfigurationError, DataError, DownloadError, OutOfReachError
from recognition.fetching import object_storage
from recognition.fetching.parallel_downloads import go_on, in_parallel
from recognition.fetching.remote import NO_LIMIT, Mark, PassingError, TransferError, UnreachableError, forget
from recognition.fetching.transfer import Connections, persist
from recognition.progress import Progress
from recognition.storage import check_free_space, writing_to

FAILURES = 8
"""Objects that could not be fetched, after which the others are not tried."""

_WHOLE = "whole"
"""There as long as the folder holds all that was listed last."""
_JOURNAL = "journal.jsonl"
"""What has been fetched whole, one line an object: its name and version."""

logger = logging.getLogger("recognition")


def fetch_folder(
    address: str,
    downloads: Path,
    on_progress: Progress,
    access: Access = UNRESTRICTED,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    fresh: bool = False,
) -> Path:
    """Fetch all objects below an address to <downloads>/objects/<hash of the address>/files, which then mirrors them.

    Objects that are there in the version that the storage lists are not fetched again; those that it lists no more are
    removed. With a storage that is out of reach, what was fetched whole before is used.

    Raises:
        DataError: no object, a name that cannot be a file's below a folder, or more than ``limits``.
        DownloadError: the storage does not give all of them.
        ConfigurationError: the address may not be read, or needs a library that is not installed.
        StorageError: they cannot be written.
    """
    access.check_address(address)
    if not object_storage.is_object_address(address):
        raise ConfigurationError(f"{redacted(address)}: only folders in object storage (s3, gs, az) can be fetched.")
    place = downloads / "objects" / _digest(address.rstrip("/"))[:12]
    with writing_to(place):
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".lock"):
            try:
                files, root = object_storage.open_storage(address)
                objects = object_storage.listed(files, address, root)
            except (PassingError, UnreachableError) as error:
                if (place / _WHOLE).exists() and not fresh:
                    logger.warning(
                        "%s is out of reach (%s); what was fetched before is used.", redacted(address), error
                    )
                    return place / "files"
                raise OutOfReachError(f"{redacted(address)} cannot be listed: {str(error).rstrip('.')}.") from None
            except TransferError as error:
                raise DownloadError(f"{redacted(address)} cannot be listed: {str(error).rstrip('.')}.") from None
            _check_listing(objects, address, limits)
            with Connections(access, {address.partition("://")[0].lower(): files}) as connections:
                _bring_folder(address, root, connections, objects, place, on_progress, fresh)
    return place / "files"


def _bring_folder(
    address: str,
    root: str,
    connections: Connections,
    objects: dict[PurePosixPath, Mark],
    place: Path,
    on_progress: Progress,
    fresh: bool,
) -> None:
    folder, parts, journal = place / "files", place / "parts", place / _JOURNAL
    folder.mkdir(exist_ok=True)
    parts.mkdir(exist_ok=True)
    known = {} if fresh else _read_journal(journal)
    wanted = [
        path
        for path, mark in objects.items()
        if not (path in known and known[path].is_version_of(mark) and _size(folder / path) == mark.length)
    ]
    (place / _WHOLE).unlink(missing_ok=True)
    _remove_others(folder, objects)
    total = sum(objects[path].length for path in wanted)
    check_free_space(place, total)
    files, _ = connections.storage(address)
    stop = threading.Event()

    def bring(path: PurePosixPath, _: Connections) -> str:
        target, part = folder / path, parts / _digest(str(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        name, mark = f"{root}/{path}", objects[path]
        try:
            persist(
                lambda: object_storage.receive(files, name, name, part, lambda *_: go_on(stop), NO_LIMIT, mark),
                part,
            )
        except TransferError as error:
            return str(error)
        part.replace(target)
        forget(part)
        return ""

    done, failed = 0, []
    with (
        journal.open("w" if fresh else "a", encoding="utf-8") as lines,
        closing(in_parallel(wanted, bring, lambda: connections, stop)) as results,
    ):
        for path, reason in results:
            if reason:
                failed.append(f"  {str(path)!r}: {reason}")
                if len(failed) >= FAILURES:
                    break
                continue
            # only now: what a killed process has noted is whole
            lines.write(_line(path, objects[path]))
            lines.flush()
            done += objects[path].length
            on_progress(done, total, f"fetching {len(wanted):,} objects")
    if failed:
        raise DownloadError(
            "\n".join([f"{redacted(address)}: not all objects could be fetched:", *failed, "Run it again to go on."])
        )
    compact = journal.with_name(f"{journal.name}.new")
    compact.write_text("".join(_line(path, mark) for path, mark in objects.items()), encoding="utf-8")
    compact.replace(journal)
    shutil.rmtree(parts, ignore_errors=True)
    (place / _WHOLE).touch()


def _check_listing(objects: dict[PurePosixPath, Mark], address: str, limits: Limits) -> None:
    total = sum(mark.length for mark in objects.values())
    largest = max((mark.length for mark in objects.values()), default=0)
    if not objects:
        raise DataError(f"{redacted(address)} holds no objects. Check the bucket and the prefix.")
    for found, allowed, setting, unit in (
        (len(objects), limits.files, "files", "objects"),
        (total / 1e9, limits.gigabytes, "gigabytes", "GB"),
        (largest / 1e6, limits.file_megabytes, "file_megabytes", "MB in one object"),
    ):
        if found > allowed:
            raise DataError(
                f"{redacted(address)} holds {found:,.12g} {unit}, more than the {allowed:,.12g} that"
                f" data.limits.{setting} allows."
            )


def _remove_others(folder: Path, objects: dict[PurePosixPath, Mark]) -> None:
    """Remove files that are no objects (any more), and the folders that they leave empty."""
    for parent, folders, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent, name)
            if PurePosixPath(path.relative_to(folder)) not in objects:
                path.unlink()
        for name in folders:
            with suppress(OSError):  # not empty
                Path(parent, name).rmdir()


def _line(path: PurePosixPath, mark: Mark) -> str:
    return json.dumps([str(path), mark.etag, mark.modified, mark.length]) + "\n"


def _read_journal(journal: Path) -> dict[PurePosixPath, Mark]:
    known: dict[PurePosixPath, Mark] = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        with suppress(ValueError, TypeError):  # the last line of a killed process may be cut
            name, etag, modified, length = json.loads(line)
            known[PurePosixPath(name)] = Mark(etag, modified, length)
    return known


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
