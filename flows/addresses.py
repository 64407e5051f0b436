"""The servers of a running house, found by the file that ``recognition up`` keeps in the state folder."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from recognition.settings import home


class Addresses(BaseModel):
    """Where a running house answers, and the process that holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefect: str
    """Prefect's pages, such as http://127.0.0.1:4200; its API lies under /api."""
    mlflow: str
    """MLflow's pages and its tracking server."""
    pid: int
    """Of ``recognition up``."""
    created: float
    """When that process was created, as psutil tells it: process ids are used again."""

    @property
    def api(self) -> str:
        """What ``PREFECT_API_URL`` is set to."""
        return f"{self.prefect}/api"


def address_file() -> Path:
    """Where a running house says its addresses."""
    return home() / "house.json"


def running_house() -> Addresses | None:
    """The house of this state folder; none when it is not running."""
    try:
        found = Addresses.model_validate_json(address_file().read_bytes())
        alive = psutil.Process(found.pid).create_time() == found.created
    except (OSError, ValidationError, psutil.Error):
        return None
    return found if alive else None


def join_house() -> Addresses | None:
    """Point this process at the running house, where its environment names no servers of its own.

    Call it before Prefect is imported.
    """
    found = running_house()
    if found is not None:
        os.environ.setdefault("PREFECT_API_URL", found.api)
        os.environ.setdefault("MLFLOW_TRACKING_URI", found.mlflow)
    return found
