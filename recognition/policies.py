"""Augmentation policies: lists of Albumentations transforms, checked before they are used.

Where images have objects, boxes and masks move with them (`recognition.augmenter`): a policy for such data is built
with box parameters, and refused by name when one of its transforms would leave them behind.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import yaml
from albumentations.core.type_definitions import Targets

from recognition.augmenter import Augmenter, box_parameters
from recognition.errors import ConfigurationError
from recognition.events import Emit, ignore
from recognition.experiment import Augmentation
from recognition.families import Kind
from recognition.records import Policy, PreparedData

__all__ = ["Augmenter", "augment", "build", "choose", "from_json", "presets", "to_json"]

Transforms = Sequence[Mapping[str, Mapping[str, Any]]]

_COLOUR_ONLY = {"HueSaturationValue"}
_NEEDS: dict[Kind, tuple[Targets, ...]] = {
    "classes": (),
    "boxes": (Targets.BBOXES,),
    "masks": (Targets.MASK,),
    "instances": (Targets.BBOXES, Targets.MASK),
}
"""For each kind what must move with an image."""
_NAMES = {Targets.BBOXES: "boxes", Targets.MASK: "masks"}
_MIRRORING = (cv2.BORDER_REFLECT, cv2.BORDER_REFLECT_101, cv2.BORDER_WRAP)


def presets() -> dict[str, list[dict[str, dict[str, Any]]]]:
    """The named policies, as they stand in ``policies.yaml``."""
    content: dict[str, list[dict[str, dict[str, Any]]]] = yaml.safe_load(
        (Path(__file__).parent / "policies.yaml").read_text()
    )
    return content


def build(transforms: Transforms, height: int, width: int, kind: Kind = "classes") -> A.Compose:
    """Build the pipeline for uint8 images of height x width pixels.

    Args:
        transforms: in order, each as {name: {argument: value}}.
        height: of the images.
        width: of the images.
        kind: what belongs to the images; with boxes or a mask an object, the pipeline gets box parameters.

    Raises:
        ConfigurationError: a transform or an argument that Albumentations does not have, a value it refuses, or a
            transform that would leave boxes or masks behind.
    """
    sizes = {"@height": height, "@width": width, "@pad": max(1, min(height, width) // 8)}
    built = []
    for number, item in enumerate(transforms):
        where = f"augmentation.transforms[{number}]"
        transform = _transform(item, sizes, where)
        _refuse_what_stays_behind(transform, kind, where)
        built.append(transform)
    with _colour_alone():
        return A.Compose(built, bbox_params=box_parameters() if Targets.BBOXES in _NEEDS[kind] else None)


@contextmanager
def _colour_alone() -> Iterator[None]:
    """Box parameters are no mistake where no transform moves a box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Got processor for bboxes", category=UserWarning)
        yield


def _refuse_what_stays_behind(transform: Any, kind: Kind, where: str) -> None:
    if isinstance(transform, A.BaseCompose):
        for part in transform.transforms:
            _refuse_what_stays_behind(part, kind, where)
        return
    name = type(transform).__name__
    if not isinstance(transform, A.ImageOnlyTransform):
        for need in _NEEDS[kind]:
            if need not in _moved_by(transform):
                raise ConfigurationError(
                    f"{where}: {name} cannot take {_NAMES[need]} along, and these images have them: leave it out, or "
                    "take one that can, such as HorizontalFlip, Affine, RandomCrop or Resize."
                )
    if kind == "instances" and getattr(transform, "border_mode", None) in _MIRRORING:
        raise ConfigurationError(
            f"{where}: {name} mirrors the image at its border, and would add mirrored parts to the masks of objects: "
            "set its border_mode to 0 (one colour)."
        )


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


def _moved_by(transform: A.BasicTransform) -> tuple[Targets, ...]:
    # the public `targets` names boxes for every transform that moves anything
    moved: Targets | tuple[Targets, ...] = transform._targets
    return moved if isinstance(moved, tuple) else (moved,)


def choose(
    augmentation: Augmentation, height: int, width: int, channels: int, kind: Kind = "classes"
) -> tuple[str, Transforms]:
    """The policy's name and its transforms; ``auto`` is decided by the prepared images.

    Colour transforms of a preset are left out for gray images; where each object has a mask, a preset fills with black
    instead of mirroring at the border.
    """
    if augmentation.transforms:
        return "custom", augmentation.transforms
    name: str = augmentation.preset
    if name == "auto" and kind != "classes":
        name = "objects"
    if name == "auto":
        small = min(height, width) <= 48
        name = ("shift_rotate" if channels == 1 else "flip_crop") if small else "photo"
    transforms = presets()[name]
    if channels == 1:
        transforms = [item for item in transforms if not set(item) & _COLOUR_ONLY]
    if kind == "instances":
        transforms = [
            {transform: _not_mirroring(arguments) for transform, arguments in item.items()} for item in transforms
        ]
    return name, transforms


def _not_mirroring(arguments: dict[str, Any]) -> dict[str, Any]:
    return {**arguments, "border_mode": cv2.BORDER_CONSTANT} if "border_mode" in arguments else arguments


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
    with _colour_alone():
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
        ConfigurationError: the policy cannot be built, fails on the images, changes their shape or type, would leave
            boxes or masks behind, or leaves no object in sight.
    """
    from recognition import policy_trials

    name, transforms = choose(augmentation, data.height, data.width, data.channels, data.kind)
    policy = build(transforms, data.height, data.width, data.kind)
    preview = policy_trials.tried(data, Augmenter(policy, seed), name, augmentation.preview)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.json").write_text(to_json(policy))
    (folder / "policy.yaml").write_text(yaml.safe_dump({name: [dict(item) for item in transforms]}, sort_keys=False))
    preview.draw(folder / "preview.png")
    return Policy(
        path=folder / "policy.json",
        preview=folder / "preview.png",
        name=name,
        transforms=tuple(key for item in transforms for key in item),
    )
