"""Deployments: ``prefect.yaml`` and experiment files, applied to the Prefect server."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists
from prefect.flows import Flow, load_flow_from_entrypoint

from recognition.settings import project_root


def deploy(experiments: list[Path]) -> list[str]:
    """Apply the deployments of ``prefect.yaml`` and one for each experiment file; their names."""
    content: dict[str, Any] = yaml.safe_load((project_root() / "prefect.yaml").read_text(encoding="utf-8"))
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name="local", type="process"))
    names = []
    for said in content["deployments"]:
        flow: Flow[..., Any] = load_flow_from_entrypoint(said["entrypoint"])
        deployment = RunnerDeployment.from_flow(
            flow,
            name=said["name"],
            description=said.get("description"),
            tags=said.get("tags"),
            work_pool_name=said["work_pool"]["name"],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        deployment.apply()
        names.append(said["name"])
    return names
