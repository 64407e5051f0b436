"""What all models share: their files, the preparation of images, and how they are asked."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

Pixels = NDArray[np.uint8]


class Scorer:
    """A network with its weights, preprocessing and class names."""

    parameters: ClassVar[Mapping[str, float | int | str]] = {}
    """What a caller may set beside the images, and the default."""

    def __init__(self, folder: Path | str, device: str = "cpu") -> None:
        """Load a model folder: ``model.json``, ``weights.safetensors``, ``networks/`` and ``pixels.py``.

        Raises:
            FileNotFoundError: a part is missing.
            ValueError: the parts do not fit each other.
        """
        folder = Path(folder).resolve()
        self.description: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.task: str = self.description["task"]
        self.class_names: list[str] = self.description["class_names"]
        self.preprocessing: dict[str, Any] = self.description["preprocessing"]
        self.device = torch.device(device)
        self.pixels = load_beside(folder, "pixels")
        networks = load_beside(folder, "networks")
        sizes = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.description["architecture"].items()
        }
        self.network: torch.nn.Module = networks.build_network(networks.Architecture(**sizes))
        try:
            self.network.load_state_dict(load_file(folder / "weights.safetensors"))
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(f"The weights in {folder} are not those of its architecture: {error}") from None
        self.network.eval().to(self.device)
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor(self.preprocessing["mean"], device=self.device).view(shape) * 255
        self._std = torch.tensor(self.preprocessing["std"], device=self.device).view(shape) * 255

    def prepare(self, image: bytes | Pixels, name: str = "image") -> Pixels:
        """Bring an encoded image or a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) to the network's size.

        Returns:
            uint8 (height, width, channels).

        Raises:
            ValueError: it is no image; the message names it.
        """
        p = self.preprocessing
        target = p["height"], p["width"], p["channels"], p["resize"]
        prepared: Pixels
        if isinstance(image, bytes):
            prepared = self.pixels.prepare(image, name, *target)
        else:
            prepared = self.pixels.prepare_array(image, *target)
        return prepared

    def normalised(self, images: Pixels) -> Tensor:
        """Prepared images, uint8 (N, H, W, C), as the network reads them: float (N, C, H, W) on its device."""
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2)
        return (batch.float() - self._mean) / self._std

    def answers(
        self, images: Sequence[bytes | Pixels], names: Sequence[str], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One JSON-like answer an image, in order.

        Args:
            images: encoded images, or uint8 arrays as `prepare` takes them.
            names: of the images, for messages.
            parameters: a value for each of ``self.parameters``.

        Raises:
            ValueError: an image is none, or a parameter has an impossible value.
        """
        raise NotImplementedError


def load_beside(folder: Path, name: str) -> ModuleType:
    """Import ``name`` from the model's folder under a name of its own, apart from any installed package.

    Raises:
        FileNotFoundError: it is not there.
    """
    package = folder / name / "__init__.py"
    path = package if package.is_file() else folder / f"{name}.py"
    if not path.is_file():
        raise FileNotFoundError(f"The model in {folder} lacks {name}")
    alias = f"_model_{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}_{name}"
    locations = [str(package.parent)] if path is package else None
    spec = importlib.util.spec_from_file_location(alias, path, submodule_search_locations=locations)
    assert spec is not None
    assert spec.loader is not None
    forget(alias)  # another model may have lain in this folder before
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        forget(alias)
        raise
    return module


def forget(module: str) -> None:
    """Let Python import a module and all below it anew."""
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        del sys.modules[name]
