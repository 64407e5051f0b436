"""What can be chosen: names and one line about each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recognition.settings import project_root


def datasets() -> dict[str, str]:
    """Named data sets; a folder or an archive of one's own is named by its path."""
    from recognition.sources import SOURCES

    return {name: (source.__doc__ or "").strip().split("\n")[0] for name, source in SOURCES.items()}


def networks() -> dict[str, str]:
    """Networks of our own, torchvision's classifiers, detectors and segmenters, and timm's models."""
    import timm
    from torchvision import models

    from recognition.families import NETWORKS, task_of

    found = {"auto": "the first of the task: cnn for classes"}
    found.update({name: f"{network.task}: {network.about}" for name, network in NETWORKS.items()})
    modules = (models, models.detection, models.segmentation)
    names = [f"torchvision/{name}" for module in modules for name in models.list_models(module=module)]
    found.update({name: task_of(name) for name in names if "keypoint" not in name})
    found.update({f"timm/{name}": "" for name in timm.list_models()})
    return found


def policies() -> dict[str, str]:
    """Augmentation presets and their transforms."""
    import yaml

    import recognition

    text = (Path(recognition.__file__).parent / "policies.yaml").read_text()
    content: dict[str, list[dict[str, object]]] = yaml.safe_load(text)
    found = {name: ", ".join(key for item in items for key in item) or "no change" for name, items in content.items()}
    return {"auto": "chosen by what the images hold, their size and channels", **found}


def experiments() -> dict[str, str]:
    """Our experiment files and the first sentence of each."""
    folder = project_root() / "experiments"
    return {f"experiments/{path.name}": _first_sentence(path) for path in sorted(folder.glob("*.yaml"))}


def _first_sentence(path: Path) -> str:
    comments = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    return next((line[2:] for line in comments if not line.startswith("# yaml-language-server")), "")


LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "datasets": datasets,
    "networks": networks,
    "policies": policies,
    "experiments": experiments,
}
