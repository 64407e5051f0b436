"""A trained model as it is used: images in, answers out. This package travels, as it stands, in every registered model.

It therefore imports nothing of this project outside itself; the network's code and the pixel preparation lie beside it
in the model's own folder, so that a model keeps working, unchanged, when the project moves on.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from .scorer import Scorer

SCORERS = {
    "classification": ("classifier", "Classifier"),
    "autoencoding": ("autoencoder", "Autoencoder"),
    "generation": ("generator", "Generator"),
    "detection": ("detector", "Detector"),
    "segmentation": ("segmenter", "Segmenter"),
    "instance_segmentation": ("detector", "Detector"),
}
"""For each task the file of this package and the class in it."""


def load(folder: Path | str, device: str = "cpu") -> Scorer:
    """Load a model folder: ``model.json``, ``weights.safetensors``, ``networks/`` and ``pixels.py``.

    Raises:
        FileNotFoundError: a part is missing.
        ValueError: the parts do not fit each other.
    """
    folder = Path(folder).resolve()
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return scorer_class(description["task"])(folder, device)


def scorer_class(task: str) -> type[Scorer]:
    """The class that answers for models of a task."""
    module, name = SCORERS[task]
    found: type[Scorer] = getattr(import_module(f".{module}", __name__), name)
    return found


__all__ = ["SCORERS", "Scorer", "load", "scorer_class"]
