"""Ask a registered model about image files."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recognition import bundle, registry
from recognition.errors import ConfigurationError, ImageError, ModelError
from recognition.storage import writing_to

PICTURES = ("restored", "mask")
"""What an answer calls a PNG in base64."""


def predict_files(model: str, paths: Sequence[Path], parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One answer a file, in order, as MLflow's scoring server gives it for the same image.

    Args:
        model: as for ``registry.fetch_bundle``.
        paths: image files.
        parameters: what is asked for beside the images; each must be one that the model knows.

    Raises:
        ConfigurationError: the model does not know a parameter.
        ImageError: a file does not exist or is no image.
        ModelError: there is no such model, or it reads no images.
    """
    contents = [_read(path) for path in paths]
    scorer = bundle.load(registry.fetch_bundle(model))
    if scorer.task == "generation":
        raise ModelError(f"{model} makes images and reads none: recognition generate {model}")
    for name in parameters:
        if name not in scorer.parameters:
            known = ", ".join(scorer.parameters) or "none"
            raise ConfigurationError(f"{model} is for {scorer.task} and has no {name}; it has: {known}.")
    try:
        answers = scorer.answers(contents, [str(path) for path in paths], {**scorer.parameters, **parameters})
    except ValueError as error:
        raise ImageError(str(error)) from None
    return [{"image": str(path), **answer} for path, answer in zip(paths, answers, strict=True)]


def write_pictures(answers: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Write the picture in each answer, restored image or mask, as a PNG of the image's name.

    Where an answer holds objects, its image is written with them drawn on it.

    Returns:
        The answers, with the PNG's path in the place of its content (``picture`` for objects, whose masks go).

    Raises:
        ConfigurationError: the answers hold no pictures.
        StorageError: the folder cannot be written.
    """
    told = []
    for answer in answers:
        name = next((name for name in (*PICTURES, "objects") if name in answer), None)
        if name is None:
            raise ConfigurationError("--output is for models that answer with pictures, which this one does not.")
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            path = _free(folder, Path(answer["image"]).stem)
            path.write_bytes(_with_objects(answer) if name == "objects" else base64.b64decode(answer[name]))
        if name == "objects":
            bare = [{key: value for key, value in one.items() if key != "mask"} for one in answer["objects"]]
            told.append({**answer, "objects": bare, "picture": str(path)})
        else:
            told.append({**answer, name: str(path)})
    return told


def _free(folder: Path, stem: str) -> Path:
    """A PNG of that name, or with a number behind it where there is one already: nothing is written over."""
    path, number = folder / f"{stem}.png", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.png"
    return path


def _with_objects(answer: Mapping[str, Any]) -> bytes:
    from recognition import box_figures

    return box_figures.answered(_read(Path(answer["image"])), answer["objects"])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"There is no image {path}.") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder: name the images in it, such as {path}/*.jpg.") from None
    except OSError as error:
        raise ImageError(f"The image {path} cannot be read: {error.strerror}.") from error
