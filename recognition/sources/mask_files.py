"""Masks as image files: one for each object of an image, or one for each image that holds the class of every pixel."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np

from recognition import pixels
from recognition.errors import DataError
from recognition.objects import IGNORED
from recognition.pixels import NotAnImageError, Pixels
from recognition.sources.annotations import Annotation, Contents, MaskFile, Read, missing
from recognition.sources.described import Described, text_of, without_image
from recognition.sources.layout import Tree, clean, split_of
from recognition.sources.other_tasks import IMAGE_FOLDERS, MASK_ENDING, MASK_FOLDERS

CLASSES = "classes.txt"
"""A list of class names, one a line, that may lie beside masks."""
OBJECT = "object"
_PASSED = IMAGE_FOLDERS | MASK_FOLDERS
_Key = tuple[str, ...]


def read_masks(tree: Tree, where: str, contents: Contents) -> Described:
    """Tell images from masks, and which belong together.

    Raises:
        DataError: too few masks have the name of an image, or two have the name of one; or ``classes.txt`` does not
            fit.
    """
    images, masks = _parted(tree.images)
    names = [path for path in tree.others if path.rpartition("/")[2].lower() == CLASSES]
    if len(names) > 1:
        raise DataError(f"{where} holds {names[0]} and {names[1]}: keep one list of classes.")
    image_of = {_image_key(path): path for path in images}
    matched = [path for path in masks if _mask_key(path) in image_of]
    per_folder = Counter(_folders(path) for path in images)
    one_each = max(per_folder.values(), default=0) == 1
    if one_each and len(matched) < len(masks):
        return _instances(images, masks, contents, names, where)
    if 2 * len(matched) < len(masks) or not masks:
        raise DataError(
            f"{where} holds {len(masks):,} masks, of which {len(matched):,} have the name of an image. Expected are"
            " images/1.png and masks/1.png, or a folder for each image with folders images and masks, one mask for"
            " each object."
        )
    return _class_maps(images, masks, contents, names, where)


def _parted(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Images, and masks; what lies in no folder of either is neither."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        by_folder[path.rpartition("/")[0]].append(path)
    with_masks = {_folder_key(folder) for folder in by_folder if _ends_as_masks(folder)}
    images: list[str] = []
    masks: list[str] = []
    for folder, held in by_folder.items():
        parts = folder.split("/")
        named = next((part.lower() for part in reversed(parts) if part.lower() in _PASSED), "")
        if named:
            (images if named in IMAGE_FOLDERS else masks).extend(held)
        elif _ends_as_masks(folder):
            masks += held
        elif _folder_key(folder) in with_masks:
            images += held
    return images, masks


def _ends_as_masks(folder: str) -> bool:
    """Whether a folder, or one above it, is named after another and masks (train_masks)."""
    return any(MASK_ENDING.sub("", part) not in (part, "") for part in folder.split("/"))


@lru_cache(maxsize=1 << 12)
def _folder_key(folder: str) -> _Key:
    """The parts of a folder that are named neither after images nor after masks."""
    parts = [part for part in folder.split("/") if part and part.lower() not in _PASSED]
    return tuple(MASK_ENDING.sub("", part) or part for part in parts)


def _folders(path: str) -> _Key:
    return _folder_key(path.rpartition("/")[0])


def _stem(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _image_key(path: str) -> _Key:
    return (*_folders(path), _stem(path))


def _mask_key(path: str) -> _Key:
    """That of the image of a mask."""
    stem = _stem(path)
    return (*_folders(path), MASK_ENDING.sub("", stem) or stem)


def _instances(
    images: Sequence[str], masks: Sequence[str], contents: Contents, names: Sequence[str], where: str
) -> Described:
    read = contents([*masks, *names])
    of_folder: dict[_Key, list[str]] = defaultdict(list)
    for path in masks:
        of_folder[_folders(path)].append(path)
    class_names = _names(names, read, where) or (_common_name(images),)
    if len(class_names) != 1:
        raise DataError(f"{where}: {names[0]} lists {len(class_names)} classes, but a mask for each object tells one.")
    described = {_folders(image) for image in images}
    missed = [path for path in masks if _folders(path) not in described]

    def annotation(path: str) -> Annotation:
        found = of_folder.get(_folders(path), [])
        if not found:
            return missing("has no mask")
        return Annotation(
            labels=np.zeros(len(found), np.int64),
            masks=tuple(MaskFile(clean(mask), _reader(read, mask, is_object=True)) for mask in found),
        )

    return Described(
        kind="instances",
        class_names=class_names,
        images=tuple(images),
        read=annotation,
        files=frozenset([*masks, *names]),
        contents=read,
        findings=tuple(without_image(missed, "Masks")),
    )


def _class_maps(
    images: Sequence[str], masks: Sequence[str], contents: Contents, names: Sequence[str], where: str
) -> Described:
    read = contents([*masks, *names])
    by_key: dict[_Key, str] = {}
    for path in masks:
        if (before := by_key.setdefault(_mask_key(path), path)) != path:
            raise DataError(f"{where}: {before} and {path} are masks of one image: keep one.")
    mask_of = {path: by_key.get(_image_key(path), "") for path in images}
    used = {path for path in mask_of.values() if path}
    values = _values(used, read)
    binary = values <= {0, 255} and 255 in values
    largest = 1 if binary else max(values - {IGNORED}, default=0)
    class_names = _names(names, read, where) or tuple(f"class {value}" for value in range(1, max(largest, 1) + 1))

    def annotation(path: str) -> Annotation:
        mask = mask_of[path]
        if not mask:
            return missing("has no mask")
        return Annotation(masks=(MaskFile(clean(mask), _reader(read, mask, is_object=binary)),))

    return Described(
        kind="masks",
        class_names=class_names,
        images=tuple(images),
        read=annotation,
        files=frozenset([*masks, *names]),
        contents=read,
        findings=tuple(without_image(set(masks) - used, "Masks")),
    )


def _values(masks: Iterable[str], read: Read) -> set[int]:
    """All values that occur; unreadable masks are told of later."""
    seen = np.zeros(256, bool)
    for path in masks:
        try:
            seen |= np.bincount(decode_mask(read(path), path).ravel(), minlength=256) > 0
        except NotAnImageError:
            continue
    return set(np.flatnonzero(seen).tolist())


def decode_mask(content: bytes, name: str) -> Pixels:
    """The values of a mask as they are stored, uint8 (H, W): of a palette its indices, and of equal channels the first.

    Raises:
        NotAnImageError: it is no whole image, its values are no bytes or changed by JPEG, or it is in colours.
    """
    image = pixels.open_image(content, name)
    if image.format in ("JPEG", "MPO"):
        raise NotAnImageError(name, "is a JPEG, which blurs the values of a mask: save it as PNG")
    try:
        image.load()
        values = np.asarray(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise NotAnImageError(name, f"is damaged ({error or type(error).__name__})") from error
    if image.mode in ("RGB", "RGBA", "LA"):
        values = values[:, :, :3] if image.mode.startswith("RGB") else values[:, :, :1]
        if (values != values[:, :, :1]).any():
            raise NotAnImageError(name, "is in colours: save the number of the class at each pixel instead")
        values = values[:, :, 0]
    if values.ndim != 2 or values.dtype.kind not in "biu" or values.size == 0 or values.min() < 0 or values.max() > 255:
        raise NotAnImageError(name, "has other values than 0 to 255")
    return np.ascontiguousarray(values).astype(np.uint8)


def _reader(read: Read, path: str, *, is_object: bool) -> Callable[[], Pixels]:
    """Reads a mask; one of a single object or class as 0 and 1, whatever stands for it."""

    def decoded() -> Pixels:
        values = decode_mask(read(path), clean(path))
        return (values > 0).astype(np.uint8) if is_object else values

    return decoded


def _names(paths: Sequence[str], read: Read, where: str) -> tuple[str, ...]:
    if not paths:
        return ()
    names = tuple(line.strip() for line in text_of(read, paths[0]).splitlines() if line.strip())
    if not names or len(set(names)) < len(names) or len(names) >= IGNORED:
        raise DataError(f"{where}: {paths[0]} must list 1 to {IGNORED - 1} class names, each once, one a line.")
    return names


def _common_name(images: Sequence[str]) -> str:
    """The folder that the folders of all images lie in, if it is named after what they show."""
    shared = []
    for part, other in zip(_folders(min(images)), _folders(max(images)), strict=False):
        if part != other:
            break
        shared.append(part)
    name = shared[-1] if shared and len(images) > 1 else ""
    return clean(name) if name and not split_of(f"{name}/") else OBJECT
