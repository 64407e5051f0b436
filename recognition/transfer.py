"""Bringing the content of one address into one file: cut connections are resumed, passing troubles are retried."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from recognition.storage import check_free_space

if TYPE_CHECKING:
    from requests import Response, Session

ATTEMPTS = 4
"""Failures in a row, without a byte gained between them, after which an address is given up."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt; doubled each time, times a random factor from 0.5 to 1.5."""
TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and between two bytes."""
CHUNK = 1 << 18

_PASSING = (408, 425, 429, 500, 502, 503, 504)

Received = Callable[[int, int], None]
"""Told (bytes there, bytes in total or 0)."""


class TransferError(Exception):
    """An address did not give its content; the text is the reason, without the address."""


class _PassingError(Exception):
    """What may be gone at the next attempt."""


def transfer(address: str, part: Path, received: Received) -> None:
    """Fill ``part`` with the content of an address; what ``part`` holds already is taken for its beginning.

    Args:
        address: http, https or file address, or a local path.
        part: the file to fill. After a failure it keeps what has come so far.

    Raises:
        TransferError: the address does not answer, or does not hold the file.
        StorageError: there is not enough space.
        OSError: ``part`` cannot be written.
    """
    if urlsplit(address).scheme in ("http", "https"):
        _fetch(address, part, received)
    else:
        _copy(local_path(address), part, received)


def local_path(address: str) -> Path:
    """The path that a file address, or a plain path, means."""
    return Path(url2pathname(urlsplit(address).path) if address.startswith("file://") else address).expanduser()


def _copy(source: Path, part: Path, received: Received) -> None:
    try:
        reader = source.open("rb")
    except OSError as error:
        raise TransferError(error.strerror or str(error)) from error
    with reader:
        total = source.stat().st_size
        check_free_space(part.parent, total)
        with part.open("wb") as writer:
            while block := reader.read(CHUNK):
                writer.write(block)
                received(writer.tell(), total)


def _fetch(address: str, part: Path, received: Received) -> None:
    import requests

    most, failures, validator = _size(part), 0, ""
    with requests.Session() as session:
        while True:
            try:
                validator = _receive(session, address, part, validator, received)
                return
            except _PassingError as error:
                if _size(part) > most:
                    most, failures = _size(part), 0
                failures += 1
                if failures >= ATTEMPTS:
                    raise TransferError(f"{error} (tried {failures} times)") from error
                time.sleep(FIRST_WAIT * 2 ** (failures - 1) * random.uniform(0.5, 1.5))
            except requests.RequestException as error:
                raise TransferError(_plain(error)) from error


def _receive(session: Session, address: str, part: Path, validator: str, received: Received) -> str:
    """One request. Returns the server's mark of this version of the content, to resume only the same version."""
    import requests
    import urllib3

    have = _size(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    try:
        with session.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416 and _total(response) == have:
                return validator
            start = _start(response, have, part)
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else _total(response)
            check_free_space(part.parent, total - start)
            with part.open("ab" if start else "wb") as file:
                # the bytes as the server keeps them: it may declare a .gz file as compressed for the transfer
                for block in response.raw.stream(CHUNK, decode_content=False):
                    file.write(block)
                    received(file.tell(), total)
            if total and _size(part) != total:
                raise _PassingError(f"the connection was cut after {_size(part):,} of {total:,} bytes")
            return _mark(response)
    except (requests.exceptions.SSLError, requests.exceptions.InvalidSchema) as error:
        raise TransferError(_plain(error)) from error
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _PassingError(_plain(error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise _PassingError(f"the connection was cut after {_size(part):,} bytes") from error


def _start(response: Response, have: int, part: Path) -> int:
    """The byte at which the body begins; checked against what was asked for."""
    status = response.status_code
    if status == 416:
        part.unlink(missing_ok=True)
        raise _PassingError("the server does not continue where it was cut")
    if status in _PASSING:
        raise _PassingError(f"HTTP {status} {response.reason}")
    if status == 206:
        said = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
        if said is None or int(said[1]) != have:
            part.unlink(missing_ok=True)
            raise _PassingError("the server continued at another place than asked for")
        return have
    if status != 200:
        raise TransferError(f"HTTP {status} {response.reason}")
    return 0


def _total(response: Response) -> int:
    said = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
    return int(said[1]) if said else 0


def _mark(response: Response) -> str:
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _plain(error: Exception) -> str:
    """The innermost reason of a chain of connection errors, in a few words."""
    text = str(error)
    for sign, reason in (
        ("Name or service not known", "the host's name cannot be resolved"),
        ("NameResolutionError", "the host's name cannot be resolved"),
        ("Connection refused", "the connection was refused"),
        ("timed out", "no answer in time"),
        ("certificate", "the host's certificate is not trusted"),
        ("ProxyError", "the proxy does not let it through"),
    ):
        if sign in text:
            return reason
    return text.rpartition(": ")[2].strip("')\"( ") or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
