"""The images of a loaded Hugging Face data set: which columns are what, and its rows as labelled images."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recognition.access import Access
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DataError, RecognitionError
from recognition.pixels import NotAnImageError
from recognition.progress import Progress
from recognition.records import Finding
from recognition.sources.files import check_size, hash_of_contents, read_file
from recognition.sources.labelled import Images
from recognition.sources.layout import SPLIT_NAMES, clean
from recognition.sources.manifests import LABEL_NAMES, PATH_NAMES
from recognition.sources.tables import as_text, find_column, is_plain, listed

_ROWS = 1024
_LABELS = (*LABEL_NAMES, "labels", "fine_label", "coarse_label")


@dataclass(frozen=True)
class Loaded:
    """A data set as the library has loaded it."""

    library: Any
    parts: Mapping[str, Any]
    """Its splits by name."""
    where: str
    """How messages call it."""
    access: Access
    own: Path | None = None
    """The library's folder, whose files may always be read."""

    @property
    def features(self) -> Any:
        return next(iter(self.parts.values())).features


def given_splits(names: Sequence[str], where: str) -> dict[str, str]:
    """Our name for each of the splits; a single one of any name is no split."""
    unknown = [name for name in names if name.lower() not in SPLIT_NAMES]
    if len(names) == 1 and (not unknown or names == [""]):
        return {names[0]: ""}
    given = {name: SPLIT_NAMES.get(name.lower(), "") for name in names}
    if unknown:
        raise DataError(
            f"{capital(where)} has splits whose meaning is not known: {listed(unknown)}. Known are"
            f" {', '.join(SPLIT_NAMES)}. Save those that you want under such names with save_to_disk."
        )
    if len(set(given.values())) < len(given):
        raise DataError(f"{capital(where)} has two splits of one meaning among {listed(list(names))}: keep one.")
    if "train" not in given.values():
        raise DataError(f"{capital(where)} has no split for training, only {listed(list(names))}.")
    return given


def images_of(loaded: Loaded, data: Data, on_progress: Progress, fingerprint: str) -> Images:
    """Labelled images of a loaded data set; its fingerprint is made of all that is used of it, unless it is known.

    Raises:
        ConfigurationError: a setting names no column.
        DataError: it holds no labelled images, splits that are none of ours, or is damaged.
    """
    where = capital(loaded.where)
    given = given_splits(list(loaded.parts), loaded.where)
    total = sum(part.num_rows for part in loaded.parts.values())
    if not total:
        raise DataError(f"{where} holds no rows.")
    if total > data.limits.files:
        raise DataError(f"{where} holds {total:,} rows, more than data.limits.files ({data.limits.files:,}).")
    for name, part in loaded.parts.items():
        if part.features != loaded.features:
            raise DataError(f"{where}: the split {name!r} has other columns than the first.")
    roles = _find_roles(loaded, data)
    try:
        return _read(loaded, given, roles, data, on_progress, fingerprint)
    except (RecognitionError, MemoryError):
        raise
    except Exception as error:  # Arrow has many
        raise DataError(f"{where} is damaged ({first_line(error)}). Save or fetch it again.") from error


def _read(
    loaded: Loaded, given: Mapping[str, str], roles: _Roles, data: Data, on_progress: Progress, fingerprint: str
) -> Images:
    images: list[Any] = []
    rows: list[tuple[int, int]] = []
    labels: list[str] = []
    numbered: list[str] = []
    paths: list[str] = []
    splits: list[str] = []
    metadata: dict[str, list[str]] = {name: [] for name in _plain_columns(loaded.features) if name not in roles.used}
    for number, (name, part) in enumerate(loaded.parts.items()):
        undecoded = loaded.library.Image(decode=False)
        images.append(part.select_columns([roles.image]).cast_column(roles.image, undecoded))
        labels += _labels(part, roles.label, name, loaded.where)
        paths += _paths(images[-1], roles.image)
        rows += [(number, index) for index in range(part.num_rows)]
        numbered += [f"{name}/{index:05d}" if given[name] else f"{index:05d}" for index in range(part.num_rows)]
        splits += [given[name]] * part.num_rows
        for column, texts in metadata.items():
            texts += [clean(text) for text in _texts(part, column)]
    class_names = _class_names(loaded.features[roles.label], labels)
    _check_labels(labels, splits, class_names, loaded.where)
    sample_ids = _sample_ids(paths) or numbered
    order = sorted(range(len(rows)), key=sample_ids.__getitem__)
    sample_ids, splits = [sample_ids[index] for index in order], [splits[index] for index in order]
    rows = [rows[index] for index in order]
    columns = {name: tuple(texts[index] for index in order) for name, texts in metadata.items()}
    groups = columns.pop(roles.group, ())
    number_of = {name: label for label, name in enumerate(class_names)}
    numbers = np.array([number_of[labels[index]] for index in order], np.int64)

    def read(index: int) -> bytes:
        part, row = rows[index]
        return _content(images[part][row][roles.image], sample_ids[index], data, loaded)

    if not fingerprint:
        contents = hash_of_contents(sample_ids, read, on_progress, parallel=False)
        used = [list(class_names), numbers.tolist(), splits, list(groups), columns, contents]
        fingerprint = f"huggingface:{hashlib.sha256(json.dumps(used).encode()).hexdigest()}"
    return Images(
        class_names=class_names,
        sample_ids=tuple(sample_ids),
        labels=numbers,
        splits=tuple(splits),
        fingerprint=fingerprint,
        read=read,
        # rows of one file lie side by side
        reading_order=sorted(range(len(rows)), key=rows.__getitem__),
        groups=groups,
        metadata=columns,
        findings=_unused(loaded.features[roles.label], class_names),
    )


@dataclass(frozen=True)
class _Roles:
    image: str
    label: str
    group: str

    @property
    def used(self) -> tuple[str, str]:
        return self.image, self.label


def _find_roles(loaded: Loaded, data: Data) -> _Roles:
    features, where = loaded.features, loaded.where
    names = list(features)
    images = [name for name in names if isinstance(features[name], loaded.library.Image)]
    classes = [name for name in names if isinstance(features[name], loaded.library.ClassLabel)]
    image = find_column(names, data.path_column, "path_column", PATH_NAMES, where, {})
    if not data.path_column and image not in images:
        image = images[0] if len(images) == 1 else ""
    if image not in images:
        raise DataError(
            f"{capital(where)} has no single column of images: it has {listed(names)}, of which {listed(images)} hold"
            " images. Name one by data.path_column."
        )
    label = find_column(names, data.label_column, "label_column", _LABELS, where, {})
    if not label and len(classes) == 1:
        label = classes[0]
    if not label or label == image:
        raise DataError(
            f"In {where} no column is known as that of labels: it has {listed(names)}. Name it by data.label_column."
        )
    if label not in _plain_columns(features):
        raise DataError(f"In {where} the column {label!r} holds no single label per image, but {features[label]}.")
    group = "" if data.group_pattern else find_column(names, data.group_column, "group_column", ("group",), where, {})
    return _Roles(image, label, group)


def _labels(part: Any, column: str, split: str, where: str) -> list[str]:
    feature = part.features[column]
    labels = [clean(text.strip()) for text in _texts(part, column)]
    if names := getattr(feature, "names", None):
        known = {str(number): clean(str(name)) for number, name in enumerate(names)}
        labels = [known.get(label, "") for label in labels]
    if empty := [row for row, label in enumerate(labels) if not label]:
        rows = ", ".join(map(str, empty[:10])) + (f" and {len(empty) - 10} more" if len(empty) > 10 else "")
        raise DataError(
            f"In {where} rows {rows} of the split {split!r} have no label in {column!r}. Save the data set without them"
            " by save_to_disk, and give that folder as data.source."
        )
    return labels


def _class_names(feature: Any, labels: Sequence[str]) -> tuple[str, ...]:
    """Those that occur, in the order of the feature, or sorted."""
    used = set(labels)
    declared = [clean(str(name)) for name in getattr(feature, "names", None) or sorted(used)]
    return tuple(dict.fromkeys(name for name in declared if name in used))


def _unused(feature: Any, class_names: Sequence[str]) -> tuple[Finding, ...]:
    unused = [clean(str(name)) for name in getattr(feature, "names", None) or () if clean(str(name)) not in class_names]
    if not unused:
        return ()
    message = f"Classes without any image ({listed(unused)}): left out."
    return (Finding(kind="unused_classes", message=message, count=len(unused)),)


def _check_labels(labels: Sequence[str], splits: Sequence[str], class_names: Sequence[str], where: str) -> None:
    if len(class_names) < 2:
        raise DataError(f"In {where} all images have the label {class_names[0]!r}: at least two classes are needed.")
    trained = {label for label, split in zip(labels, splits, strict=True) if split in ("", "train")}
    if unknown := sorted(set(labels) - trained):
        raise DataError(f"In {where} no image for training has the label {unknown[0]!r}, which another split has.")


def _plain_columns(features: Any) -> list[str]:
    schema = features.arrow_schema
    return [name for name in features if is_plain(schema.field(name).type)]


def _texts(part: Any, column: str) -> list[str]:
    return [as_text(value) for value in _values(part, column)]


def _values(part: Any, column: str) -> list[Any]:
    values: list[Any] = []
    table = part.select_columns([column]).with_format("arrow")
    for start in range(0, part.num_rows, _ROWS):
        values += table[start : start + _ROWS].column(column).to_pylist()
    return values


def _paths(part: Any, column: str) -> list[str]:
    import pyarrow.compute

    paths: list[str] = []
    table = part.with_format("arrow")
    for start in range(0, part.num_rows, _ROWS):
        images = table[start : start + _ROWS].column(column)
        paths += [path or "" for path in pyarrow.compute.struct_field(images, "path").to_pylist()]
    return paths


def _sample_ids(paths: Sequence[str]) -> list[str]:
    """The paths in the images, below the folder that all have in common; nothing unless each has one of its own."""
    # a member of an archive is written as zip://<member>::<archive>
    inner = [path.partition("::")[0].partition("://")[2] or path if "::" in path else path for path in paths]
    if all(inner) and all(path.startswith("/") for path in inner):
        common = os.path.commonpath([os.path.dirname(path) for path in inner])  # noqa: PTH120  # text, not places
        inner = [os.path.relpath(path, common) for path in inner]
    sample_ids = [clean(path) for path in inner]
    return sample_ids if all(sample_ids) and len(set(sample_ids)) == len(sample_ids) else []


def _content(image: Mapping[str, Any] | None, sample_id: str, data: Data, loaded: Loaded) -> bytes:
    if image is None or (image["bytes"] is None and not image["path"]):
        raise NotAnImageError(sample_id, "is missing: its row holds no image")
    if image["bytes"] is not None:
        check_size(len(image["bytes"]), sample_id, data.limits)
        return bytes(image["bytes"])
    path = Path(image["path"])
    if not path.is_absolute():
        raise NotAnImageError(sample_id, "is missing: its row names a file without its folder")
    if loaded.own is None or not path.resolve().is_relative_to(loaded.own.resolve()):
        try:
            loaded.access.check_path(path)
        except ConfigurationError as error:
            raise NotAnImageError(sample_id, "lies where may not be read") from error
    return read_file(path, sample_id, data.limits)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def capital(where: str) -> str:
    """The same at the beginning of a sentence."""
    return where[0].upper() + where[1:] if where.startswith("the ") else where
