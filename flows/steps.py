"""The steps of ``prefect.yaml``: which code is deployed, and the folder that runs work in."""

from __future__ import annotations

from recognition.checkout import code_version
from recognition.settings import project_root


def version() -> dict[str, str]:
    """Of the code that is deployed: the commit (``-dirty`` with changes), or the package's version."""
    return {"version": code_version()}


def project_folder() -> dict[str, str]:
    """The project's folder on the machine of the worker, so that relative paths mean there what they mean here."""
    return {"directory": str(project_root())}
