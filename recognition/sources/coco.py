"""Boxes as COCO keeps them: JSON files that list images, their boxes, and categories.

Lin et al.: Microsoft COCO: Common Objects in Context. ECCV 2014. A ``bbox`` is left, top, width and height in pixels.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from recognition.errors import DataError
from recognition.objects import FlawKind
from recognition.pixels import NotAnImageError
from recognition.records import Finding
from recognition.sources.annotations import Annotation, Contents, Read, missing
from recognition.sources.described import Described, class_name, without_image
from recognition.sources.layout import SPLIT_NAMES, Tree, split_of
from recognition.sources.other_tasks import is_coco

_SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(SPLIT_NAMES)})(?:\d{{4}})?(?:$|[^a-z0-9])")
_OTHERS = ("captions", "person_keypoints")
_NAMED = 10


def read_coco(tree: Tree, where: str, contents: Contents) -> Described:
    """Read all JSON files of a set.

    Raises:
        DataError: a file is no such JSON, or an image is described twice.
    """
    named = [path for path in tree.others if is_coco(path)]
    files = [path for path in named if not PurePosixPath(path).name.lower().startswith(_OTHERS)] or named
    read = contents(files)
    gathered = _Gathered(tree.images)
    for path in sorted(files):
        gathered.add(path, _content(path, read, where), where)
    class_names = tuple(sorted({name for boxes in gathered.boxes.values() for name, _ in boxes}))
    number = {name: label for label, name in enumerate(class_names)}

    def annotation(path: str) -> Annotation:
        if path not in gathered.sizes:
            return missing("is in no list of images with boxes")
        boxes = gathered.boxes[path]
        return Annotation(
            boxes=np.array([box for _, box in boxes], np.float64).reshape(-1, 4),
            labels=np.array([number[name] for name, _ in boxes], np.int64),
            size=gathered.sizes[path],
            flaws=tuple(gathered.flaws[path]),
        )

    annotations = {path: annotation(path) for path in tree.images}
    return Described(
        kind="boxes",
        class_names=class_names,
        images=tuple(tree.images),
        read=annotations.__getitem__,
        files=frozenset(files),
        contents=read,
        splits=gathered.splits,
        findings=tuple(gathered.findings(class_names)),
    )


class _Gathered:
    """What the files of a set say together, by the paths of images."""

    def __init__(self, images: Iterable[str]) -> None:
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for path in sorted(images):
            self.by_name[PurePosixPath(path).name].append(path)
        self.sizes: dict[str, tuple[int, int] | None] = {}
        self.splits: dict[str, str] = {}
        self.boxes: dict[str, list[tuple[str, tuple[float, ...]]]] = defaultdict(list)
        self.flaws: dict[str, list[tuple[FlawKind, str]]] = defaultdict(list)
        self.absent: list[str] = []
        self.astray: list[str] = []
        """Boxes of images that no file lists."""
        self.crowds = 0
        self.categories: set[str] = set()

    def add(self, path: str, content: dict[str, list[dict[str, Any]]], where: str) -> None:
        name = PurePosixPath(path).stem.lower()
        split = SPLIT_NAMES[match[1]] if (match := _SPLIT.search(name)) else split_of(path)
        images: dict[Any, str] = {}
        for listed in content["images"]:
            file_name = listed.get("file_name")
            if not isinstance(file_name, str) or not _is_key(listed.get("id")):
                raise DataError(f"{where}: {path} lists an image without file_name or id ({_short(listed)}).")
            image = self._find(path, file_name, split, where)
            if listed["id"] in images:
                raise DataError(f"{where}: {path} gives two images the id {listed['id']!r}.")
            images[listed["id"]] = image
            if not image:
                self.absent.append(file_name.encode("utf-8", "backslashreplace").decode())
                continue
            if image in self.sizes:
                raise DataError(f"{where}: {image} is listed twice, the second time in {path}. Keep one.")
            self.sizes[image] = _size(listed)
            if split:
                self.splits[image] = split
        defined = [entry for entry in content["categories"] if _is_key(entry.get("id"))]
        categories = {entry["id"]: class_name(entry.get("name")) for entry in defined}
        self.categories |= set(categories.values()) - {""}
        for count, entry in enumerate(content["annotations"], start=1):
            self._add_box(path, count, entry, images, categories)

    def _add_box(
        self, path: str, count: int, entry: dict[str, Any], images: dict[Any, str], categories: dict[Any, str]
    ) -> None:
        own = entry.get("id", count)
        image_id, category = entry.get("image_id"), entry.get("category_id")
        if not _is_key(image_id) or image_id not in images:
            self.astray.append(f"{path}: box {_short(own)} is of image {_short(image_id)}, which is not listed")
            return
        image = images[image_id]
        if not image:
            return
        if entry.get("iscrowd"):
            self.crowds += 1
            return
        name = categories.get(category, "") if _is_key(category) else ""
        if not name:
            what = f"box {_short(own)} is of category {_short(category)}, which {path} does not define"
            self.flaws[image].append(("invalid_boxes", what))
            return
        box = entry.get("bbox")
        numbers = isinstance(box, list) and len(box) == 4 and all(_is_number(side) for side in box)
        if not numbers:
            what = f"box {_short(own)} ({name}) has no bbox of four numbers"
            self.flaws[image].append(("invalid_boxes", what))
            return
        left, top, width, height = (float(side) for side in box)  # type: ignore[union-attr]  # just checked
        self.boxes[image].append((name, (left, top, left + width, top + height)))

    def _find(self, path: str, file_name: str, split: str, where: str) -> str:
        """The image of a name; of several that beside the file, else that of its split."""
        name = file_name.replace("\\", "/")
        found = self.by_name.get(PurePosixPath(name).name, [])
        exact = [image for image in found if image == name or image.endswith(f"/{name.removeprefix('./')}")]
        found = exact or found
        if len(found) > 1:
            beside = PurePosixPath(path).parent
            nearer = [image for image in found if PurePosixPath(image).is_relative_to(beside) and str(beside) != "."]
            found = nearer or [image for image in found if split and split_of(image) == split] or found
        if len(found) > 1:
            raise DataError(f"{where}: {path} names {file_name!r}, but there are {found[0]} and {found[1]}.")
        return found[0] if found else ""

    def findings(self, class_names: tuple[str, ...]) -> Iterable[Finding]:
        yield from without_image(self.absent, "Images that are listed")
        if self.astray:
            named = "; ".join(self.astray[:3])
            message = (
                f"Boxes of images that no file lists ({len(self.astray)}): {named}. Left out. Remove them, or list"
                " their images."
            )
            yield Finding(kind="boxes_without_image", message=message, count=len(self.astray))
        if self.crowds:
            message = f"Boxes around crowds (iscrowd, {self.crowds:,}): left out, since they are of no single object."
            yield Finding(kind="crowds", message=message, count=self.crowds)
        unused = sorted(self.categories - set(class_names))
        if unused:
            named = ", ".join(map(repr, unused[:_NAMED]))
            message = f"Categories without any box ({len(unused)}): {named}. They are no classes here."
            yield Finding(kind="unused_categories", message=message, count=len(unused))


def _content(path: str, read: Read, where: str) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(read(path))
    except NotAnImageError as error:
        raise DataError(f"{where}: {path} {error.reason}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: {path} is no JSON ({error}). Make or fetch it again.") from error
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{where}: {path} is no COCO file of boxes: it has no list of {key}.")
    result: dict[str, list[dict[str, Any]]] = content
    return result


def _size(listed: dict[str, Any]) -> tuple[int, int] | None:
    height, width = listed.get("height"), listed.get("width")
    whole = isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0
    return (height, width) if whole else None  # type: ignore[return-value]  # both are whole numbers


def _is_key(value: object) -> bool:
    return isinstance(value, int | float | str)


def _is_number(value: object) -> bool:
    # a whole number may be too large for a float
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 53 and not isinstance(value, bool))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
