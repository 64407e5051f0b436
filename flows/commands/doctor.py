"""Look at what a run depends on, and say what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recognition.errors import RecognitionError
from recognition.settings import home, project_root, tracking_settings, tracking_uri

ENOUGH_GIB = 5.0
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "prefect", "mlflow", "albumentations", "timm")


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    ok: bool
    text: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> list[Finding]:
    """Run all checks; a check that breaks is a finding, too."""
    checks: dict[str, Callable[[], tuple[bool, str]]] = {
        "python": _python,
        "packages": _packages,
        "settings": _settings,
        "devices": _devices,
        "state folder": _state_folder,
        "disk": _disk,
        "mlflow": _mlflow,
        "prefect": _prefect,
        "git": _git,
    }
    return findings_of(checks)


def findings_of(checks: dict[str, Callable[[], tuple[bool, str]]]) -> list[Finding]:
    """What each check found; a mistake that it raises is a finding."""
    findings = []
    for name, check in checks.items():
        try:
            ok, text = check()
        except RecognitionError as mistake:
            ok, text = False, str(mistake)
        findings.append(Finding(name, ok, text))
    return findings


def _python() -> tuple[bool, str]:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return fits, f"{platform.python_version()} on {platform.platform()}" + ("" if fits else ": 3.11 to 3.13 is needed")


def _packages() -> tuple[bool, str]:
    versions, missing = [], []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        return False, f"missing: {', '.join(missing)}; `make setup` installs what requirements.lock names"
    return True, ", ".join(versions)


def _settings() -> tuple[bool, str]:
    settings = tracking_settings()
    return True, f"{project_root() / 'mlflow.yaml'}, experiment {settings.experiment_name}"


def _devices() -> tuple[bool, str]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return True, f"GPU: {', '.join(names)} (CUDA {torch.version.cuda})"
    if torch.backends.mps.is_available():
        return True, "Apple GPU"
    return True, f"CPU, {os.cpu_count()} cores; no GPU is visible, and none is needed"


def _state_folder() -> tuple[bool, str]:
    folder = home()
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True, str(folder)
    except OSError as error:
        return False, f"{folder} cannot be written ({error.strerror}): set RECOGNITION_HOME to a folder of yours"


def _disk() -> tuple[bool, str]:
    free = shutil.disk_usage(home()).free / 2**30
    enough = free >= ENOUGH_GIB
    return enough, f"{free:.1f} GiB free" + (
        "" if enough else f": under {ENOUGH_GIB:g} GiB, make room or move the state"
    )


def _mlflow() -> tuple[bool, str]:
    uri = tracking_uri()
    if not uri.startswith("http"):
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
            return True, f"{uri} (made by the first run)"
        return True, uri
    return mlflow_server()


def mlflow_server() -> tuple[bool, str]:
    """Whether the tracking server answers, takes our credentials, and suits our client.

    Raises:
        TrackingError: one of these is not so.
    """
    from recognition.tracking import check_store

    return True, f"{tracking_uri()} answers, version {check_store()}"


def _prefect() -> tuple[bool, str]:
    from flows.servers.connecting import configured_server

    server = configured_server()
    if server is None:
        return True, "no server configured (PREFECT_API_URL): each command starts a temporary one"
    return True, f"{server.api} answers, version {server.check()}"


def _git() -> tuple[bool, str]:
    if shutil.which("git") is None:
        return False, "git is not installed: runs would not say which code made them"
    inside = (project_root() / ".git").exists()
    return True, "runs are tagged with the commit" if inside else "no checkout: runs are not tagged with a commit"
