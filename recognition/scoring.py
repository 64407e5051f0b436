"""A trained classifier as it is used: image in, probabilities out. Travels, as it stands, in every registered model.

It therefore imports nothing of this project; the network's code and the pixel preparation lie beside it in the model's
own folder, so that a model keeps working, unchanged, when the project moves on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file


class Classifier:
    """A network with its weights, preprocessing and class names."""

    def __init__(self, folder: Path | str, device: str = "cpu") -> None:
        """Load a model folder: ``model.json``, ``weights.safetensors``, ``networks/`` and ``pixels.py``.

        Raises:
            FileNotFoundError: a part is missing.
            ValueError: the parts do not fit each other.
        """
        folder = Path(folder).resolve()
        self.description: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.class_names: list[str] = self.description["class_names"]
        self._preprocessing: dict[str, Any] = self.description["preprocessing"]
        self._device = torch.device(device)
        self._pixels = _load_beside(folder, "pixels")
        networks = _load_beside(folder, "networks")
        sizes = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.description["architecture"].items()
        }
        self.network: torch.nn.Module = networks.build_network(networks.Architecture(**sizes))
        try:
            self.network.load_state_dict(load_file(folder / "weights.safetensors"))
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(f"The weights in {folder} are not those of its architecture: {error}") from None
        self.network.eval().to(self._device)
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor(self._preprocessing["mean"], device=self._device).view(shape) * 255
        self._std = torch.tensor(self._preprocessing["std"], device=self._device).view(shape) * 255

    @property
    def threshold(self) -> float:
        """The probability from which the second of two classes is said."""
        return float(self.description["threshold"])

    def prepare(self, image: bytes | NDArray[np.uint8], name: str = "image") -> NDArray[np.uint8]:
        """Bring an encoded image or a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) to the network's size.

        Returns:
            uint8 (height, width, channels).

        Raises:
            ValueError: it is no image; the message names it.
        """
        p = self._preprocessing
        target = p["height"], p["width"], p["channels"], p["resize"]
        prepared: NDArray[np.uint8]
        if isinstance(image, bytes):
            prepared = self._pixels.prepare(image, name, *target)
        else:
            prepared = self._pixels.prepare_array(image, *target)
        return prepared

    @torch.inference_mode()
    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Class probabilities (N, K) of prepared images, uint8 (N, H, W, C)."""
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self._device).permute(0, 3, 1, 2)
        logits = self.network((batch.float() - self._mean) / self._std).double()
        if logits.shape[1] == 1:
            second = torch.sigmoid(logits)
            result = torch.cat([1 - second, second], dim=1)
        else:
            result = torch.softmax(logits, dim=1)
        array: NDArray[np.float64] = result.cpu().numpy()
        return array

    def answer(self, probabilities: NDArray[np.float64], top_k: int = 0) -> dict[str, Any]:
        """One image's probabilities (K,) as label, confidence and probabilities by class, the likeliest first.

        Args:
            probabilities: (K,), summing to 1.
            top_k: so many classes in ``probabilities``; 0: all.
        """
        order = np.argsort(-probabilities, kind="stable")
        chosen = int(order[0])
        if len(self.class_names) == 2:
            chosen = int(probabilities[1] >= self.threshold)
        shown = order[:top_k] if top_k > 0 else order
        return {
            "label": self.class_names[chosen],
            "confidence": float(probabilities[chosen]),
            "probabilities": {self.class_names[int(i)]: float(probabilities[i]) for i in shown},
        }


def _load_beside(folder: Path, name: str) -> ModuleType:
    """Import ``name`` from the model's folder under a name of its own, apart from any installed package."""
    package = folder / name / "__init__.py"
    path = package if package.is_file() else folder / f"{name}.py"
    if not path.is_file():
        raise FileNotFoundError(f"The model in {folder} lacks {name}")
    alias = f"_model_{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}_{name}"
    locations = [str(package.parent)] if path is package else None
    spec = importlib.util.spec_from_file_location(alias, path, submodule_search_locations=locations)
    assert spec is not None
    assert spec.loader is not None
    _forget(alias)  # another model may have lain in this folder before
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        _forget(alias)
        raise
    return module


def _forget(module: str) -> None:
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        del sys.modules[name]
