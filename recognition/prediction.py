"""Classify image files with a registered model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recognition import bundle, registry
from recognition.errors import ImageError


def classify_files(model: str, paths: Sequence[Path], top_k: int = 0) -> list[dict[str, Any]]:
    """Label, confidence and probabilities of each file, in order.

    Args:
        model: as for ``registry.fetch_bundle``.
        paths: image files.
        top_k: so many classes an image; 0: all.

    Raises:
        ImageError: a file does not exist or is no image.
        ModelError: there is no such model.
    """
    contents = [_read(path) for path in paths]
    classifier = bundle.load(registry.fetch_bundle(model))
    try:
        prepared = [classifier.prepare(content, str(path)) for path, content in zip(paths, contents, strict=True)]
    except ValueError as error:
        raise ImageError(str(error)) from None
    answers = []
    for path, image in zip(paths, prepared, strict=True):
        # one image at a time, as the scoring server does for one request: the same bits whatever the company
        answer = classifier.answer(classifier.probabilities(np.expand_dims(image, 0))[0], top_k)
        answers.append({"image": str(path), **answer})
    return answers


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"There is no image {path}.") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder: name the images in it, such as {path}/*.jpg.") from None
    except OSError as error:
        raise ImageError(f"The image {path} cannot be read: {error.strerror}.") from error
