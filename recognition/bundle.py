"""The model bundle: one folder with all a trained classifier needs, and no pickle.

``model.json`` (architecture, preprocessing, class names), ``weights.safetensors``, and the code that reads them
(``scoring.py``, ``pixels.py``, ``networks/``), copied in when the model is saved.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recognition.errors import ModelError

if TYPE_CHECKING:
    import torch

    from recognition.scoring import Classifier

FORMAT = 1
_HERE = Path(__file__).parent


def save(folder: Path, description: Mapping[str, Any], weights: Mapping[str, torch.Tensor], networks: Path) -> Path:
    """Write a bundle whole or not at all; an older one at the same place is replaced.

    Args:
        folder: where to.
        description: JSON content with ``architecture``, ``preprocessing``, ``class_names`` and ``threshold``.
        weights: the network's state, by name.
        networks: the package that builds the network, copied in.
    """
    import torch
    from safetensors.torch import save_file

    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        (partial / "model.json").write_text(json.dumps({"format": FORMAT, **description}, indent=2, ensure_ascii=False))
        save_file(
            # safetensors takes neither another memory order nor tensors that share memory
            {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in weights.items()
            },
            partial / "weights.safetensors",
        )
        for name in ("scoring.py", "pixels.py"):
            shutil.copyfile(_HERE / name, partial / name)
        shutil.copytree(networks, partial / "networks", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def load(folder: Path, device: str = "cpu") -> Classifier:
    """Load a bundle with the code that was saved in it.

    Raises:
        ModelError: a part is missing or the parts do not fit each other.
    """
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise ModelError(f"The model in {folder} has format {description['format']}; this version reads {FORMAT}.")
        spec = importlib.util.spec_from_file_location("_model_scoring", folder / "scoring.py")
        assert spec is not None
        assert spec.loader is not None
        scoring = importlib.util.module_from_spec(spec)
        with _no_bytecode():
            spec.loader.exec_module(scoring)
            classifier: Classifier = scoring.Classifier(folder, device)
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder} is no whole model: {error}.") from error
    except ValueError as error:
        raise ModelError(str(error)) from error
    return classifier


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Keep Python from writing into the model's folder while it imports from there."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
