"""Bringing the content of one address into one file: cut connections are resumed, passing troubles are retried."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from recognition.access import UNRESTRICTED, Access, local_path
from recognition.errors import ConfigurationError
from recognition.fetching import object_storage
from recognition.fetching.remote import (
    NO_LIMIT,
    Limit,
    Mark,
    PassingError,
    Received,
    StalledError,
    TransferError,
    UnreachableError,
    forget,
    mark_of_part,
    read_mark,
    size_of,
    write_mark,
)
from recognition.storage import check_free_space

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from requests import Response, Session

ATTEMPTS = 4
"""Failures in a row, with hardly a byte gained between them, after which an address is given up."""
GAIN = 1 << 14
"""Bytes that an attempt must gain to count as none of these failures."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt; doubled each time, times a random factor from 0.5 to 1.5."""
SLOW_RATE, SLOW_SECONDS = 1024, 60.0
"""Bytes a second, over so many seconds, below which a server counts as stalled."""
CHUNK = 1 << 18
RESUMABLE = 1 << 16
"""Bytes of a file from which on it is resumed, with the mark of its version beside it; a smaller one begins anew."""

_PASSING = (408, 425, 429, 500, 502, 503, 504)

Found = TypeVar("Found")


class Connections:
    """What is kept open from one transfer to the next; for one thread."""

    def __init__(self, access: Access = UNRESTRICTED, storages: Mapping[str, AbstractFileSystem] | None = None) -> None:
        """``storages``: those that are open already, by their schemes; threads may share them."""
        self.access = access
        self._storages = dict(storages or {})
        self._session: Session | None = None

    def session(self) -> Session:
        if self._session is None:
            from recognition.fetching.http_requests import session_for

            self._session = session_for(self.access)
        return self._session

    def storage(self, address: str) -> tuple[AbstractFileSystem, str]:
        scheme, _, path = address.partition("://")
        if scheme.lower() not in self._storages:
            self._storages[scheme.lower()], _ = object_storage.open_storage(address)
        return self._storages[scheme.lower()], path.strip("/")

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def transfer(
    address: str,
    part: Path,
    received: Received,
    access: Access = UNRESTRICTED,
    limit: Limit = NO_LIMIT,
    connections: Connections | None = None,
) -> Mark:
    """Fill ``part`` with the content of an address; what ``part`` holds already is taken for its beginning.

    Args:
        address: http, https, s3, gs, az or file address, or a local path.
        part: the file to fill. After a failure it keeps what has come so far, and a mark beside it the version.
        received: told (bytes there, bytes in total or 0).
        access: what may be read.
        limit: the most bytes that are taken.
        connections: those to use and leave open, of the same ``access``.

    Returns:
        The version of the content.

    Raises:
        TransferError: the address does not answer, does not hold the file, or more than ``limit``.
        ConfigurationError: it may not be read.
        StorageError: there is not enough space.
        OSError: ``part`` cannot be written.
    """
    access.check_address(address)
    with ExitStack() as stack:
        held = connections or stack.enter_context(Connections(access))
        if is_http(address):
            session = held.session()
            return persist(lambda: _receive(session, address, part, received, access, limit), part)
        if object_storage.is_object_address(address):
            files, path = held.storage(address)
            return persist(lambda: object_storage.receive(files, address, path, part, received, limit), part)
    return _copy(_checked_path(address), part, received, limit)


def mark_at(address: str, access: Access = UNRESTRICTED) -> Mark:
    """Which version of its content an address has now, asked once.

    Raises:
        TransferError, ConfigurationError: as `transfer`.
    """
    access.check_address(address)
    try:
        with Connections(access) as connections:
            if is_http(address):
                return _ask(connections.session(), address, access)
            if object_storage.is_object_address(address):
                return object_storage.mark_at(*connections.storage(address))
    except PassingError as error:
        raise UnreachableError(str(error)) from None
    try:
        status = _checked_path(address).stat()
    except OSError as error:
        raise TransferError(error.strerror or str(error)) from None
    return Mark(modified=str(status.st_mtime_ns), length=status.st_size)


def is_http(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def _checked_path(address: str) -> Path:
    if "://" in address and not address.lower().startswith("file://"):
        raise ConfigurationError(f"{address.partition('://')[0]}:// addresses cannot be fetched from.")
    return local_path(address)


def _copy(source: Path, part: Path, received: Received, limit: Limit) -> Mark:
    try:
        if source.exists() and not source.is_file():  # a device or a pipe may never end
            raise TransferError("it is no file")
        reader = source.open("rb")
    except OSError as error:
        raise TransferError(error.strerror or str(error)) from error
    with reader:
        status = source.stat()
        limit.check(status.st_size)
        check_free_space(part.parent, status.st_size)
        with part.open("wb") as writer:
            while block := reader.read(CHUNK):
                writer.write(block)
                limit.check(writer.tell())
                received(writer.tell(), status.st_size)
    return Mark(modified=str(status.st_mtime_ns), length=status.st_size)


def persist(attempt: Callable[[], Found], part: Path) -> Found:
    """Try until it is given up: as long as bytes come, a server may cut as often as it likes."""
    most, failures = size_of(part), 0
    while True:
        try:
            return attempt()
        except PassingError as error:
            if size_of(part) >= most + GAIN and not isinstance(error, StalledError):
                failures = 0
            most = max(most, size_of(part))
            failures += 1
            if failures >= ATTEMPTS:
                raise UnreachableError(f"{error} (tried {failures} times)") from None
            time.sleep(FIRST_WAIT * 2 ** (failures - 1) * random.uniform(0.5, 1.5))


def _ask(session: Session, address: str, access: Access) -> Mark:
    from recognition.fetching.http_requests import answer, mark_of

    with answer(session, "HEAD", address, {}, access) as response:
        if response.status_code == 200:
            return mark_of(response)
    # some servers know no HEAD, and signed redirects hold for GET alone; the body is not read
    with answer(session, "GET", address, {}, access) as response:
        if response.status_code == 200:
            return mark_of(response)
        raise TransferError(f"HTTP {response.status_code} {response.reason}")


def _receive(session: Session, address: str, part: Path, received: Received, access: Access, limit: Limit) -> Mark:
    """One request. Only the same version of the content is resumed, where the server tells versions apart."""
    from recognition.fetching.http_requests import answer, mark_of

    have = size_of(part)
    known = read_mark(mark_of_part(part), address) if have else None
    headers = {"Range": f"bytes={have}-"} if have else {}
    if known is not None and known.condition:
        headers["If-Range"] = known.condition
    with answer(session, "GET", address, headers, access) as response:
        if response.status_code == 416 and have and _total(response) == have and _fits(known, have):
            return known or Mark(length=have)
        start = _start(response, have, part)
        length = response.headers.get("Content-Length", "")
        declared = length.isdigit()
        total = start + int(length) if declared else _total(response)
        if start and known is not None and not known.is_version_of(mark_of(response, total)):
            forget(part)
            raise PassingError("the content was replaced while it was being fetched")
        limit.check(total)
        check_free_space(part.parent, total - start)
        if not start:
            mark_of_part(part).unlink(missing_ok=True)
            part.unlink(missing_ok=True)  # not for a moment an old beginning with a new mark
            if total >= RESUMABLE:
                write_mark(mark_of_part(part), address, mark_of(response, total))
        try:
            size = _write(response, part, start, total, received, limit)
            if total and size != total:
                raise PassingError(f"the connection was cut after {size:,} of {total:,} bytes")
            if not size and not declared:  # a header that was cut passes for a whole one
                raise PassingError("the connection was cut before the content")
        except PassingError:
            if not start and total < RESUMABLE:
                forget(part)
            raise
        return mark_of(response, size)


def _write(response: Response, part: Path, start: int, total: int, received: Received, limit: Limit) -> int:
    """Add the body to ``part``. Returns the size that it has then."""
    import urllib3

    began, gained = time.monotonic(), 0
    with part.open("ab" if start else "wb") as file:
        try:
            # whatever has arrived, as the server keeps it: it may declare a .gz file as compressed for the transfer
            while block := response.raw.read1(CHUNK, decode_content=False):
                file.write(block)
                limit.check(file.tell())
                received(file.tell(), total)
                gained += len(block)
                elapsed = time.monotonic() - began
                if elapsed >= SLOW_SECONDS:
                    if gained < SLOW_RATE * elapsed:
                        raise StalledError(f"the server stalled after {file.tell():,} bytes")
                    began, gained = time.monotonic(), 0
        except urllib3.exceptions.HTTPError:
            raise PassingError(f"the connection was cut after {file.tell():,} bytes") from None
        return file.tell()


def _start(response: Response, have: int, part: Path) -> int:
    """The byte at which the body begins; checked against what was asked for."""
    status = response.status_code
    if status == 416:
        forget(part)
        raise PassingError("the server does not continue where it was cut")
    if status in _PASSING:
        raise PassingError(f"HTTP {status} {response.reason}")
    if status == 206:
        said = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
        if said is None or int(said[1]) != have:
            forget(part)
            raise PassingError("the server continued at another place than asked for")
        return have
    if status != 200:
        raise TransferError(f"HTTP {status} {response.reason}")
    return 0


def _fits(known: Mark | None, size: int) -> bool:
    return known is None or known.length in (-1, size)


def _total(response: Response) -> int:
    said = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
    return int(said[1]) if said else 0
