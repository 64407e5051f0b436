"""Start weights: from the hub by name, from a local file, or from a model bundle, without pickle."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_modules.freezing import head_of
from lightning_modules.networks import Architecture
from recognition import bundle
from recognition.errors import ModelError
from recognition.experiment import Model
from recognition.families import ENCODERS

_COLOR = {1: "gray", 3: "rgb"}


def load_start_weights(network: nn.Module, model: Model, architecture: Architecture) -> None:
    """Put hub or local weights into a network; the head stays as initialised where its shape differs.

    Raises:
        ModelError: the hub cannot be reached, the file holds no weights, or they are another architecture's.
    """
    if model.weights:
        path = Path(model.weights)
        if path.is_dir() and architecture.network == "encoder":
            _check_encoder(path, architecture)
        _put(network, read_weights(path), f"model.weights: {model.weights} fits", _fix(path, architecture))
    elif model.pretrained:
        if "/" not in model.network:
            raise ModelError(
                f"model.pretrained: there are no pretrained weights for {model.network}; name a timm/ or torchvision/ "
                "network."
            )
        source_fits = f"model.pretrained: the weights of {model.network} fit"
        _put(network, _from_hub(architecture), source_fits, "Set data.image_size to what it was made for, often 224")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file, from a .pt or .pth file that holds tensors only, or from a bundle.

    Raises:
        ModelError: there is no such file, or it holds something else.
    """
    if path.is_dir():
        path = path / "weights.safetensors"
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


def _check_encoder(folder: Path, architecture: Architecture) -> None:
    """Refuse a bundle whose encoder is not that of ``architecture``, with the settings that make it so."""
    description = bundle.describe(folder)
    found = description["architecture"]
    name = f"model.weights: the model in {folder}"
    if found["network"] not in ENCODERS:
        raise ModelError(
            f"{name} is {found['network']} for {description['task']}; model.network=encoder starts with the encoder of "
            "a conv_autoencoder: name one of these."
        )
    settings = {
        "model.channels": (list(architecture.channels), list(found["channels"])),
        "model.code": (architecture.code, found["code"]),
        "data.image_size": (architecture.height, found["height"]),
        "data.channels": (_COLOR[architecture.image_channels], _COLOR[found["image_channels"]]),
    }
    unlike = {key: values for key, values in settings.items() if values[0] != values[1]}
    if unlike:
        here = ", ".join(f"{key}={own}" for key, (own, _) in unlike.items())
        fix = " ".join(f"{key}={theirs}".replace(", ", ",") for key, (_, theirs) in unlike.items())
        raise ModelError(f"{name} is of another architecture than {here}: set {fix}.")


def _fix(path: Path, architecture: Architecture) -> str:
    """What to set so that the weights of a file or a bundle fit."""
    if not path.is_dir():
        return "Set model.network and its sizes to those of the weights"
    found = bundle.describe(path)["architecture"]
    own = json.loads(json.dumps(dataclasses.asdict(architecture)))
    # what another network leaves empty it does not read
    said = {key: value for key, value in found.items() if value or found["network"] == own["network"]}
    unlike = {key: value for key, value in said.items() if key in own and own[key] != value}
    sizes = {key: unlike.pop(key, None) for key in ("height", "width", "image_channels", "outputs", "dropout")}
    settings = {"model.width" if key == "units" else f"model.{key}": value for key, value in unlike.items()}
    if not settings and sizes["height"]:
        settings = {"data.image_size": sizes["height"]}
    if not settings and sizes["image_channels"]:
        settings = {"data.channels": _COLOR[sizes["image_channels"]]}
    named = (f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items())
    return "Set " + " ".join(word.replace(", ", ",") for word in named)


def _put(network: nn.Module, weights: dict[str, Tensor], source_fits: str, fix: str) -> None:
    own = network.state_dict()
    weights = {name: _for_gray(value, own[name]) if name in own else value for name, value in weights.items()}
    head = head_of(network)
    head_name = next(name for name, module in network.named_modules() if module is head)
    body = [name for name in own if not name.startswith(f"{head_name}.")]
    # frozen batch normalisation, as torchvision's pretrained detectors have it, counts no batches
    body = [name for name in body if not name.endswith("num_batches_tracked")]
    missing = [name for name in body if name not in weights or weights[name].shape != own[name].shape]
    if missing:
        raise ModelError(
            f"{source_fits} another architecture: {len(missing)} of {len(body)} tensors are missing or of another "
            f"shape, such as {missing[0]}. {fix}."
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
