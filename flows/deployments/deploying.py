"""Deployments: ``prefect.yaml`` and experiment files, applied to the Prefect server.

What a person has changed in Prefect's pages stays: schedules are given to a deployment once, when it is created, and
whether it or one of them is paused is never touched again.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import ParameterSchema
from prefect.utilities.templating import apply_values
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows import steps
from flows.deployments.pools import POOLS, ensure_pool
from flows.forms import form_for
from flows.servers.connecting import connected
from recognition.configuration import explain, load_experiment
from recognition.errors import ConfigurationError
from recognition.settings import project_root
from tasks.leases import limit_of
from tasks.slots import own_gpus

LOGGER = logging.getLogger("recognition")
EXPERIMENTS_BUILT_ON = "train"
EXPERIMENT_TAG = "experiment"


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Schedule(_Content):
    """An example of a schedule."""

    slug: str
    cron: str
    timezone: str = "UTC"
    active: bool = True
    parameters: dict[str, Any] = {}


class WorkPool(_Content):
    """Where runs wait for a worker."""

    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = {}


class Deployment(_Content):
    """A deployment of ``prefect.yaml``."""

    name: str
    description: str
    version: str
    tags: list[str] = []
    entrypoint: str
    enforce_parameter_schema: bool = True
    parameters: dict[str, Any] = {}
    work_pool: WorkPool
    schedules: list[Schedule] = []


class ProjectFile(_Content):
    """``prefect.yaml``, as far as we use it."""

    name: str
    prefect_version: str = Field(alias="prefect-version")
    build: list[dict[str, Any]]
    pull: list[dict[str, Any]]
    definitions: dict[str, Any] = {}
    deployments: list[Deployment]


def deploy(experiments: list[Path], pool: str = "local") -> list[str]:
    """Apply the deployments of ``prefect.yaml`` and one for each experiment file; their names.

    Args:
        experiments: a file's stem names its deployment, its values are the defaults of the form.
        pool: the work pool that all of them wait in, of ``POOLS``.

    Raises:
        ConfigurationError: a file does not load, or two deployments would have one name; nothing is applied then.
        TrackingError: there is no server, or it does not answer.
    """
    if pool not in POOLS:
        raise ConfigurationError(f"{pool!r} is none of our work pools: {', '.join(POOLS)}.")
    project = project_file()
    wanted = [*project.deployments, *_of_experiments(experiments, project.deployments)]
    flows: dict[str, Flow[..., Any]] = {
        entrypoint: load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
        for entrypoint in dict.fromkeys(deployment.entrypoint for deployment in wanted)
    }
    with connected() as client:
        ensure_pool(client, pool)
        limit_of(client, max(1, len(own_gpus())))
        for deployment in wanted:
            _apply(client, deployment, flows[deployment.entrypoint], project.pull, pool)
    return [deployment.name for deployment in wanted]


def project_file() -> ProjectFile:
    """``prefect.yaml`` with its placeholders filled in, as ``prefect deploy`` does it.

    Raises:
        ConfigurationError: it says what we do not apply.
    """
    path = project_root() / "prefect.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ProjectFile.model_validate(apply_values(content, {"code": steps.version()}))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {explain(error, ProjectFile)}") from None


def _of_experiments(paths: list[Path], built_in: list[Deployment]) -> list[Deployment]:
    """A deployment for each file."""
    train = next(deployment for deployment in built_in if deployment.name == EXPERIMENTS_BUILT_ON)
    taken: dict[str, str] = {deployment.name: "a deployment of prefect.yaml" for deployment in built_in}
    made = []
    for path in paths:
        if path.stem in taken:
            raise ConfigurationError(
                f"{path}: its deployment would be named {path.stem}, as is {taken[path.stem]}: rename the file."
            )
        if not re.fullmatch(r"[\w.-]+", path.stem):
            raise ConfigurationError(
                f"{path}: a deployment is named as its file, with letters, digits, '.', '_' and '-' alone: rename it."
            )
        taken[path.stem] = str(path)
        values = _values(path)
        description, tags = _header(path)
        said = {
            "name": path.stem,
            "description": description or train.description,
            "tags": [*train.tags, EXPERIMENT_TAG, *tags],
            "parameters": values,
            "schedules": [],
        }
        made.append(train.model_copy(update=said))
    return made


def _values(path: Path) -> dict[str, Any]:
    """The sections that a file speaks of, each whole: the form then shows what the run will have."""
    try:
        experiment = load_experiment(path)
    except ConfigurationError as error:
        raise ConfigurationError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    return experiment.model_dump(mode="json", include=experiment.model_fields_set)


def _header(path: Path) -> tuple[str, list[str]]:
    """What a file's first comment says, as Markdown, and the tags in a line ``# tags: one, two`` of it."""
    lines: list[str] = []
    tags: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line[1:].strip()
        if text.lower().startswith("tags:"):
            tags = [tag.strip() for tag in text.partition(":")[2].split(",") if tag.strip()]
        elif not text.startswith("yaml-language-server"):
            lines.append(text)
    return "\n".join(lines).strip(), tags


def _apply(
    client: SyncPrefectClient, wanted: Deployment, flow: Flow[..., Any], pull: list[dict[str, Any]], pool: str
) -> None:
    schema: ParameterSchema = form_for(flow, wanted.parameters)
    content: dict[str, Any] = {
        "version": wanted.version,
        "description": wanted.description,
        "tags": wanted.tags,
        "parameters": wanted.parameters,
        "entrypoint": wanted.entrypoint,
        "enforce_parameter_schema": wanted.enforce_parameter_schema,
        "parameter_openapi_schema": schema.model_dump(exclude_unset=True),
        "pull_steps": pull,
        "work_pool_name": pool,
        "work_queue_name": wanted.work_pool.work_queue_name,
        "job_variables": wanted.work_pool.job_variables,
    }
    if wanted.work_pool.work_queue_name is None:
        del content["work_queue_name"]
    try:
        found = client.read_deployment_by_name(f"{flow.name}/{wanted.name}")
    except ObjectNotFound:
        schedules = [
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=example.cron, timezone=example.timezone),
                active=example.active,
                parameters=example.parameters,
                slug=example.slug,
            )
            for example in wanted.schedules
        ]
        client.create_deployment(client.create_flow_from_name(flow.name), wanted.name, schedules=schedules, **content)
        return
    # an update throws away the runs that are scheduled already, to be planned anew
    if any(getattr(found, name) != value for name, value in content.items()):
        client.update_deployment(found.id, DeploymentUpdate(**content))
