"""Object storage (s3, gs, az) through fsspec: what lies at an address, and bringing it into files.

Credentials, regions and endpoints are those of the environment. An address is never taken apart by fsspec itself: its
chained addresses (``zip://…::file://…``) and options within an address could lead elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from recognition.access import redacted, redacted_text
from recognition.errors import ConfigurationError, DataError
from recognition.fetching.remote import (
    FolderError,
    Limit,
    Mark,
    PassingError,
    Received,
    TransferError,
    UnreachableError,
    forget,
    mark_of_part,
    read_mark,
    size_of,
    write_mark,
)
from recognition.settings import install_command
from recognition.storage import check_free_space

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure"}
"""Schemes, and the extra of this project that installs the library for each."""
BLOCK = 1 << 24
"""Bytes of one request: what has to be asked for again after a cut."""


def is_object_address(address: str) -> bool:
    """Whether an address lies in object storage."""
    scheme, separator, _ = address.partition("://")
    return bool(separator) and scheme.lower() in EXTRAS


def open_storage(address: str) -> tuple[AbstractFileSystem, str]:
    """The storage of an address, and the path of the address in it (bucket/key).

    Raises:
        ConfigurationError: the library for it is not installed, its settings cannot be used, or no bucket is named.
    """
    import fsspec

    for name in ("botocore", "aiobotocore", "s3fs", "gcsfs", "azure", "urllib3"):  # when debugging they log headers
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger(name).level))
    scheme, _, path = address.partition("://")
    scheme = scheme.lower()
    if not path.partition("/")[0]:
        raise ConfigurationError(f"{redacted(address)} names no bucket.")
    try:
        # one of our own: a shared one remembers listings and the credentials it was made with
        return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False), path.strip("/")
    except ImportError:
        raise ConfigurationError(
            f"{redacted(address)}: for addresses with {scheme}:// install a further library:"
            f" {install_command(EXTRAS[scheme])}"
        ) from None
    except ValueError as error:  # an account that is not given, a key that cannot be one
        raise ConfigurationError(
            f"{redacted(address)}: this storage cannot be used ({redacted_text(str(error))}). {CREDENTIALS}"
        ) from None


def mark_at(files: AbstractFileSystem, path: str) -> Mark:
    """Version and size of one object.

    Raises:
        TransferError: there is none, or it may not be read.
        PassingError: the storage does not answer.
    """
    with reasons():
        info = files.info(path)
    if info.get("type") == "directory":
        raise FolderError("it is a folder, not a file")
    return _mark(info)


def receive(
    files: AbstractFileSystem,
    address: str,
    path: str,
    part: Path,
    received: Received,
    limit: Limit,
    listed_as: Mark | None = None,
) -> Mark:
    """Fill ``part`` with one object, block by block; it goes on where an earlier attempt at this version ended.

    Args:
        listed_as: its version where a listing has told it already.

    Raises:
        TransferError, PassingError: as `mark_at`.
        OSError: ``part`` cannot be written.
    """
    mark = listed_as or mark_at(files, path)
    total = mark.length
    limit.check(total)
    known = read_mark(mark_of_part(part), address)
    if known is None or not known.is_version_of(mark) or size_of(part) > total:
        forget(part)
    if total > BLOCK:
        write_mark(mark_of_part(part), address, mark)
    check_free_space(part.parent, total - size_of(part))
    with part.open("ab") as file:
        while file.tell() < total:
            start, end = file.tell(), min(file.tell() + BLOCK, total)
            with reasons():
                block = files.cat_file(path, start=start, end=end)
            if len(block) != end - start:
                raise PassingError(f"the storage gave {len(block):,} of {end - start:,} bytes")
            file.write(block)
            file.flush()
            received(end, total)
    if total > BLOCK and not mark_at(files, path).is_version_of(mark):
        forget(part)
        raise PassingError("it was replaced while it was being fetched")
    return mark


def listed(files: AbstractFileSystem, address: str, root: str) -> dict[PurePosixPath, Mark]:
    """The objects below an address, by their names below it; the empty ones that stand for folders are left out.

    Raises:
        DataError: a name cannot be a path below a folder, or is a file and a folder at once.
        TransferError, PassingError: as `mark_at`.
    """
    with reasons():
        found: dict[str, dict[str, Any]] = files.find(root, detail=True)
    objects: dict[PurePosixPath, Mark] = {}
    for name, info in found.items():
        inner = name.removeprefix(f"{root}/")
        if info.get("type") == "directory" or (name.endswith("/") and not info.get("size")):
            continue
        if inner == name:
            raise TransferError("it is one object, not a folder of objects")
        objects[below(inner, address)] = _mark(info)
    folders = {parent for path in objects for parent in path.parents}
    if both := sorted(folders & objects.keys()):
        raise DataError(f"{redacted(address)}: {str(both[0])!r} is an object and a folder at once. Rename one of them.")
    return objects


def below(name: str, address: str) -> PurePosixPath:
    """An object's name as a path that stays below the folder it is kept in.

    Raises:
        DataError: it would not, or no file can have it.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > 240 for part in parts):
        raise DataError(
            f"{redacted(address)} holds an object named {name!r}, which cannot be a file below a folder. Rename or"
            " remove it."
        )
    return PurePosixPath(*parts)


@contextmanager
def reasons() -> Iterator[None]:
    """Say in a few words what the libraries of object storage raise, and whether it may pass."""
    try:
        yield
    except FileNotFoundError:
        raise TransferError("there is no such object or bucket") from None
    except PermissionError as error:
        raise TransferError(f"it may not be read: {redacted_text(str(error))}. {CREDENTIALS}") from None
    except Exception as error:  # each library has types of its own
        text = redacted_text(str(error)) or type(error).__name__
        if "credentials" in text.lower():
            raise TransferError(f"{text}. {CREDENTIALS}") from None
        if type(error).__name__ in _UNREACHABLE:  # its library has tried more than once
            raise UnreachableError("the storage does not answer") from None
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _LIBRARIES:
            raise PassingError(text) from None
        raise


def _mark(info: dict[str, Any]) -> Mark:
    def said(*names: str) -> str:
        return next((str(info[name]) for name in names if info.get(name)), "")

    return Mark(
        said("ETag", "etag", "md5Hash", "content_md5"),
        said("LastModified", "last_modified", "updated", "mtime"),
        int(info.get("size") or 0),
    )


CREDENTIALS = "Credentials come from the environment: AWS_*, GOOGLE_APPLICATION_CREDENTIALS, AZURE_*."
_UNREACHABLE = {"EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError", "ServiceRequestError"}
_LIBRARIES = {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure", "asyncio", "fsspec"}
