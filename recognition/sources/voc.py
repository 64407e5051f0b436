"""Boxes as Pascal VOC keeps them: an XML file for each image, and lists of names for the splits.

Everingham et al.: The Pascal Visual Object Classes (VOC) Challenge. International Journal of Computer Vision 88 (2010).
Coordinates are taken as the edges of boxes, counted from 0, as programs that write such files mean them today.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple
from xml.parsers import expat

import numpy as np

from recognition.errors import DataError
from recognition.objects import FlawKind
from recognition.pixels import NotAnImageError
from recognition.sources.annotations import Annotation, Contents, Read, missing
from recognition.sources.described import Described, class_name, text_of, told_length, without_image
from recognition.sources.layout import Tree
from recognition.sources.other_tasks import BOX_FOLDERS, IMAGE_FOLDERS, MASK_FOLDERS

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_LISTS = {"train": "train", "val": "val", "test": "test", "trainval": "train"}
_DEEPEST = 100


def read_voc(tree: Tree, where: str, contents: Contents) -> Described:
    """Read all XML files of a set.

    Raises:
        DataError: a list of names cannot be read, or names an image for two splits.
    """
    images = [path for path in tree.images if not _is_mask(path)]
    files = [path for path in tree.others if path.lower().endswith(".xml")]
    lists = [path for path in tree.others if _is_list(path)]
    read = contents([*files, *lists])
    by_key = {_key(path): path for path in sorted(files)}
    parsed = {path: _parsed(path, by_key.get(_key(path), ""), read) for path in images}
    class_names = tuple(sorted({name for annotation in parsed.values() for name, _ in annotation.objects}))
    number = {name: label for label, name in enumerate(class_names)}
    annotations = {path: found.annotation(number) for path, found in parsed.items()}
    used = {by_key[_key(path)] for path in images if _key(path) in by_key}
    return Described(
        kind="boxes",
        class_names=class_names,
        images=tuple(images),
        read=annotations.__getitem__,
        files=frozenset([*used, *lists]),
        contents=read,
        splits=_splits(images, lists, read, where),
        findings=tuple(without_image(set(files) - used, "Files of boxes")),
    )


class _Parsed(NamedTuple):
    objects: list[tuple[str, tuple[float, ...]]]
    """Class and box."""
    size: tuple[int, int] | None
    flaws: tuple[tuple[FlawKind, str], ...]
    unusable: str = ""

    def annotation(self, number: dict[str, int]) -> Annotation:
        if self.unusable:
            return missing(self.unusable)
        return Annotation(
            boxes=np.array([box for _, box in self.objects], np.float64).reshape(-1, 4),
            labels=np.array([number[name] for name, _ in self.objects], np.int64),
            size=self.size,
            flaws=self.flaws,
        )


def _parsed(image: str, path: str, read: Read) -> _Parsed:
    if not path:
        return _Parsed([], None, (), "has no file of boxes")
    try:
        objects, size = _Reader().parse(read(path))
    except NotAnImageError as error:
        return _Parsed([], None, (), f"has a file of boxes that {error.reason}")
    except (ValueError, LookupError, expat.ExpatError) as error:  # an unknown encoding is a LookupError
        return _Parsed([], None, (), f"has a file of boxes that cannot be read ({error})")
    boxes: list[tuple[str, tuple[float, ...]]] = []
    flaws: list[tuple[FlawKind, str]] = []
    for count, (text, sides) in enumerate(objects, start=1):
        name = class_name(text)
        if not name:
            flaws.append(("invalid_boxes", f"box {count} has no class{told_length(text)}"))
            continue
        try:
            boxes.append((name, tuple(float(sides[side]) for side in _SIDES)))
        except (KeyError, ValueError):
            flaws.append(("invalid_boxes", f"box {count} ({name}) lacks a number for its sides"))
    return _Parsed(boxes, size, tuple(flaws))


class _Reader:
    """Collects names and sides of the objects of a file; those of their parts are passed over."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.text = ""
        self.objects: list[tuple[str, dict[str, str]]] = []
        self.size: dict[str, str] = {}

    def parse(self, content: bytes) -> tuple[list[tuple[str, dict[str, str]]], tuple[int, int] | None]:
        """Objects as class and sides, and the size of the image.

        Raises:
            ValueError, ExpatError: it is no XML of boxes, or declares entities (which may expand without bounds).
        """
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        parser.EntityDeclHandler = self._refuse
        parser.Parse(content, True)
        size = (_whole(self.size.get("height", "")), _whole(self.size.get("width", "")))
        return self.objects, size if all(size) else None

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.path.append(name)
        self.text = ""
        if len(self.path) > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
        if len(self.path) == 1 and name != "annotation":
            raise ValueError(f"it begins with <{name[:40]}>, and not with <annotation>")
        if self.path == ["annotation", "object"]:
            self.objects.append(("", {}))

    def _end(self, name: str) -> None:
        text, self.text = self.text.strip(), ""
        if self.path == ["annotation", "object", "name"]:
            self.objects[-1] = (text, self.objects[-1][1])
        elif self.path[:-1] == ["annotation", "object", "bndbox"]:
            self.objects[-1][1][name] = text
        elif self.path[:-1] == ["annotation", "size"]:
            self.size[name] = text
        self.path.pop()

    def _data(self, text: str) -> None:
        self.text += text

    def _refuse(self, *declared: object) -> None:
        raise ValueError("it declares entities, which are not read")


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _splits(images: Iterable[str], lists: Iterable[str], read: Read, where: str) -> dict[str, str]:
    by_stem: dict[str, list[str]] = {}
    for path in images:
        by_stem.setdefault(PurePosixPath(path).stem, []).append(path)
    # train and val say more than trainval
    ordered = sorted(lists, key=lambda path: (PurePosixPath(path).stem == "trainval", path))
    found: dict[str, str] = {}
    for path in ordered:
        stem = PurePosixPath(path).stem
        for line in text_of(read, path).splitlines():
            for image in by_stem.get(line.split()[0], ()) if line.strip() else ():
                before = found.setdefault(image, _LISTS[stem])
                if before != _LISTS[stem] and stem != "trainval":
                    raise DataError(f"{where}: {image} is listed for {before} and, in {path}, for {stem}: keep one.")
    return found


def _is_list(path: str) -> bool:
    file = PurePosixPath(path)
    return file.suffix == ".txt" and file.stem in _LISTS and "imagesets" in path.lower().split("/")


def _is_mask(path: str) -> bool:
    return any(part in MASK_FOLDERS - BOX_FOLDERS for part in path.lower().split("/")[:-1])


def _key(path: str) -> tuple[str, ...]:
    """Equal for an image and its description: the folders that are named after neither, and the name."""
    file = PurePosixPath(path)
    passed = IMAGE_FOLDERS | BOX_FOLDERS | MASK_FOLDERS
    return (*(part for part in file.parts[:-1] if part.lower() not in passed), file.stem)
