"""Members of a zip, read where they lie, with nothing believed that its directory says."""

from __future__ import annotations

import bz2
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from recognition.data_settings import Limits
from recognition.errors import DataError
from recognition.sources.unpacking import HARMLESS_BYTES, is_tar

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENTRY_BYTES = 46


def is_zip(path: Path, limits: Limits) -> bool:
    """Whether a file is a zip, by its content; a tar is none, whose last member is a zip."""
    if not zipfile.is_zipfile(path):
        return False
    with path.open("rb") as file:
        begins_as_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    return begins_as_zip or not is_tar(path, limits)


def open_zip(path: Path, limits: Limits) -> zipfile.ZipFile:
    """Open a zip whose directory is within the limits.

    Raises:
        DataError: too many members, too much content, too high a compression, or members that share their bytes.
        Exception: it is no whole zip.
    """
    if (count := _count(path, limits.files)) > limits.files:
        raise DataError(f"The archive {path} holds more than {limits.files:,} files. {_RAISE}.files.")
    archive = zipfile.ZipFile(path)
    try:
        if len(archive.filelist) > max(count, limits.files):
            raise DataError(f"The archive {path} is damaged: its directory has two readings.")
        _check_sizes(path, archive.filelist, limits)
        _check_overlap(path, archive)
    except BaseException:
        archive.close()
        raise
    return archive


class Packed(NamedTuple):
    """What it takes to read a member: of millions, no more is kept."""

    place: int
    """Of its header, in bytes from the start of the archive."""
    packed: int
    unpacked: int
    checksum: int
    method: int

    @classmethod
    def of(cls, info: zipfile.ZipInfo) -> Packed:
        return cls(info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type)


class MemberReader:
    """Reads members of an open zip by their place; threads may share one."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def read(self, member: Packed) -> bytes:
        """The content of a member; what unpacks to more than it declares is not unpacked further.

        Raises:
            ValueError: the member is damaged, or compressed by a method that is not read.
        """
        header = self._bytes(member.place, _LOCAL_HEADER.size)
        signature, *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04":
            raise ValueError("its header is not where the directory says")
        start = member.place + _LOCAL_HEADER.size + name_bytes + extra_bytes
        content = _unpack(member, self._bytes(start, member.packed))
        if len(content) != member.unpacked:
            raise ValueError("its size is not what the directory says")
        if zlib.crc32(content) != member.checksum:
            raise ValueError("its checksum is wrong")
        return content

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _bytes(self, start: int, size: int) -> bytes:
        content = os.pread(self._file.fileno(), size, start)
        if len(content) != size:
            raise ValueError("its end is missing")
        return content


def _unpack(member: Packed, packed: bytes) -> bytes:
    if member.method == zipfile.ZIP_STORED:
        return packed
    at_most = member.unpacked + 1
    if member.method == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, at_most)
    if member.method == zipfile.ZIP_BZIP2:
        return bz2.BZ2Decompressor().decompress(packed, at_most)
    name = zipfile.compressor_names.get(member.method, str(member.method))  # type: ignore[attr-defined]
    raise ValueError(f"it is compressed by {name}; pack it as an ordinary zip")


def _check_sizes(path: Path, infos: list[zipfile.ZipInfo], limits: Limits) -> None:
    total = sum(info.file_size for info in infos)
    if total > limits.gigabytes * 1e9:
        raise DataError(
            f"The archive {path} unpacks to {total / 1e9:,.1f} GB, more than {limits.gigabytes:g}. {_RAISE}.gigabytes."
        )
    for info in infos:
        _check_ratio(f"{info.filename!r} in the archive {path}", info.file_size, info.compress_size, limits)
    _check_ratio(f"The archive {path}", total, path.stat().st_size, limits)


def _check_ratio(what: str, unpacked: int, packed: int, limits: Limits) -> None:
    if unpacked > max(HARMLESS_BYTES, limits.compression * packed):
        raise DataError(
            f"{what} unpacks to {unpacked / max(packed, 1):,.0f} times its size, as a decompression bomb does (more"
            f" than {limits.compression:g}). {_RAISE}.compression."
        )


def _check_overlap(path: Path, archive: zipfile.ZipFile) -> None:
    """Members that share bytes unpack to far more than the archive's size, or are two readings of one."""
    end = 0
    for info in sorted(archive.filelist, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise DataError(f"The archive {path} has members that overlap, such as {info.filename!r}: it is not read.")
        end = info.header_offset + _LOCAL_HEADER.size + len(info.filename) + info.compress_size
    if end > archive.start_dir:
        raise DataError(f"The archive {path} is damaged: members reach into its directory.")


def _count(path: Path, enough: int) -> int:
    """How many entries its directory has, without keeping them; counting stops above ``enough``."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - (1 << 16) - 22))
        tail = file.read()
        place = tail.rfind(b"PK\x05\x06")
        if place < 0 or len(tail) - place < 22:
            return 0
        (size,) = struct.unpack_from("<I", tail, place + 12)
        end = length - len(tail) + place
        if place >= 20 and tail[place - 20 : place - 16] == b"PK\x06\x07":
            # as zipfile reads it: the 64-bit record lies right before its locator
            file.seek(max(0, end - 76))
            record = file.read(56)
            if record.startswith(b"PK\x06\x06"):
                (size,) = struct.unpack_from("<Q", record, 40)
                end -= 76
        file.seek(max(0, end - size))
        count = 0
        while count <= enough and file.tell() < end:
            entry = file.read(_ENTRY_BYTES)
            if len(entry) < _ENTRY_BYTES or not entry.startswith(b"PK\x01\x02"):
                break
            file.seek(sum(struct.unpack_from("<3H", entry, 28)), os.SEEK_CUR)
            count += 1
    return count


_RAISE = "If it is yours and meant to, raise data.limits"
