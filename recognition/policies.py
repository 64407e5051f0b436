"""Augmentation policies: lists of Albumentations transforms, checked before they are used, drawn per sample by key."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from recognition import datasets
from recognition.errors import ConfigurationError
from recognition.events import Emit, ignore
from recognition.experiment import Augmentation
from recognition.randomness import SAMPLE, KeyedRandom
from recognition.records import Policy, PreparedData

Transforms = Sequence[Mapping[str, Mapping[str, Any]]]

TRIED_EPOCHS = 3
_COLOUR_ONLY = {"HueSaturationValue"}


def presets() -> dict[str, list[dict[str, dict[str, Any]]]]:
    """The named policies, as they stand in ``policies.yaml``."""
    content: dict[str, list[dict[str, dict[str, Any]]]] = yaml.safe_load(
        (Path(__file__).parent / "policies.yaml").read_text()
    )
    return content


def build(transforms: Transforms, height: int, width: int) -> A.Compose:
    """Build the pipeline for uint8 images of height x width pixels.

    Raises:
        ConfigurationError: a transform or an argument that Albumentations does not have, or a value it refuses.
    """
    sizes = {"@height": height, "@width": width, "@pad": max(1, min(height, width) // 8)}
    return A.Compose([_transform(item, sizes, f"augmentation.transforms[{i}]") for i, item in enumerate(transforms)])


def _transform(item: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int], where: str) -> A.BasicTransform:
    if not isinstance(item, Mapping) or len(item) != 1:
        raise ConfigurationError(f"{where}: write one transform an item, as {{Name: {{argument: value}}}}.")
    name, arguments = next(iter(item.items()))
    known = _known_transforms()
    if name not in known:
        close = get_close_matches(name, list(known), n=1)
        hint = f"did you mean {close[0]}?" if close else "see the list in Albumentations' documentation."
        raise ConfigurationError(f"{where}: Albumentations has no transform {name!r}; {hint}")
    if not isinstance(arguments, Mapping | None):
        raise ConfigurationError(f"{where}: {name} takes {{argument: value}}, not {arguments!r}.")
    filled = {key: _fill(value, sizes) for key, value in (arguments or {}).items()}
    accepted = [key for key in inspect.signature(known[name].__init__).parameters if key != "self"]
    for key in filled:
        if key not in accepted:
            close = get_close_matches(key, accepted, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(accepted)}."
            raise ConfigurationError(f"{where}: {name} has no argument {key!r}; {hint}")
    if issubclass(known[name], A.BaseCompose):
        inner = filled.get("transforms", ())
        if not isinstance(inner, Sequence) or isinstance(inner, str):
            raise ConfigurationError(f"{where}: {name}.transforms is a list of {{Name: {{argument: value}}}}.")
        filled["transforms"] = [_transform(part, sizes, f"{where}.{name}[{i}]") for i, part in enumerate(inner)]
    try:
        with warnings.catch_warnings():
            # Albumentations only warns about arguments it does not understand, and goes on without them.
            warnings.filterwarnings("error", category=UserWarning)
            transform: A.BasicTransform = known[name](**filled)
    except (ValueError, TypeError, UserWarning) as error:
        raise ConfigurationError(f"{where}: {name} does not take {dict(filled)}: {error}") from None
    return transform


def _known_transforms() -> dict[str, Any]:
    """Albumentations' own transforms and containers by name."""
    base = (A.BasicTransform, A.BaseCompose)
    return {
        name: value
        for name, value in vars(A).items()
        if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value) and name != "Compose"
    }


def _fill(value: Any, sizes: Mapping[str, int]) -> Any:
    if isinstance(value, str) and value.startswith("@"):
        if value not in sizes:
            raise ConfigurationError(f"augmentation.transforms: {value} is none of {', '.join(sizes)}.")
        return sizes[value]
    if isinstance(value, list):
        # Albumentations wants ranges as tuples; a list of transforms stays one.
        filled = [_fill(part, sizes) for part in value]
        return filled if any(isinstance(part, dict) for part in filled) else tuple(filled)
    if isinstance(value, dict):
        return {key: _fill(part, sizes) for key, part in value.items()}
    return value


def choose(augmentation: Augmentation, height: int, width: int, channels: int) -> tuple[str, Transforms]:
    """The policy's name and its transforms; ``auto`` is decided by the prepared images.

    Colour transforms of a preset are left out for gray images.
    """
    if augmentation.transforms:
        return "custom", augmentation.transforms
    name: str = augmentation.preset
    if name == "auto":
        small = min(height, width) <= 48
        name = ("shift_rotate" if channels == 1 else "flip_crop") if small else "photo"
    transforms = presets()[name]
    if channels == 1:
        transforms = [item for item in transforms if not set(item) & _COLOUR_ONLY]
    return name, transforms


class Augmenter:
    """A policy whose draw for a sample depends on (seed, epoch, sample index) alone."""

    def __init__(self, policy: A.Compose, seed: int) -> None:
        cv2.setNumThreads(0)
        self._policy = policy
        self._random = KeyedRandom(seed, SAMPLE)
        self._policy.set_random_state(self._random.generator, self._random.python)

    def __call__(self, image: NDArray[np.uint8], epoch: int, index: int) -> NDArray[np.uint8]:
        """Augment one image, uint8 (H, W, C); the result has the same shape."""
        self._random.reset(epoch, index)
        augmented: NDArray[np.uint8] = self._policy(image=image)["image"]
        return augmented


def to_json(policy: A.Compose) -> str:
    """The policy in a form that ``from_json`` rebuilds."""
    return json.dumps(A.to_dict(policy), indent=2)


def from_json(text: str) -> A.Compose:
    """Rebuild a policy that ``to_json`` wrote; only Albumentations' own classes are accepted.

    Raises:
        ConfigurationError: the text names another class.
    """
    content = json.loads(text)
    _refuse_foreign(content["transform"])
    policy = A.from_dict(content)
    assert isinstance(policy, A.Compose)
    return policy


def _refuse_foreign(content: Mapping[str, Any]) -> None:
    name = str(content.get("__class_fullname__", ""))
    known = {*_known_transforms(), "Compose"}
    if name.removeprefix("albumentations.").rpartition(".")[2] not in known or "." in name.removeprefix(
        "albumentations."
    ):
        raise ConfigurationError(f"The policy names {name!r}, which is no class of Albumentations.")
    for part in content.get("transforms", []):
        _refuse_foreign(part)


def augment(data: PreparedData, augmentation: Augmentation, seed: int, folder: Path, *, emit: Emit = ignore) -> Policy:
    """Build and check the policy for a data set, try it on real images, and draw the preview.

    Writes ``policy.json``, ``policy.yaml`` and ``preview.png`` into the folder.

    Raises:
        ConfigurationError: the policy cannot be built, fails on the images, or changes their shape or type.
    """
    from recognition import galleries

    name, transforms = choose(augmentation, data.height, data.width, data.channels)
    policy = build(transforms, data.height, data.width)
    augmenter = Augmenter(policy, seed)
    train = datasets.open_arrays(data.path).split("train")
    # evenly spread, so that a source sorted by class shows several classes
    chosen = np.unique(np.linspace(0, len(train) - 1, augmentation.preview).astype(np.int64))
    originals = train.batch(chosen)
    labels = train.labels[chosen]
    augmented = []
    for epoch in range(TRIED_EPOCHS):
        for original, index in zip(originals, chosen, strict=True):
            try:
                result = augmenter(original, epoch, int(index))
            except Exception as error:
                raise ConfigurationError(
                    f"augmentation: the policy {name} fails on images of {data.height}x{data.width}x{data.channels}: "
                    f"{error}"
                ) from error
            if result.shape != original.shape or result.dtype != np.uint8:
                raise ConfigurationError(
                    f"augmentation: the policy {name} turns uint8 images of shape {original.shape} into "
                    f"{result.dtype} of shape {result.shape}: end it with a crop or resize to @height x @width, "
                    "and leave normalisation to augmentation.normalization."
                )
            augmented.append(result)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.json").write_text(to_json(policy))
    (folder / "policy.yaml").write_text(yaml.safe_dump({name: [dict(item) for item in transforms]}, sort_keys=False))
    galleries.preview_grid(
        originals,
        np.stack(augmented[: len(originals)]),
        folder / "preview.png",
        [data.class_names[int(label)] for label in labels],
    )
    return Policy(
        path=folder / "policy.json",
        preview=folder / "preview.png",
        name=name,
        transforms=tuple(key for item in transforms for key in item),
    )
