"""Small sets of images with boxes or masks, written as programs of annotators write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sample_images import encoded, pixels, write

Box = tuple[str, float, float, float, float]
"""Class, left, top, right, bottom."""


def voc_xml(boxes: Sequence[Box], height: int = 40, width: int = 60) -> bytes:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>"
        f"<ymax>{bottom}</ymax></bndbox></object>"
        for name, left, top, right, bottom in boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{objects}</annotation>".encode()


def voc_set(root: Path, boxes: Mapping[str, Sequence[Box]], height: int = 40, width: int = 60) -> Path:
    """A set in the folders of Pascal VOC: for each image's name its boxes."""
    for number, (name, own) in enumerate(boxes.items()):
        write(root / "JPEGImages" / f"{name}.png", encoded(pixels(number, height, width)))
        write(root / "Annotations" / f"{name}.xml", voc_xml(own, height, width))
    return root


def coco_json(boxes: Mapping[str, Sequence[Box]], height: int = 40, width: int = 60) -> dict[str, Any]:
    """The content of a COCO file for images by their file names."""
    names = sorted({name for own in boxes.values() for name, *_ in own})
    numbers = {name: 10 * label + 1 for label, name in enumerate(names)}
    images = [
        {"id": index, "file_name": name, "height": height, "width": width} for index, name in enumerate(boxes, start=1)
    ]
    annotations = [
        {
            "id": 1000 * image + count,
            "image_id": image,
            "category_id": numbers[name],
            "bbox": [left, top, right - left, bottom - top],
            "iscrowd": 0,
        }
        for image, own in enumerate(boxes.values(), start=1)
        for count, (name, left, top, right, bottom) in enumerate(own, start=1)
    ]
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_set(root: Path, boxes: Mapping[str, Sequence[Box]], height: int = 40, width: int = 60) -> Path:
    """Images, and one COCO file beside them."""
    for number, name in enumerate(boxes):
        write(root / "images" / name, encoded(pixels(number, height, width)))
    write(root / "annotations" / "instances_all.json", json.dumps(coco_json(boxes, height, width)).encode())
    return root


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A mask of 0 and 1: the pixels whose middle lies within a circle."""
    rows, columns = np.mgrid[:height, :width]
    return (((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2) < radius**2).astype(np.uint8)


def png(mask: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return encoded(Image.fromarray(mask))


def instance_set(root: Path, count: int = 12, height: int = 40, width: int = 60) -> Path:
    """A folder for each image, with a mask for each of its discs: 1 disc on the first image, 2 on the second ..."""
    for number in range(count):
        folder = root / f"id{number:02}"
        write(folder / "images" / f"{number}.png", encoded(pixels(number, height, width)))
        for disc_number in range(number % 3 + 1):
            mask = disc(height, width, 10 + 18 * disc_number, 8 + number, 5) * 255
            write(folder / "masks" / f"m{disc_number}.png", png(mask.astype(np.uint8)))
    return root


def map_set(root: Path, maps: Mapping[str, np.ndarray[Any, np.dtype[np.uint8]]]) -> Path:
    """Images, and masks of the same names."""
    for number, (name, class_map) in enumerate(maps.items()):
        write(root / "images" / f"{name}.png", encoded(pixels(number, *class_map.shape)))
        write(root / "masks" / f"{name}.png", png(class_map))
    return root
