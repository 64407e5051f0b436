"""Data sets with boxes or masks, known by the names of their files.

As folders of classes they would train a network on nonsense, such as telling photographs from their masks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "photos", "inputs"})
MASK_FOLDERS = frozenset(
    {
        "masks",
        "mask",
        "labels",
        "annotations",
        "annotation",
        "gt",
        "gtfine",
        "groundtruth",
        "ground_truth",
        "segmentation",
        "segmentations",
        "segmentationclass",
        "segmentationobject",
    }
)
MASK_ENDING = re.compile(r"[-_ ]?(masks?|labels?|annot|annotations?|gt|segmentations?)$")
BOX_FOLDERS = frozenset({"annotations", "annotation", "xmls"})
_COCO = re.compile(r"(_annotations\.coco|(instances|annotations|captions|coco|person_keypoints).*)\.json")


class Evidence(NamedTuple):
    """As what a data set is known, and by what, as words for a message."""

    form: Literal["COCO", "Pascal VOC", "YOLO", "masks"]
    words: str


def detection(images: Collection[str], others: Iterable[str]) -> Evidence | None:
    """Where boxes for these images lie, if there are any."""
    stems = {PurePosixPath(path).stem for path in images}
    matching: dict[str, list[str]] = defaultdict(list)
    for path in sorted(others):
        file = PurePosixPath(path)
        if is_coco(path):
            return Evidence("COCO", f"boxes in {path} (COCO)")
        in_box_folder = file.suffix.lower() == ".xml" and file.parent.name.lower() in BOX_FOLDERS
        if in_box_folder or (file.suffix.lower() in (".xml", ".txt") and file.stem in stems):
            matching[file.suffix.lower()].append(path)
    forms: tuple[tuple[str, Literal["Pascal VOC", "YOLO"]], ...] = ((".xml", "Pascal VOC"), (".txt", "YOLO"))
    for suffix, form in forms:
        found = matching[suffix]
        if 2 * len(found) >= len(stems) and found:
            parent = PurePosixPath(found[0]).parent
            return Evidence(form, f"boxes in {parent / f'*{suffix}'} ({form})")
    return None


def is_coco(path: str) -> bool:
    """Whether a file is named as COCO's descriptions of boxes are."""
    return bool(_COCO.fullmatch(PurePosixPath(path).name.lower()))


def segmentation(inner: Mapping[str, Sequence[str]], stems: Callable[[str], set[str]]) -> Evidence | None:
    """Where masks lie, if there are any.

    Args:
        inner: for each folder that would be a class the folders with images right below it.
        stems: gives the names of the images below a folder, without endings.
    """
    folders = sorted(inner)
    nested = [pair for folder in folders if (pair := _image_and_mask(inner[folder]))]
    if nested and 2 * len(nested) >= len(folders):
        first, second = (folder.rpartition("/")[2] for folder in nested[0])
        example = nested[0][0].rpartition("/")[0]
        return Evidence("masks", f"{len(nested)} of its folders hold {first!r} and {second!r}, such as {example}")
    pair = _image_and_mask(folders) or _same_names(folders, stems)
    return Evidence("masks", f"masks in {pair[1]} for the images in {pair[0]}") if pair else None


def _image_and_mask(folders: Iterable[str]) -> tuple[str, str] | None:
    by_parent: dict[str, dict[str, str]] = defaultdict(dict)
    for folder in folders:
        parent, _, name = folder.rpartition("/")
        kind = "image" if name.lower() in IMAGE_FOLDERS else "mask" if name.lower() in MASK_FOLDERS else ""
        if kind:
            by_parent[parent].setdefault(kind, folder)
    return next(((found["image"], found["mask"]) for found in by_parent.values() if len(found) == 2), None)


def _same_names(folders: Sequence[str], stems: Callable[[str], set[str]]) -> tuple[str, str] | None:
    """A folder and another named after it (train, train_masks) whose images have the same names."""
    for folder in folders:
        plain = MASK_ENDING.sub("", folder)
        if plain != folder and plain in folders:
            of_images, of_masks = stems(plain), stems(folder)
            shared = sum(stem in of_images or MASK_ENDING.sub("", stem) in of_images for stem in of_masks)
            if 2 * shared >= len(of_masks):
                return plain, folder
    return None
