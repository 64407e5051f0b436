"""Fetching files once, checked against their hash: from public mirrors in turn, or from a mirror of one's own."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from recognition.access import UNRESTRICTED, Access, redacted
from recognition.errors import DownloadError, OutOfReachError, StorageError
from recognition.fetching import object_storage
from recognition.fetching.folder_downloads import fetch_folder
from recognition.fetching.parallel_downloads import fetch_objects
from recognition.fetching.remote import (
    NO_LIMIT,
    FolderError,
    Limit,
    PassingError,
    RefusedError,
    TooLargeError,
    TransferError,
    UnreachableError,
    forget,
    mark_of_part,
    read_mark,
    size_of,
    write_mark,
)
from recognition.fetching.transfer import mark_at, transfer
from recognition.progress import Progress
from recognition.storage import flush, writing_to

__all__ = ["fetch", "fetch_archive", "fetch_folder", "fetch_objects", "validators"]

logger = logging.getLogger("recognition")


def fetch(
    data_set: str,
    file_name: str,
    checksum: str,
    mirrors: Sequence[str],
    mirror: str,
    downloads: Path,
    on_progress: Progress,
    access: Access = UNRESTRICTED,
    fresh: bool = False,
) -> Path:
    """Fetch one original file of a named data set, unless it is there with the right hash.

    Args:
        checksum: md5:<hex> or sha256:<hex>.
        mirrors: public base addresses, tried in turn; the file name is added to them.
        mirror: a base address or folder of the user's own. When given, nothing else is asked, and
            <mirror>/<data set>/<file name> is fetched.
        downloads: the file goes to <downloads>/<data set>/<file name>.
        access: what may be read.
        fresh: fetch it even when it is there.

    Raises:
        DownloadError: no address gives the file with that hash; the message names each with its reason.
        ConfigurationError: the mirror may not be read.
        StorageError: it cannot be written.
    """
    relative = f"{data_set}/{file_name}"
    addresses = [f"{mirror.rstrip('/')}/{relative}"] if mirror else [f"{base}{file_name}" for base in mirrors]
    fix = (
        f"Check that data.mirror {redacted(mirror)!r} holds {relative}, unchanged and within reach, or leave"
        " data.mirror empty for the public addresses."
        if mirror
        else "Check the network and the proxy, or fetch the file elsewhere and set data.mirror to a folder or an"
        f" address that holds {relative}."
    )
    return _fetch(addresses, checksum, downloads / data_set / file_name, fix, on_progress, access, fresh, NO_LIMIT)


def fetch_archive(
    address: str,
    checksum: str,
    downloads: Path,
    on_progress: Progress,
    access: Access = UNRESTRICTED,
    fresh: bool = False,
    limit_bytes: int = 0,
    is_told: bool = False,
) -> Path:
    """Fetch an archive or a manifest by its address to <downloads>/archives/<hash of the address>/<name>.

    One that is there already is not fetched again, when it has the checksum, or without a checksum when the server
    says that it has not changed. A server that is out of reach leaves the one that is there.

    Args:
        address: http, https, s3, gs, az or file address.
        checksum: md5:<hex>, sha256:<hex>, or empty.
        access: what may be read.
        fresh: fetch it even when it is there.
        limit_bytes: the most that is taken (data.limits.gigabytes); 0 for any size.
        is_told: of a server out of reach an earlier call has warned already.

    Raises:
        DownloadError: the address does not give it, or with another checksum, or too much.
        ConfigurationError: the address may not be read, or needs a library that is not installed.
        StorageError: it cannot be written.
    """
    access.check_address(address)  # also when it is there: another run, that might read more, may have left it
    replaced = ", or correct data.checksum if the archive was replaced by its owner" if checksum else ""
    fix = f"Check the address{replaced}."
    target = _place(address, downloads / "archives", "archive")
    return _fetch([address], checksum, target, fix, on_progress, access, fresh, _limit(limit_bytes), is_told)


def validators(address: str, access: Access = UNRESTRICTED) -> str:
    """What the server says to tell this version from another, cheaply; empty when it says nothing or is out of reach.

    Raises:
        ConfigurationError: the address may not be read, or needs a library that is not installed.
    """
    try:
        return mark_at(address, access).text
    except FolderError:
        return _validators_of_folder(address)
    except TransferError:
        return ""


def _validators_of_folder(address: str) -> str:
    files, root = object_storage.open_storage(address)
    try:
        objects = object_storage.listed(files, address, root)
    except (TransferError, PassingError):
        return ""
    lines = sorted(f"{path!s}\0{mark.text}\0{mark.length}" for path, mark in objects.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _place(address: str, folder: Path, otherwise: str) -> Path:
    name = re.sub(r"[^\w.+-]", "_", unquote(PurePosixPath(urlsplit(address).path).name)).lstrip(".")[-100:] or otherwise
    return folder / hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()[:12] / name


def _limit(limit_bytes: int) -> Limit:
    return Limit(limit_bytes, "data.limits.gigabytes")


def _fetch(
    addresses: Sequence[str],
    checksum: str,
    target: Path,
    fix: str,
    on_progress: Progress,
    access: Access,
    fresh: bool,
    limit: Limit,
    is_told: bool = False,
) -> Path:
    part = target.with_name(f"{target.name}.part")
    reasons: list[str] = []
    out_of_reach: list[str] = []
    try:
        with writing_to(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(target.parent / ".lock"):
                if fresh:
                    forget(part)
                elif target.exists() and (
                    _matches(target, checksum) if checksum else _is_current(addresses[0], target, access, is_told)
                ):
                    return target
                for address in addresses:
                    if _fetched(address, checksum, target, part, reasons, out_of_reach, on_progress, access, limit):
                        return target
    except StorageError:
        forget(part)
        raise
    kind = OutOfReachError if out_of_reach else DownloadError
    raise kind("\n".join([f"{target.name} could not be fetched:", *(f"  {r}" for r in reasons), fix]))


def _fetched(
    address: str,
    checksum: str,
    target: Path,
    part: Path,
    reasons: list[str],
    out_of_reach: list[str],
    on_progress: Progress,
    access: Access,
    limit: Limit,
) -> bool:
    while True:
        if not checksum and not _can_go_on(part, address):
            forget(part)
        resumed = part.exists()
        try:
            mark = transfer(
                address, part, lambda done, total: on_progress(done, total, f"fetching {target.name}"), access, limit
            )
        except TransferError as error:
            if isinstance(error, TooLargeError) or not (checksum or _can_go_on(part, address)):
                forget(part)
            reasons.append(f"{redacted(address)}: {error}")
            if isinstance(error, UnreachableError):
                out_of_reach.append(address)
            return False
        if not checksum or _matches(part, checksum):
            break
        got = _hash_of(part, checksum)
        forget(part)
        if not resumed:
            reasons.append(f"{redacted(address)}: wrong checksum, expected {checksum}, got {got} (removed)")
            return False
        # the beginning came from an earlier attempt: once more, from the start
    flush(part)
    _meta(target).unlink(missing_ok=True)  # killed after this, nothing is known of the file: it is fetched again
    part.replace(target)
    forget(part)
    if not checksum:
        write_mark(_meta(target), address, mark, size_of(target))
    return True


def _is_current(address: str, target: Path, access: Access, is_told: bool) -> bool:
    """Whether a file that was fetched without a checksum is still what its address gives."""
    known = read_mark(_meta(target), address, size_of(target))
    if known is None:
        return False
    try:
        return known.is_version_of(mark_at(address, access))
    except RefusedError as error:
        raise DownloadError(f"{redacted(address)} cannot be fetched: {error}") from None
    except TransferError as error:
        logger.log(
            logging.DEBUG if is_told else logging.WARNING,
            "%s: whether it has changed cannot be asked (%s); what was fetched before is used.",
            redacted(address),
            error,
        )
        return True


def _can_go_on(part: Path, address: str) -> bool:
    """Whether what has come so far can be told from another version of the content."""
    mark = read_mark(mark_of_part(part), address) if part.exists() else None
    return mark is not None and bool(mark.condition)


def _meta(target: Path) -> Path:
    return target.with_name(f"{target.name}.meta.json")


def _matches(path: Path, checksum: str) -> bool:
    return _hash_of(path, checksum) == checksum.lower()


def _hash_of(path: Path, checksum: str) -> str:
    kind = checksum.partition(":")[0]
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
