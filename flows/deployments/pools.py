"""Work pools: where runs of deployments wait for a worker, and how a worker starts them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound

from recognition.settings import project_root

LOGGER = logging.getLogger("recognition")
POOLS = {"local": "process", "docker": "docker", "kubernetes": "kubernetes"}
"""The pools that can be deployed to, by name, and the type of their workers: runs are processes beside the worker,
containers, or Kubernetes jobs."""


def template_file(pool: str) -> Path:
    """The base job template of a pool."""
    return project_root() / "deployment" / "pools" / f"{pool}.json"


def ensure_pool(client: SyncPrefectClient, name: str) -> None:
    """Create a pool that is missing. One that is there keeps what a person has set in it, and we say so."""
    # a worker fills in the template of a process pool
    template = {} if POOLS[name] == "process" else _template(name)
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type=POOLS[name], base_job_template=template))
        return
    if template and found.base_job_template != template:
        LOGGER.warning(
            f"The work pool {name} keeps its own job template, which differs from deployment/pools/{name}.json; to take"
            f" that: prefect work-pool update {name} --base-job-template deployment/pools/{name}.json"
        )


def _template(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(template_file(name).read_text(encoding="utf-8"))
    return content
