"""Images listed in a table: a column of paths or addresses, one of labels, and perhaps of splits and groups."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

import numpy as np

from recognition.access import UNRESTRICTED, Access, local_path, redacted, refuse_credentials
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DataError, DownloadError, RecognitionError
from recognition.pixels import NotAnImageError
from recognition.progress import Progress
from recognition.records import Finding
from recognition.sources.columns import refuse_groups_given_twice
from recognition.sources.files import hash_of_contents, read_file
from recognition.sources.labelled import Images
from recognition.sources.layout import SPLIT_NAMES, clean, some, unique
from recognition.sources.tables import EXPECTED, Table, listed, read_table

PATH_NAMES = (
    "image",
    "path",
    "file",
    "filename",
    "file_name",
    "url",
    "image_path",
    "image_file",
    "image_url",
    "filepath",
    "file_path",
    "img",
    "uri",
)
LABEL_NAMES = ("label", "class", "category", "class_name", "label_name", "target")
SCHEMES = ("http", "https", "s3", "gs", "az")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

Fetch = Callable[[Sequence[str]], Sequence[Path | str]]
"""Brings files from their addresses; for each its path, or why there is none."""


@dataclass(frozen=True)
class Roles:
    """Which column is what; empty text for none."""

    path: str
    label: str
    split: str
    group: str


class _Row(NamedTuple):
    sample_id: str
    label: str
    split: str
    group: str
    number: int
    """In the table."""


def manifest(
    path: Path,
    data: Data,
    fetch: Fetch,
    on_progress: Progress,
    *,
    access: Access = UNRESTRICTED,
    address: str = "",
    fingerprint: str = "",
) -> Images:
    """Read a manifest; its fingerprint is made of its rows, in any order, and of the files they name.

    Args:
        path: a CSV or Parquet file.
        data: the names of its columns, and the limits.
        fetch: called once with all addresses in it.
        access: what it may name.
        address: where it was fetched from: its relative paths are then relative to that.
        fingerprint: what an earlier call found, if the files need not be read for it.

    Raises:
        ConfigurationError: a setting names no column, or a row names what may not be read.
        DataError: it is no table of images and labels.
        DownloadError: none of the files can be fetched.
    """
    path = path.absolute()
    table = read_table(path, data.limits)
    roles = find_roles(table, data)
    places = [_place(text, path.parent, address, table, row) for row, text in enumerate(table.columns[roles.path])]
    if access.restricted:
        for place in places:
            if _is_local(place):
                access.check_path(Path(place))
    rows, repeated = _rows(table, roles)
    _check_classes(rows, table, bool(roles.split))
    rows.sort(key=lambda row: (row.sample_id, row.label, row.split, row.group, row.number))
    sample_ids = unique(row.sample_id for row in rows)
    order = sorted(range(len(rows)), key=sample_ids.__getitem__)
    rows, sample_ids = [rows[index] for index in order], [sample_ids[index] for index in order]
    fetched = _fetched(places, fetch)

    def read(index: int) -> bytes:
        place = places[rows[index].number]
        found = Path(place) if _is_local(place) else fetched[place]
        if isinstance(found, str):
            raise NotAnImageError(sample_ids[index], f"cannot be fetched ({found})")
        return read_file(found, sample_ids[index], data.limits)

    others = [name for name in table.columns if name not in (roles.path, roles.label, roles.split, roles.group)]
    if not fingerprint:
        contents = hash_of_contents(sample_ids, read, on_progress)
        fingerprint = f"manifest:{_digest(table, roles, rows, others, contents, repeated)}"
    class_names = tuple(sorted({row.label for row in rows}))
    number = {name: label for label, name in enumerate(class_names)}
    return Images(
        class_names=class_names,
        sample_ids=tuple(sample_ids),
        labels=np.array([number[row.label] for row in rows], np.int64),
        splits=tuple(row.split for row in rows),
        fingerprint=fingerprint,
        read=read,
        reading_order=range(len(rows)),
        groups=tuple(row.group for row in rows) if roles.group else (),
        metadata={name: tuple(table.columns[name][row.number] for row in rows) for name in others},
        findings=_repeats(repeated),
    )


def find_roles(table: Table, data: Data) -> Roles:
    """Which column of a manifest is what.

    Raises:
        ConfigurationError: a setting names no column, two name the same, or groups are given twice.
        DataError: there is no column of paths, or none of labels.
    """
    refuse_groups_given_twice(data)
    path = table.find(data.path_column, "path_column", PATH_NAMES)
    label = table.find(data.label_column, "label_column", LABEL_NAMES)
    split = table.find(data.split_column, "split_column", ("split",))
    group = "" if data.group_pattern else table.find(data.group_column, "group_column", ("group",))
    for found, what, setting, usual in (
        (path, "paths or addresses of images", "path_column", PATH_NAMES),
        (label, "labels", "label_column", LABEL_NAMES),
    ):
        if not found:
            odd = "; ".join(f"{name!r} holds {kind}" for name, kind in list(table.unusable.items())[:5])
            raise DataError(
                f"In {table.where} no column is known as that of {what}. It has {listed(list(table.columns))}"
                f"{f' ({odd})' if odd else ''}. Name it by data.{setting}, or call it {usual[0]}. {EXPECTED}"
            )
    given = [name for name in (path, label, split, group) if name]
    if twice := next((name for name in given if given.count(name) > 1), ""):
        raise ConfigurationError(f"Column {twice!r} of {table.where} cannot be two things: check data.*_column.")
    return Roles(path, label, split, group)


def signature_of(path: Path, data: Data) -> Iterator[str]:
    """Marks of the present state of the local files that a local manifest names; nothing if it cannot be read."""
    with suppress(RecognitionError):
        table = read_table(path, data.limits)
        for row, text in enumerate(table.columns[find_roles(table, data).path]):
            place = _place(text, path.parent, "", table, row)
            if _is_local(place):
                yield f"{text}\0{stamp(place)}"


def stamp(path: Path | str) -> str:
    """Size and time of change of a file."""
    try:
        status = os.stat(path)  # noqa: PTH116  # a million texts need no objects
    except (OSError, ValueError):
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _rows(table: Table, roles: Roles) -> tuple[list[_Row], list[str]]:
    """All rows but those that repeat another in every cell, and the ids of these."""
    columns = list(table.columns.values())
    labels = _labels(table, roles.label)
    splits = _splits(table, roles.split)
    groups = [clean(text.strip()) for text in table.columns[roles.group]] if roles.group else [""] * len(table)
    paths = table.columns[roles.path]
    if empty := [row for row, text in enumerate(paths) if not text.strip()]:
        raise DataError(f"In {table.where} {table.named(empty)}: column {roles.path!r} is empty.")
    seen: set[bytes] = set()
    rows: list[_Row] = []
    repeated: list[str] = []
    for number in range(len(table)):
        cells = "\0".join([column[number] for column in columns])
        key = hashlib.blake2b(cells.encode(), digest_size=16).digest()
        sample_id = clean(paths[number])
        if key in seen:
            repeated.append(sample_id)
            continue
        seen.add(key)
        rows.append(_Row(sample_id, labels[number], splits[number], groups[number], number))
    return rows, repeated


def _labels(table: Table, column: str) -> list[str]:
    labels = [clean(text.strip()) for text in table.columns[column]]
    if empty := [row for row, label in enumerate(labels) if not label]:
        raise DataError(
            f"In {table.where} {table.named(empty)}: column {column!r} is empty. Give every image a label, or remove"
            " its row."
        )
    return labels


def _splits(table: Table, column: str) -> list[str]:
    if not column:
        return [""] * len(table)
    known = SPLIT_NAMES | {"": ""}
    splits = []
    for row, text in enumerate(table.columns[column]):
        split = known.get(text.strip().lower())
        if split is None:
            raise DataError(
                f"In {table.where} {table.named([row])}: {text[:100]!r} in column {column!r} is no split. Known are"
                f" {', '.join(SPLIT_NAMES)}, or nothing."
            )
        splits.append(split)
    return splits


def _check_classes(rows: Sequence[_Row], table: Table, has_splits: bool) -> None:
    labels = {row.label for row in rows}
    if len(labels) < 2:
        raise DataError(
            f"In {table.where} all images have the label {next(iter(labels))[:100]!r}: at least two classes are needed"
            " to tell apart."
        )
    trained = {row.label for row in rows if row.split in ("", "train")}
    if has_splits and not trained:
        raise DataError(f"In {table.where} no row is for training: every one is val or test.")
    for row in rows:
        if row.label not in trained:
            raise DataError(
                f"In {table.where} {table.named([row.number])}: unknown label {row.label[:100]!r}. No row for training"
                " has it. Correct it, or add training images of this class."
            )


def _place(text: str, folder: Path, address: str, table: Table, row: int) -> str:
    """Where the image of a row lies: an absolute local path, or an address."""
    scheme = found[1].lower() if "://" in text and (found := _SCHEME.match(text)) else ""
    if scheme in SCHEMES:
        refuse_credentials(text)
        return text
    trouble = ""
    if scheme and scheme != "file":
        trouble = f"{scheme}:// cannot be fetched from"
    elif address and (scheme or text.startswith("/")):
        trouble = "a manifest that was fetched may name no local files"
    elif address:
        joined = _joined(address, text)
        trouble = "" if joined else "it leads outside of where the manifest lies"
        if joined:
            return joined
    if trouble:
        raise DataError(f"In {table.where} {table.named([row])}: {redacted(text)[:200]!r}: {trouble}.")
    if scheme:
        try:
            return str(local_path(text).absolute())
        except ValueError:
            raise DataError(f"In {table.where} {table.named([row])}: {text[:200]!r} is no address.") from None
    path = os.path.join(folder, text)  # noqa: PTH118  # see stamp
    if "\\" in text and not os.path.lexists(path):
        return str(folder / text.replace("\\", "/"))  # written on Windows
    return path


def _is_local(place: str) -> bool:
    return place.startswith(os.sep)


def _joined(address: str, relative: str) -> str:
    """The address of a file beside that of the manifest; empty text where it would lie above its host or bucket."""
    parts = urlsplit(address)
    is_web = parts.scheme.lower() in ("http", "https")
    folder = posixpath.dirname((unquote(parts.path) if is_web else parts.path).lstrip("/"))
    inside = posixpath.normpath(posixpath.join(folder, relative.replace("\\", "/")))
    if inside.startswith(".."):
        return ""
    return urljoin(address, "/" + quote(inside)) if is_web else f"{parts.scheme}://{parts.netloc}/{inside}"


def _fetched(places: Sequence[str], fetch: Fetch) -> dict[str, Path | str]:
    addresses = sorted({place for place in places if not _is_local(place)})
    if not addresses:
        return {}
    fetched = dict(zip(addresses, fetch(addresses), strict=True))
    reasons = [f"  {address}: {found}" for address, found in fetched.items() if isinstance(found, str)]
    if len(reasons) == len(places):
        raise DownloadError("\n".join([f"None of {len(reasons)} images could be fetched:", *reasons[:10]]))
    return fetched


def _digest(
    table: Table, roles: Roles, rows: Sequence[_Row], others: Sequence[str], contents: str, repeated: Sequence[str]
) -> str:
    whole = hashlib.sha256("\0".join(others).encode() + b"\n")
    for row in rows:
        cells = (row.label, row.split, row.group, *(table.columns[name][row.number] for name in others))
        whole.update("\0".join(cells).encode() + b"\0")
    whole.update(contents.encode())
    if repeated:  # they change no image, but what an audit says, which is kept by the fingerprint
        whole.update("\0".join(["\nrepeated", *sorted(repeated)]).encode())
    return whole.hexdigest()


def _repeats(repeated: list[str]) -> tuple[Finding, ...]:
    if not repeated:
        return ()
    message = f"Rows that repeat another row ({len(repeated)}): taken once."
    return (Finding(kind="repeated_rows", message=message, files=some(repeated), count=len(repeated)),)
