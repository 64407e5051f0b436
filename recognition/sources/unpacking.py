"""Tars, unpacked as they are read: what unpacks to more than the limits allow stops the reading."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from pathlib import Path
from typing import BinaryIO, cast

from recognition.data_settings import Limits
from recognition.errors import DataError

HARMLESS_BYTES = 10_000_000
"""What unpacks to less is no bomb, whatever its ratio: padding alone makes small archives shrink a lot."""

LONGEST_SIGNATURE = 6
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_HEADER_BYTES = 1 << 20
_ENDS = 16


def open_tar(path: Path, limits: Limits) -> tuple[tarfile.TarFile, UnpackedFile]:
    """Open a tar, compressed or not, and the unpacked file that it is read from.

    Raises:
        DataError: it unpacks to more than the limits allow.
        Exception: it is no tar; each decompressor has error types of its own.
    """
    unpacked = UnpackedFile(path, limits)
    try:
        return tarfile.open(fileobj=cast(BinaryIO, unpacked), mode="r:"), unpacked
    except BaseException:
        unpacked.close()
        raise


def is_tar(path: Path, limits: Limits) -> bool:
    """Whether a file begins as a tar, by its content."""
    try:
        archive, unpacked = open_tar(path, limits)
    except Exception:  # each decompressor has error types of its own
        return False
    archive.close()
    unpacked.close()
    return True


def compression_of(start: bytes) -> str:
    """The compression of a file by its first bytes; empty text for none."""
    return next((name for signature, name in _COMPRESSIONS.items() if start.startswith(signature)), "")


class UnpackedFile:
    """The unpacked content of a file: gzip, bzip2, xz or none, by its first bytes."""

    def __init__(self, path: Path, limits: Limits) -> None:
        with path.open("rb") as file:
            kind = compression_of(file.read(LONGEST_SIGNATURE))
        self._file: BinaryIO | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
        self._path = path
        self._limits = limits
        self._ends = 0
        self._most = int(limits.gigabytes * 1e9)
        self._most_by_ratio = max(HARMLESS_BYTES, int(limits.compression * path.stat().st_size))
        if kind == "gzip":
            self._file = gzip.open(path)  # noqa: SIM115  # closed by close
        elif kind == "bzip2":
            self._file = bz2.open(path)  # noqa: SIM115  # closed by close
        elif kind == "xz":
            self._file = lzma.open(path)  # noqa: SIM115  # closed by close
        else:
            self._file = path.open("rb")
            self._most_by_ratio = self._most

    def read(self, size: int) -> bytes:
        """Read a header; one that claims more than any header needs is refused before it fills the memory."""
        if size > _HEADER_BYTES:
            raise DataError(f"The archive {self._path} is damaged: a header claims {size:,} bytes.")
        content = self._file.read(size)
        # a header that is never complete makes tarfile ask for more for ever
        self._ends = 0 if content else self._ends + 1
        if self._ends > _ENDS:
            raise DataError(f"The archive {self._path} is damaged: its end is missing.")
        self.check(self._file.tell())
        return content

    def content(self, start: int, size: int) -> bytes:
        """Read a member, which must lie after what was read before, or everything is unpacked anew."""
        self.check(start + size)
        self._file.seek(start)
        content = self._file.read(size)
        if len(content) != size:
            raise EOFError("its end is missing")
        return content

    def seek(self, position: int) -> None:
        """Go to a position; on the way forward everything is unpacked, so it must lie within the limits."""
        self.check(position)
        self._file.seek(position)

    def check(self, position: int) -> None:
        """Refuse what lies behind the limits."""
        if position > self._most:
            raise DataError(
                f"The archive {self._path} unpacks to more than {self._limits.gigabytes:g} GB. If it is yours and meant"
                " to, raise data.limits.gigabytes."
            )
        if position > self._most_by_ratio:
            raise DataError(
                f"The archive {self._path} unpacks to more than {self._limits.compression:g} times its size, as a"
                " decompression bomb does. If it is yours and meant to, raise data.limits.compression."
            )

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
