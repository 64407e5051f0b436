"""Folders and archives of any kind: class folders, or images with boxes or masks beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from recognition.errors import DataError
from recognition.records import Finding
from recognition.sources import layout, mask_files
from recognition.sources.annotations import Annotations, Contents
from recognition.sources.coco import read_coco
from recognition.sources.described import Described
from recognition.sources.labelled import IMAGE
from recognition.sources.layout import Layout, OtherTaskError, Placed, Tree, split_of
from recognition.sources.voc import read_voc

READ = (
    "Read are boxes as COCO (a .json with images, annotations and categories) or Pascal VOC (an .xml for each image),"
    " and masks as PNG (images and masks in folders of these names)."
)


def arrange(files: Iterable[str], folders: Iterable[str], where: str, contents: Contents) -> Layout:
    """Find classes and splits, or images and what is said of their objects.

    Args:
        files: paths with forward slashes, relative to the folder or archive.
        folders: the same for folders; those that hold files need not be named.
        where: how messages call the folder or archive.
        contents: gives a reader of the files that describe objects.

    Raises:
        DataError: the layout is not as expected, or boxes or masks are of a format that is not read.
    """
    try:
        return layout.arrange(files, folders, where)
    except OtherTaskError as found:
        if found.evidence.form == "YOLO":
            message = f"{where} is a detection set: {found.evidence.words}. {READ} Convert it to one of these."
            raise DataError(message) from found
        if found.evidence.form == "masks":
            described = mask_files.read_masks(found.tree, where, contents)
        elif found.evidence.form == "COCO":
            described = read_coco(found.tree, where, contents)
        else:
            described = read_voc(found.tree, where, contents)
        return _laid_out(described, found.tree, where)


def _laid_out(described: Described, tree: Tree, where: str) -> Layout:
    images = described.images
    if not images:
        raise DataError(f"{where} describes objects on images, but none of these images is there. {READ}")
    start = len(_common_folder(images))
    splits = {path: described.splits.get(path, "") or split_of(path) for path in images}
    if any(splits.values()) and "train" not in splits.values() and "" not in splits.values():
        raise DataError(f"{where} gives {', '.join(sorted(set(splits.values())))} images, but none to train with.")
    ordered = sorted((layout.clean(path[start:]), path) for path in images)
    sample_ids = layout.unique(sample_id for sample_id, _ in ordered)
    placed = sorted(
        (Placed(path, own, IMAGE, splits[path]) for own, (_, path) in zip(sample_ids, ordered, strict=True)),
        key=lambda item: item.sample_id,
    )
    paths = [item.path for item in placed]
    return Layout(
        (IMAGE,),
        tuple(placed),
        (*_remarks(described, tree), *described.findings),
        Annotations(
            kind=described.kind,
            class_names=described.class_names,
            read=lambda index: described.read(paths[index]),
            files=tuple(sorted(described.files)),
            contents=described.contents,
        ),
    )


def _remarks(described: Described, tree: Tree) -> Iterable[Finding]:
    used = described.files
    others = [path for path in tree.others if path not in used]
    if others:
        yield layout.not_images(others)
    known = {*described.images, *used}
    loose = [path for path in tree.images if path not in known]
    if loose:
        message = f"Images that are neither described nor masks ({len(loose)}): left out."
        yield Finding(kind="unlabelled", message=message, files=layout.some(loose), count=len(loose))


def _common_folder(paths: Sequence[str]) -> str:
    """The folder that all lie in, with a slash at its end; empty text for the root."""
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return "".join(f"{part}/" for part in first[:shared])
