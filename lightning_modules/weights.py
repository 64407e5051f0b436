"""Start weights: from the hub by name, or from a local file, without pickle."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_modules.freezing import head_of
from lightning_modules.networks import Architecture
from recognition.errors import ModelError
from recognition.experiment import Model


def load_start_weights(network: nn.Module, model: Model, architecture: Architecture) -> None:
    """Put hub or local weights into a network; the head stays as initialised where its shape differs.

    Raises:
        ModelError: the hub cannot be reached, the file holds no weights, or they are another architecture's.
    """
    if model.weights:
        _put(network, read_weights(Path(model.weights)), f"model.weights: {model.weights} fits")
    elif model.pretrained:
        if model.network == "cnn":
            raise ModelError(
                "model.pretrained: there are no pretrained weights for cnn; name a timm/ or torchvision/ network."
            )
        _put(network, _from_hub(architecture), f"model.pretrained: the weights of {model.network} fit")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file, or from a .pt or .pth file that holds tensors only.

    Raises:
        ModelError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise ModelError(f"model.weights: there is no file {path}.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ModelError(f"model.weights: {path} is no whole safetensors file: {error}.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch wonders about in other files is told below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each kind of damage has an exception of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"model.weights: {path} is no file of tensors alone ({reason}); "
            "nothing in it was executed. Save it as safetensors."
        ) from None
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"model.weights: {path} holds no tensors by name.")
    return content


def _put(network: nn.Module, weights: dict[str, Tensor], source_fits: str) -> None:
    own = network.state_dict()
    weights = {name: _for_gray(value, own[name]) if name in own else value for name, value in weights.items()}
    head = head_of(network)
    head_name = next(name for name, module in network.named_modules() if module is head)
    body = [name for name in own if not name.startswith(f"{head_name}.")]
    missing = [name for name in body if name not in weights or weights[name].shape != own[name].shape]
    if missing:
        raise ModelError(
            f"{source_fits} another architecture: {len(missing)} of {len(body)} tensors are missing or of another "
            f"shape, such as {missing[0]}."
        )
    fitting = {name: weights[name] for name in own if name in weights and weights[name].shape == own[name].shape}
    network.load_state_dict(fitting, strict=False)


def _for_gray(value: Tensor, own: Tensor) -> Tensor:
    """A first convolution's weights for colour images, added up for gray ones: the same answer as to R = G = B."""
    if value.ndim == 4 and value.shape[1] == 3 and own.shape == (value.shape[0], 1, *value.shape[2:]):
        return value.sum(dim=1, keepdim=True)
    return value


def _from_hub(architecture: Architecture) -> dict[str, Tensor]:
    library, _, name = architecture.network.partition("/")
    try:
        if library == "timm":
            import timm

            pretrained = timm.create_model(name, pretrained=True, in_chans=architecture.image_channels)
        else:
            from torchvision import models

            pretrained = models.get_model(name, weights="DEFAULT")
    except Exception as error:  # each hub client has exceptions of its own
        raise ModelError(
            f"model.pretrained: the weights of {architecture.network} could not be had from its hub "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}). "
            "Give a local file in model.weights, or set model.pretrained=false."
        ) from error
    weights: dict[str, Tensor] = pretrained.state_dict()
    return weights
