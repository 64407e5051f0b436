"""The servers of a running house, found by the file that ``recognition up`` keeps in the state folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from recognition.errors import StorageError
from recognition.settings import home

SAME_MOMENT_SECONDS = 5.0


class Addresses(BaseModel):
    """Where a running house answers, and the process that holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefect: str
    """Prefect's pages, such as http://127.0.0.1:4200."""
    api: str
    """Prefect's API, as ``PREFECT_API_URL`` says it: http://127.0.0.1:4200/api."""
    mlflow: str
    """MLflow's pages and its tracking server."""
    pid: int
    """Of ``recognition up``."""
    created: float
    """When that process was created, in seconds since 1970: process ids are used again."""


def address_file() -> Path:
    """Where a running house says its addresses."""
    return home() / "house.json"


def write_addresses(addresses: Addresses) -> None:
    """Say where a house answers: for this user only, and whole or not at all."""
    # made readable for its owner alone
    handle, name = tempfile.mkstemp(dir=home(), prefix=".house.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(addresses.model_dump_json())
    Path(name).replace(address_file())


def running_house() -> Addresses | None:
    """The house of this state folder; none when it is not running, whatever its file says."""
    try:
        found = Addresses.model_validate_json(address_file().read_bytes())
        process = psutil.Process(found.pid)
        # the clock may have been set since
        same = abs(process.create_time() - found.created) < SAME_MOMENT_SECONDS
        alive = same and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValidationError, psutil.Error, StorageError):
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
        if os.environ["PREFECT_API_URL"] == found.api:
            os.environ.setdefault("PREFECT_UI_URL", f"{found.prefect}/v2")
        reach_this_machine_directly()
    return found


def reach_this_machine_directly() -> None:
    """Keep a proxy of the environment out of the way to servers on this machine."""
    for name in ("NO_PROXY", "no_proxy"):
        listed = os.environ.get(name, "")
        missing = [host for host in ("127.0.0.1", "localhost") if host not in listed]
        if missing:
            os.environ[name] = ",".join([*filter(None, [listed]), *missing])
