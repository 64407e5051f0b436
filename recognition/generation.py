"""Make images with a registered generator, as files."""

from __future__ import annotations

import base64
import io
import os
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from recognition import bundle, registry
from recognition.errors import ConfigurationError, ModelError
from recognition.pixels import Pixels
from recognition.scoring.generator import Generator
from recognition.storage import writing_to
from recognition.tiles import tiled

OVERVIEW = "overview.png"
COLUMNS = 10
MOST_IN_OVERVIEW = 1000
LONGEST_NAME = 40


def generate_files(model: str, count: int, label: str, seed: int, output: Path) -> dict[str, Any]:
    """Write new images as PNG files, with all of them in ``overview.png``, into a folder: all of them, or none.

    Args:
        model: as for ``registry.fetch_bundle``.
        count: how many, at least 1.
        label: of this class; empty: of each class in turn.
        seed: of the noise; the same seed gives the same images, whatever their number.
        output: a folder that is not there yet, or is empty.

    Returns:
        ``model``, ``images`` (for each its ``label`` and its file, ``image``) and ``overview``, the path of that file.

    Raises:
        ConfigurationError: the folder holds something, or the model does not know the class.
        ModelError: there is no such model, or it makes no images.
        StorageError: the folder cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigurationError(f"--output: {output} is there already, and nothing in it is replaced: name another.")
    scorer = bundle.load(registry.fetch_bundle(model))
    if scorer.task != "generation":
        raise ModelError(
            f"{model} is for {scorer.task} and makes no images: recognition predict {model} IMAGE asks it about some. "
            "An experiment with model.network=dcgan trains a generator."
        )
    # its code is the bundle's copy
    generator = cast(Generator, scorer)
    try:
        made = generator.made([label] * count, {"seed": seed})
    except ValueError as error:
        raise ConfigurationError(f"{model}: {error}.") from None
    names = [_file_name(number, count, image["label"]) for number, image in enumerate(made)]
    _write(output, dict(zip(names, (base64.b64decode(image["image"]) for image in made), strict=True)))
    return {
        "model": model,
        "images": [
            {"label": image["label"], "image": str(output / name)} for image, name in zip(made, names, strict=True)
        ],
        "overview": str(output / OVERVIEW),
    }


def _file_name(number: int, count: int, label: str) -> str:
    cleaned = "".join(character if character.isalnum() else "-" for character in label)[:LONGEST_NAME]
    return f"{number:0{len(str(count - 1))}}{'-' if cleaned else ''}{cleaned}.png"


def _write(folder: Path, files: dict[str, bytes]) -> None:
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    with writing_to(folder):
        try:
            partial.mkdir(parents=True)
            for name, content in files.items():
                (partial / name).write_bytes(content)
            overview = tiled(
                np.stack([_pixels(content) for content in list(files.values())[:MOST_IN_OVERVIEW]]), COLUMNS
            )
            Image.fromarray(overview[:, :, 0] if overview.shape[2] == 1 else overview).save(partial / OVERVIEW)
            # takes the place of an empty folder, and of no other
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _pixels(content: bytes) -> Pixels:
    array: Pixels = np.asarray(Image.open(io.BytesIO(content)))
    return array[:, :, None] if array.ndim == 2 else array
