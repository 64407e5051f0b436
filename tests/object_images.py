"""Small generated sets of pictures with boxes or masks, laid out as users lay them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = {"disc": (220, 60, 40), "square": (40, 90, 220)}


def scene(seed: int, side: int = 64) -> tuple[NDArray[np.uint8], list[tuple[str, NDArray[np.bool_]]]]:
    """A noisy dark picture with two to three shapes that do not touch, and for each its class and mask."""
    random = np.random.default_rng(seed)
    picture = random.integers(0, 40, (side, side, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:side, :side]
    objects = []
    half = side // 2
    corners = [(0, 0), (0, half), (half, 0), (half, half)]
    for number in random.permutation(4)[: int(random.integers(2, 4))]:
        name = list(COLOURS)[int(random.integers(2))]
        radius = int(random.integers(side // 10, side // 6))
        top, left = (corner + half // 2 for corner in corners[number])
        mask = (
            (rows - top) ** 2 + (columns - left) ** 2 <= radius**2
            if name == "disc"
            else np.maximum(abs(rows - top), abs(columns - left)) <= radius
        )
        picture[mask] = np.clip(random.normal(COLOURS[name], 12, (int(mask.sum()), 3)), 0, 255).astype(np.uint8)
        objects.append((name, mask))
    return picture, objects


def voc_folder(root: Path, count: int, side: int = 64) -> Path:
    """Pictures with Pascal VOC boxes: JPEGImages and Annotations."""
    for name in ("JPEGImages", "Annotations"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        picture, objects = scene(number, side)
        Image.fromarray(picture).save(root / "JPEGImages" / f"{number:04}.png")
        found = "".join(_voc_object(name, mask) for name, mask in objects)
        size = f"<size><width>{side}</width><height>{side}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{number:04}.png</filename>{size}{found}</annotation>"
        (root / "Annotations" / f"{number:04}.xml").write_text(text)
    return root


def _voc_object(name: str, mask: NDArray[np.bool_]) -> str:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # VOC counts pixels from 1, and names the last one that belongs to the box
    places = {"xmin": columns[0] + 1, "ymin": rows[0] + 1, "xmax": columns[-1] + 1, "ymax": rows[-1] + 1}
    box = "".join(f"<{key}>{value}</{key}>" for key, value in places.items())
    return f"<object><name>{name}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>"


def instance_folder(root: Path, count: int, side: int = 64) -> Path:
    """A folder a picture, with ``images`` and ``masks``, a mask an object."""
    for number in range(count):
        picture, objects = scene(number, side)
        own = root / f"scene{number:04}"
        for name in ("images", "masks"):
            (own / name).mkdir(parents=True)
        Image.fromarray(picture).save(own / "images" / f"scene{number:04}.png")
        for index, (_, mask) in enumerate(objects):
            Image.fromarray(mask.astype(np.uint8) * 255).save(own / "masks" / f"{index}.png")
    return root
