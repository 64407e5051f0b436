"""What is known of content at an address: its version, how much of it is wanted, why it did not come."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

Received = Callable[[int, int], None]
"""Told (bytes there, bytes in total or 0)."""


class TransferError(Exception):
    """An address did not give its content; the text is the reason, without the address."""


class UnreachableError(TransferError):
    """The host did not answer, or not to the end, however often it was asked."""


class RefusedError(TransferError):
    """What was asked for, or where it led, may not be read by this worker."""


class TooLargeError(TransferError):
    """The content has more bytes than are taken."""


class FolderError(TransferError):
    """What lies at the address is no file but a folder of files."""


class PassingError(Exception):
    """What may be gone at the next attempt."""


class StalledError(PassingError):
    """Bytes came too slowly to wait for more of them."""


@dataclass(frozen=True)
class Limit:
    """The most bytes that are taken, and the setting that says so; 0 for no limit."""

    bytes: int = 0
    setting: str = ""

    def check(self, found: int) -> None:
        """Raise `TooLargeError` when ``found`` bytes are more than that."""
        if self.bytes and found > self.bytes:
            size = f"{self.bytes / 1e9:g} GB" if self.bytes >= 1e9 else f"{self.bytes / 1e6:g} MB"
            raise TooLargeError(f"it is larger than the {size} that {self.setting} allows")


NO_LIMIT = Limit()


@dataclass(frozen=True)
class Mark:
    """What a server says to tell one version of some content from another."""

    etag: str = ""
    modified: str = ""
    length: int = -1
    """Bytes; -1 where it is not said."""

    def is_version_of(self, other: Mark) -> bool:
        """Whether both marks are of the same version. Two that say nothing comparable are not."""
        if self.etag and other.etag:
            return self.etag.removeprefix("W/") == other.etag.removeprefix("W/")
        pairs = [(self.modified, other.modified), (self.length, other.length)]
        said = [(one, two) for one, two in pairs if one not in ("", -1) and two not in ("", -1)]
        return bool(said) and all(one == two for one, two in said)

    @property
    def text(self) -> str:
        """As one line; empty where nothing is known."""
        return self.etag or " ".join(filter(None, [self.modified, f"{self.length} bytes" if self.length >= 0 else ""]))

    @property
    def condition(self) -> str:
        """What ``If-Range`` may say: a weak tag does not promise the same bytes."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


def write_mark(path: Path, address: str, mark: Mark, size: int = -1) -> None:
    """Keep, whole or not at all, of which version and size (bytes, -1 unknown) what was fetched from an address is."""
    content = {"address": _digest(address), "size": size, **asdict(mark)}
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        new.write_text(json.dumps(content))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def read_mark(path: Path, address: str, size: int = -1) -> Mark | None:
    """What `write_mark` kept for this address and size; None where there is nothing, or nothing that can be used."""
    try:
        content = json.loads(path.read_text())
        if (content["address"], content["size"]) == (_digest(address), size):
            return Mark(str(content["etag"]), str(content["modified"]), int(content["length"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def mark_of_part(part: Path) -> Path:
    """Where the mark of an unfinished file is kept."""
    return part.with_name(f"{part.name}.json")


def forget(part: Path) -> None:
    """Throw away what has come of a file so far."""
    with suppress(OSError):  # the folder itself may be what cannot be written
        part.unlink(missing_ok=True)
        mark_of_part(part).unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()
