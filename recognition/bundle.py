"""The model bundle: one folder with all a trained model needs, and no pickle.

``model.json`` (task, architecture, preprocessing, class names), ``weights.safetensors``, and the code that reads them
(``scoring/``, ``pixels.py``, ``networks/``), copied in when the model is saved.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from recognition.errors import ModelError

if TYPE_CHECKING:
    import torch

    from recognition.scoring import Scorer
    from recognition.scoring.classifier import Classifier

FORMAT = 2
_HERE = Path(__file__).parent


def save(folder: Path, description: Mapping[str, Any], weights: Mapping[str, torch.Tensor], networks: Path) -> Path:
    """Write a bundle whole or not at all; an older one at the same place is replaced.

    Args:
        folder: where to.
        description: JSON content with ``task``, ``architecture``, ``preprocessing`` and ``class_names``, and what the
            task's scorer wants to know beside it.
        weights: the network's state, by name.
        networks: the package that builds the network, copied in.
    """
    import torch
    from safetensors.torch import save_file

    from recognition.scoring import scorer_class

    content = {"format": FORMAT, **description, "parameters": dict(scorer_class(description["task"]).parameters)}
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        (partial / "model.json").write_text(json.dumps(content, indent=2, ensure_ascii=False))
        save_file(
            # safetensors takes neither another memory order nor tensors that share memory
            {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in weights.items()
            },
            partial / "weights.safetensors",
        )
        shutil.copyfile(_HERE / "pixels.py", partial / "pixels.py")
        for name, package in (("scoring", _HERE / "scoring"), ("networks", networks)):
            shutil.copytree(package, partial / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def describe(folder: Path) -> dict[str, Any]:
    """What a bundle says of itself: task, architecture, preprocessing, class names; no code in it is executed.

    Raises:
        ModelError: it says nothing, or was written by another version.
    """
    try:
        description: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        found = description["format"]
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder} is no whole model: {error}.") from error
    if found != FORMAT:
        raise ModelError(f"The model in {folder} has format {found}; this version reads {FORMAT}: train it again.")
    return description


def load(folder: Path, device: str = "cpu") -> Scorer:
    """Load a bundle with the code that was saved in it.

    Raises:
        ModelError: a part is missing or the parts do not fit each other.
    """
    from recognition.scoring.scorer import load_beside

    describe(folder)
    try:
        with _no_bytecode():
            scorer: Scorer = load_beside(folder.resolve(), "scoring").load(folder, device)
    except (OSError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} is no whole model: {error}.") from error
    except ValueError as error:
        raise ModelError(str(error)) from error
    return scorer


def load_classifier(folder: Path, device: str = "cpu") -> Classifier:
    """Load a bundle that must be a classifier's.

    Raises:
        ModelError: as `load`, or it is of another task.
    """
    scorer = load(folder, device)
    if scorer.task != "classification":
        raise ModelError(f"{folder} holds a model for {scorer.task}, which knows no class scores: name a classifier.")
    return cast("Classifier", scorer)


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Keep Python from writing into the model's folder while it imports from there."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
