"""Images in a zip or tar of a folder, whose members are read where they lie; nothing is unpacked to disk."""

from __future__ import annotations

import hashlib
import re
import stat
import tarfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from recognition.data_settings import Limits
from recognition.errors import DataError, RecognitionError
from recognition.pixels import NotAnImageError
from recognition.records import Finding
from recognition.sources.annotated import arrange
from recognition.sources.annotations import Read
from recognition.sources.files import check_size, laid_out, special_files
from recognition.sources.labelled import Images
from recognition.sources.layout import clean, some
from recognition.sources.unpacking import LONGEST_SIGNATURE, UnpackedFile, compression_of, is_tar, open_tar
from recognition.sources.zips import MemberReader, Packed, is_zip, open_zip

SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
"""How the names of archives end; local ones are judged by their content alone."""
_LONGEST_NAME = 4096
_DEEPEST = 128


def archive(path: Path, limits: Limits, fingerprint: str = "") -> Images:
    """Read a zip or tar; its fingerprint is the file's SHA-256, unless it is known already.

    Raises:
        DataError: the archive is damaged, encrypted or hostile, or its layout is not as expected.
    """
    fingerprint = fingerprint or "archive:" + hash_of(path)
    try:
        return _zip(path, limits, fingerprint) if is_zip(path, limits) else _tar(path, limits, fingerprint)
    except (RecognitionError, MemoryError):
        raise
    except Exception as error:  # each decompressor has error types of its own
        raise DataError(f"The archive {path} is damaged ({error}). Make or fetch it again.") from error


def is_archive(path: Path, limits: Limits) -> bool:
    """Whether a file is a zip or a tar, by its content."""
    return is_zip(path, limits) or is_tar(path, limits)


def how_it_begins(path: Path, limits: Limits) -> str:
    """As what archive a file begins that `is_archive` refuses, as the rest of a sentence; empty text for none."""
    with path.open("rb") as file:
        start = file.read(LONGEST_SIGNATURE)
    if start.startswith(b"PK\x03\x04"):
        return "begins as a zip, but its end is missing"
    name = compression_of(start)
    if not name:
        return ""
    unpacked = UnpackedFile(path, limits)
    try:
        unpacked.read(tarfile.BLOCKSIZE)
    except EOFError:
        return f"begins as a {name} archive, but its end is missing"
    except Exception:  # each decompressor has error types of its own
        return f"begins as a {name} archive, but is damaged"
    finally:
        unpacked.close()
    return ""


def hash_of(path: Path, kind: str = "sha256") -> str:
    """Hash of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


class _Member(NamedTuple):
    place: int
    size: int
    """Bytes, packed or unpacked, whichever are more."""
    spot: tuple[int, ...]
    """What its archive's reader wants to know of it."""


@dataclass
class _Listing:
    """What an archive holds, by tidied names."""

    path: Path
    limits: Limits
    files: dict[str, _Member] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)
    count: int = 0

    def add(self, name: str, kind: Literal["file", "folder", "special"], member: _Member) -> None:
        self.count += 1
        if self.count > self.limits.files:
            raise DataError(
                f"The archive {self.path} holds more than {self.limits.files:,} files. If it is yours and meant to,"
                " raise data.limits.files."
            )
        name = _tidied(name, self.path)
        if kind == "folder":
            self.folders.append(name)
        elif kind == "special":
            self.special.append(name)
        else:
            if name in self.files:
                self.repeated.add(name)
            self.files[name] = member

    def images(
        self,
        fingerprint: str,
        read_member: Callable[[tuple[int, ...]], bytes],
        close: Callable[[], None],
        *,
        in_order: bool = False,
    ) -> Images:
        """Its images; ``in_order``: what describes them is read at once, since going back in the archive is slow."""

        def contents(paths: Collection[str]) -> Read:
            wanted = {path: self.files[path] for path in sorted(paths, key=lambda path: self.files[path].place)}
            if in_order:
                held = {path: tried(path, member) for path, member in wanted.items()}
                return lambda path: _given(held[path])
            return lambda path: read_one(wanted[path], clean(path))

        def read_one(member: _Member, name: str) -> bytes:
            check_size(member.size, name, limits)
            try:
                return read_member(member.spot)
            except MemoryError:
                raise
            except Exception as error:  # each decompressor has error types of its own
                raise NotAnImageError(name, f"cannot be read from the archive ({error})") from error

        def tried(path: str, member: _Member) -> bytes | NotAnImageError:
            try:
                return read_one(member, clean(path))
            except NotAnImageError as error:
                return error

        limits = self.limits
        layout = arrange(self.files, self.folders, f"The archive {self.path}", contents)
        members = [self.files[item.path] for item in layout.placed]
        names = [item.sample_id for item in layout.placed]
        order = sorted(range(len(members)), key=lambda index: members[index].place)
        # of millions of members no more is kept than it takes to read them
        sizes = np.array([member.size for member in members], np.int64)
        spots = np.array([member.spot for member in members], np.int64)
        members.clear()
        self.files.clear()

        def read(index: int) -> bytes:
            return read_one(_Member(0, int(sizes[index]), tuple(spots[index].tolist())), names[index])

        return laid_out(layout, fingerprint, read, order, [*special_files(self.special), *self._repeats()], close)

    def _repeats(self) -> Sequence[Finding]:
        if not self.repeated:
            return ()
        message = f"Names that the archive holds more than once ({len(self.repeated)}): the last file of each is used."
        return (Finding(kind="repeated_names", message=message, files=some(self.repeated), count=len(self.repeated)),)


def _given(content: bytes | NotAnImageError) -> bytes:
    if isinstance(content, NotAnImageError):
        raise content
    return content


def _zip(path: Path, limits: Limits, fingerprint: str) -> Images:
    listing = _Listing(path, limits)
    with open_zip(path, limits) as source:
        infos = source.infolist()
    reader = MemberReader(path)
    try:
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            # some programs on Windows (0) write backslashes
            name = info.filename.replace("\\", "/") if info.create_system == 0 else info.filename
            is_folder = name.endswith("/")
            if info.flag_bits & 1 and not is_folder:
                raise DataError(f"The archive {path} is encrypted: unpack it, and give the folder as data.source.")
            member = _Member(info.header_offset, max(info.file_size, info.compress_size), Packed.of(info))
            listing.add(name, "folder" if is_folder else "file" if kind in (0, stat.S_IFREG) else "special", member)
        infos.clear()
        return listing.images(fingerprint, lambda spot: reader.read(Packed(*spot)), reader.close)
    except BaseException:
        reader.close()
        raise


def _tar(path: Path, limits: Limits, fingerprint: str) -> Images:
    listing = _Listing(path, limits)
    source, unpacked = open_tar(path, limits)
    try:
        before = -1
        while info := source.next():
            if info.offset <= before or info.size < 0:
                raise DataError(f"The archive {path} is damaged: {info.name!r} points back.")
            before = info.offset
            is_file = info.isreg() and not info.issparse()
            member = _Member(info.offset, info.size, (info.offset_data, info.size))
            listing.add(info.name, "folder" if info.isdir() else "file" if is_file else "special", member)
            source.members = []  # type: ignore[attr-defined]  # what tarfile collects would be kept twice
        unpacked.seek(source.offset)
        if unpacked.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise DataError(f"The archive {path} is damaged behind {listing.count:,} files. Make or fetch it again.")
        return listing.images(fingerprint, lambda spot: unpacked.content(*spot), unpacked.close, in_order=True)
    except BaseException:
        unpacked.close()
        raise
    finally:
        source.close()


def _tidied(name: str, path: Path) -> str:
    """A member's name without a leading ./; it is only a label, never a place to write to."""
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:[/\\]", name):
        raise DataError(
            f"The archive {path} holds the name {name[:200]!r}, which leads outside of it: such an archive is not read."
        )
    if len(name) > _LONGEST_NAME or len(parts) > _DEEPEST:
        raise DataError(
            f"The archive {path} holds a name of {len(name):,} characters and {len(parts):,} parts ({name[:60]!r}...):"
            f" more than {_LONGEST_NAME:,} and {_DEEPEST} are not read."
        )
    return "/".join(part for part in name.split("/") if part not in ("", "."))
