"""Which class and split each file of a folder or archive belongs to, judged by the names of its folders alone.

Common leading folders are stripped. Then come either split folders (train/training, val/valid/validation,
test/testing, in any case) that each hold the same class folders, or class folders. Below a class folder images may
lie at any depth. Hidden files are ignored.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from recognition.errors import DataError
from recognition.records import Finding
from recognition.sources.annotations import Annotations
from recognition.sources.other_tasks import Evidence, detection, segmentation

IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".gif",
        ".webp",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
        ".jp2",
        ".j2k",
        ".ico",
    ]
)
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_WITH_YEAR = re.compile(rf"({'|'.join(SPLIT_NAMES)})(\d{{4}})?", re.IGNORECASE)
EXPECTED = (
    "Expected is one sub-folder per class with images in it (cat/1.jpg, dog/2.jpg), or folders train and test (and"
    " val) that each hold the same class folders."
)
_SYSTEM_FILES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_NAMED = 100


@dataclass(frozen=True)
class Placed:
    """One image file: where it lies, its id (the path below the stripped folders), its class and its given split."""

    path: str
    sample_id: str
    class_name: str
    split: str


@dataclass(frozen=True)
class Layout:
    """All image files in the order of their ids, the sorted class names, and what else was seen."""

    class_names: tuple[str, ...]
    placed: tuple[Placed, ...]
    findings: tuple[Finding, ...]
    annotations: Annotations | None = None
    """Of a set of boxes or masks, whose images are of one class."""


class OtherTaskError(DataError):
    """A set of boxes or masks, and not of class folders."""

    def __init__(self, message: str, tree: Tree, evidence: Evidence) -> None:
        super().__init__(message)
        self.tree, self.evidence = tree, evidence


class Tree:
    """Folders, and how many files and images lie in and below them; ``""`` is the root."""

    def __init__(self, files: Iterable[str], folders: Iterable[str]) -> None:
        self.children: dict[str, set[str]] = defaultdict(set)
        self.files_below: Counter[str] = Counter()
        self.images_below: Counter[str] = Counter()
        self.direct: dict[str, list[str]] = defaultdict(list)
        self.images: list[str] = []
        self.others: list[str] = []
        for folder in folders:
            if not _hidden(folder):
                self._add_folder(folder)
        for path in files:
            if _hidden(path):
                continue
            is_image = PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES
            (self.images if is_image else self.others).append(path)
            parent = _parent(path)
            self._add_folder(parent)
            if is_image:
                self.direct[parent].append(path)
            while True:
                self.files_below[parent] += 1
                self.images_below[parent] += is_image
                if not parent:
                    break
                parent = _parent(parent)

    def _add_folder(self, folder: str) -> None:
        while folder:
            parent = _parent(folder)
            if folder in self.children[parent]:
                return
            self.children[parent].add(folder)
            folder = parent

    def inner(self, folder: str) -> list[str]:
        return sorted(self.children.get(folder, ()))

    def with_images(self, folder: str) -> list[str]:
        return [child for child in self.inner(folder) if self.images_below[child]]

    def below(self, folder: str) -> list[str]:
        """All images in and below a folder."""
        found, waiting = [], [folder]
        while waiting:
            here = waiting.pop()
            found += self.direct.get(here, [])
            waiting += self.children.get(here, ())
        return found


def arrange(files: Iterable[str], folders: Iterable[str], where: str) -> Layout:
    """Find classes and splits.

    Args:
        files: paths with forward slashes, relative to the folder or archive.
        folders: the same for folders; those that hold files need not be named.
        where: how messages call the folder or archive.

    Raises:
        OtherTaskError: it is a set of boxes or masks.
        DataError: there are no images, an empty class folder, fewer than two classes, or splits of other classes.
    """
    tree = Tree(files, folders)
    if not tree.images:
        seen = f"no images, but {len(tree.others)} files that are none" if tree.others else "no files"
        raise DataError(f"{where} holds {seen}. {EXPECTED}")
    try:
        layout = _arrange(tree, where)
    except DataError as error:
        if boxes := detection(tree.images, tree.others):
            raise OtherTaskError(_other_task(tree, where, "detection", boxes), tree, boxes) from error
        raise
    # COCO's train2017 and val2017 are no classes
    if all(split_of(f"{name}/") for name in layout.class_names) and (boxes := detection(tree.images, tree.others)):
        raise OtherTaskError(_other_task(tree, where, "detection", boxes), tree, boxes)
    return layout


def _arrange(tree: Tree, where: str) -> Layout:
    root = ""
    while not _is_split_level(tree, root) and (deeper := _wrapped(tree, root)):
        root = deeper
    findings = [not_images(tree.others)] if tree.others else []
    if _is_split_level(tree, root):
        classes = _split_folders(tree, root, where, findings)
    else:
        classes = {("", folder): clean(_leaf(folder)) for folder in tree.inner(root)}
        _check_no_masks(tree, [folder for _, folder in classes], where)
        _check_filled(tree, classes, where)
        _note_loose(tree.direct[root], findings, bool(classes), where)
    names = tuple(sorted(set(classes.values())))
    if len(names) < 2:
        raise DataError(
            f"{where} holds a single class, {names[0]!r}: at least two are needed to tell apart. {EXPECTED}"
        )
    start = len(root) + 1 if root else 0
    found = [
        (clean(path[start:]), path, name, split)
        for (split, folder), name in classes.items()
        for path in tree.below(folder)
    ]
    found.sort()
    sample_ids = unique(sample_id for sample_id, *_ in found)
    placed = [Placed(path, own, name, split) for own, (_, path, name, split) in zip(sample_ids, found, strict=True)]
    placed.sort(key=lambda item: item.sample_id)
    return Layout(names, tuple(placed), tuple(findings))


def unique(sample_ids: Iterable[str]) -> list[str]:
    """The same ids, but with #2, #3 and so on behind those that came before."""
    given = list(sample_ids)
    taken, next_number = set(given), Counter[str]()
    seen: set[str] = set()
    for index, sample_id in enumerate(given):
        if sample_id not in seen:
            seen.add(sample_id)
            continue
        number = max(2, next_number[sample_id])
        while (own := f"{sample_id}#{number}") in taken:
            number += 1
        next_number[sample_id] = number + 1
        taken.add(own)
        given[index] = own
    return given


def _is_split_level(tree: Tree, root: str) -> bool:
    filled = tree.with_images(root)
    named = [folder for folder in tree.inner(root) if _split_of(folder)]
    return len(named) >= 2 and bool(filled) and all(_split_of(folder) for folder in filled)


def _wrapped(tree: Tree, root: str) -> str:
    """The only folder that holds images, if it is a mere wrapping around class folders."""
    filled = tree.with_images(root)
    if len(filled) != 1 or tree.direct.get(root) or tree.direct.get(filled[0]):
        return ""
    # a folder without any file beside it is an empty class folder, one with papers only is not
    return filled[0] if all(tree.files_below[folder] for folder in tree.inner(root)) else ""


def _split_folders(tree: Tree, root: str, where: str, findings: list[Finding]) -> dict[tuple[str, str], str]:
    by_split: dict[str, str] = {}
    for folder in (folder for folder in tree.inner(root) if _split_of(folder)):
        split = _split_of(folder)
        if split in by_split:
            raise DataError(f"{where} has two folders for {split}, {by_split[split]!r} and {folder!r}: keep one.")
        if not tree.images_below[folder]:
            raise DataError(f"{where}: the folder {folder!r} holds no images. Add some, or remove it.")
        by_split[split] = folder
    if "train" not in by_split:
        raise DataError(f"{where} has no folder train beside {', '.join(map(repr, by_split.values()))}. {EXPECTED}")
    classes: dict[tuple[str, str], str] = {}
    for split, folder in by_split.items():
        inner = {(split, child): clean(_leaf(child)) for child in tree.inner(folder)}
        _note_loose(tree.direct[folder], findings, bool(inner) or split != "train", where)
        classes |= inner
    _check_no_masks(tree, [folder for _, folder in classes], where)
    _check_filled(tree, classes, where)
    names = set(classes.values())
    for split, folder in by_split.items():
        own = {name for (of, _), name in classes.items() if of == split}
        if own and own != names:
            missing = sorted(names - own)[0]
            raise DataError(
                f"{where}: {folder!r} has no class folder {missing!r}, which another split has. Add it with images,"
                " or remove the class from all splits."
            )
    return classes


def _check_no_masks(tree: Tree, folders: list[str], where: str) -> None:
    def stems(folder: str) -> set[str]:
        return {PurePosixPath(path).stem for path in tree.below(folder)}

    filled = [folder for folder in folders if tree.images_below[folder]]
    inner = {folder: tree.with_images(folder) for folder in filled}
    if masks := segmentation(inner, stems):
        raise OtherTaskError(_other_task(tree, where, "segmentation", masks), tree, masks)


def _other_task(tree: Tree, where: str, task: str, evidence: Evidence) -> str:
    names = [
        repr(name) for name in sorted({clean(_leaf(folder)) for folder, held in tree.direct.items() if folder and held})
    ]
    named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    made = {0: "have no class", 1: f"make {named} the only class"}.get(len(names), f"make {named} the only classes")
    return f"{where} is a {task} set: {evidence.words}. As a classification folder it would {made}. {EXPECTED}"


def _check_filled(tree: Tree, classes: dict[tuple[str, str], str], where: str) -> None:
    empty = [folder for _, folder in classes if not tree.images_below[folder]]
    if empty:
        others = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise DataError(f"{where}: the class folder {empty[0]!r} holds no images{others}. Add some, or remove it.")


def _note_loose(loose: list[str], findings: list[Finding], has_classes: bool, where: str) -> None:
    if not has_classes:
        raise DataError(f"{where}: images lie in no class folder, such as {min(loose)!r}. {EXPECTED}")
    if loose:
        message = f"Images outside the class folders ({len(loose)}): left out, since their class is not known."
        findings.append(Finding(kind="unlabelled", message=message, files=some(loose), count=len(loose)))


def not_images(others: list[str]) -> Finding:
    kinds = Counter(PurePosixPath(path).suffix.lower() or "no ending" for path in sorted(others))
    named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    message = f"Files that are no images ({named}): left out."
    return Finding(kind="not_images", message=message, files=some(others), count=len(others))


def some(paths: Iterable[str]) -> tuple[str, ...]:
    """The first hundred names, for a finding."""
    return tuple(clean(path) for path in sorted(paths)[:_NAMED])


def _hidden(path: str) -> bool:
    return any(part.startswith(".") or part.lower() in _SYSTEM_FILES for part in path.split("/"))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _leaf(path: str) -> str:
    return path.rpartition("/")[2]


def _split_of(folder: str) -> str:
    return SPLIT_NAMES.get(_leaf(folder).lower(), "")


def split_of(path: str) -> str:
    """The split that a folder of a path names (train, val2017), or empty text."""
    for part in path.split("/")[:-1]:
        if match := _WITH_YEAR.fullmatch(part):
            return SPLIT_NAMES[match[1].lower()]
    return ""


def clean(path: str) -> str:
    """One spelling for a name on Linux and macOS, which composes accents differently; bytes that are no text marked."""
    if path.isascii():
        return path
    return unicodedata.normalize("NFC", path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
