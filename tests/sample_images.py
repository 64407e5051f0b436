"""Small real image files for tests, and folders and archives of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pixels(seed: int, height: int = 12, width: int = 12, channels: int = 3) -> NDArray[np.uint8]:
    """Random pixels; the same seed gives the same ones."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image | NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """The content of an image file."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    target = io.BytesIO()
    image.save(target, kind)
    return target.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def folder_of(root: Path, *folders: str, count: int = 5, height: int = 12, width: int = 12, channels: int = 3) -> Path:
    """``count`` different PNG files in each of the named folders below ``root``."""
    for number, folder in enumerate(folders):
        for index in range(count):
            content = encoded(pixels(1000 * number + index, height, width, channels))
            write(root / folder / f"{index}.png", content)
    return root


def zipped(root: Path, target: Path, prefix: str = "") -> Path:
    """A zip of a folder, empty sub-folders included."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, f"{prefix}{path.relative_to(root).as_posix()}")
    return target


def tarred(root: Path, target: Path, prefix: str = "", mode: str = "w:gz") -> Path:
    """A tar of a folder."""
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        archive.add(root, prefix or ".")
    return target
