"""An autoencoder: image in, code and restored image out."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .scorer import Pixels, Scorer


class Autoencoder(Scorer):
    """A network that compresses images to codes and restores them from these."""

    @property
    def noise(self) -> float:
        """Standard deviation of the noise that it has learned to remove, in units of full brightness."""
        return float(self.description.get("noise", 0.0))

    @property
    def variational(self) -> bool:
        """Whether codes are drawn from a standard normal distribution."""
        return bool(self.description["architecture"]["variational"])

    @torch.inference_mode()
    def codes(self, images: Pixels) -> NDArray[np.float32]:
        """Codes (N, code) of prepared images, uint8 (N, H, W, C); the means where they are distributions."""
        network: Any = self.network
        codes: NDArray[np.float32] = network.encode(self.normalised(images)).float().cpu().numpy()
        return codes

    @torch.inference_mode()
    def decoded(self, codes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images (N, H, W, C) in [0, 1] of codes (N, code)."""
        network: Any = self.network
        images = network.decode(torch.from_numpy(codes).to(self.device))
        pixels: NDArray[np.float32] = images.float().permute(0, 2, 3, 1).cpu().numpy()
        return pixels

    def answer(self, image: Pixels) -> dict[str, Any]:
        """Code, restored image (a PNG in base64) and mean squared error, of brightness from 0 to 1, of one image.

        Args:
            image: prepared, uint8 (H, W, C).
        """
        codes = self.codes(np.expand_dims(image, 0))
        restored = self.decoded(codes)[0]
        return {
            "code": [float(number) for number in codes[0]],
            "restored": _png(np.rint(restored * 255).astype(np.uint8)),
            "error": float(np.square(restored.astype(np.float64) - image / 255).mean()),
        }

    def answers(
        self, images: Sequence[bytes | Pixels], names: Sequence[str], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Code, restored image and error of each image."""
        prepared = [self.prepare(image, name) for image, name in zip(images, names, strict=True)]
        # one image at a time: the same bits whatever the company
        return [self.answer(image) for image in prepared]


def _png(image: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
