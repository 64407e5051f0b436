"""Which code this is: the commit of the git checkout, and whether files differ from it."""

from __future__ import annotations

import importlib.metadata
import subprocess

from recognition.settings import project_root

PACKAGE = "image-recognition-pipeline"
SHOWN_DIGITS = 12


def commit() -> tuple[str, bool] | None:
    """The commit that is checked out, and whether the work tree differs from it; none outside a checkout."""
    found, changes = _ask("rev-parse", "HEAD"), _ask("status", "--porcelain")
    return None if found is None else (found, bool(changes))


def code_version() -> str:
    """The commit, with ``-dirty`` behind it where the work tree differs; without git the package's version."""
    found = commit()
    if found is None:
        return importlib.metadata.version(PACKAGE)
    return found[0][:SHOWN_DIGITS] + ("-dirty" if found[1] else "")


def _ask(*words: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(project_root()), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
