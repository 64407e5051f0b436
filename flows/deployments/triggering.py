"""Runs of deployments, started from a shell or a script and watched to their end."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterLevel,
    LogFilterTimestamp,
    WorkerFilter,
    WorkerFilterStatus,
)
from prefect.client.schemas.objects import Log
from prefect.client.schemas.responses import DeploymentResponse
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.urls import url_for
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from flows.forms import to_form
from flows.servers.connecting import connected
from recognition import tracking
from recognition.configuration import build_experiment, explain, put_setting
from recognition.errors import ConfigurationError
from recognition.experiment import Experiment

SECONDS_BETWEEN_LOOKS = 1.0
LATE_LINES_SECONDS = 4.0
"""How long after a run's end its last lines may come: runs send them every 2 seconds."""
PAGE = 200


@dataclass(frozen=True)
class Target:
    """A deployment, and the flow that it runs."""

    flow_name: str
    deployment: DeploymentResponse

    @property
    def name(self) -> str:
        """As Prefect writes it: flow/deployment."""
        return f"{self.flow_name}/{self.deployment.name}"


@dataclass(frozen=True)
class Triggered:
    """A run that has been created."""

    flow_run_id: str
    name: str
    url: str
    warning: str
    """Why it may not begin soon; empty when a worker is there."""


def trigger(name: str, words: list[str]) -> Triggered:
    """Create a run of a deployment, with settings on top of the deployment's own.

    Args:
        name: of the deployment, alone or as flow/deployment.
        words: like ``training.epochs=3``.

    Raises:
        ConfigurationError: there is no such deployment, or a setting is unknown or impossible; no run exists then.
        TrackingError: the server does not answer.
    """
    with connected() as client:
        target = find_deployment(client, name)
        parameters = merged_parameters(target, words)
        run = client.create_flow_run_from_deployment(
            target.deployment.id, parameters=parameters, name=_run_name(target, parameters)
        )
        return Triggered(str(run.id), run.name, str(url_for(run) or ""), _no_worker(client, target))


def find_deployment(client: SyncPrefectClient, name: str) -> Target:
    """A deployment by its name.

    Raises:
        ConfigurationError: there is none of this name, or there are several.
    """
    flow_name, _, own_name = name.rpartition("/")
    of_name = DeploymentFilter(name=DeploymentFilterName(any_=[own_name]))
    found = [
        target
        for target in _targets(client, client.read_deployments(deployment_filter=of_name))
        if flow_name in ("", target.flow_name)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigurationError(f"{name!r} is one of {', '.join(target.name for target in found)}: say which.")
    names = [target.deployment.name for target in all_deployments(client)]
    if not names:
        raise ConfigurationError(f"There is no deployment {name!r}, nor any other: `recognition deploy` makes ours.")
    close = get_close_matches(own_name, names, n=1, cutoff=0.6)
    hint = f" did you mean {close[0]}?" if close else ""
    raise ConfigurationError(f"There is no deployment {name!r};{hint} There are: {', '.join(sorted(names))}.")


def all_deployments(client: SyncPrefectClient) -> list[Target]:
    """All deployments on the server, by name."""
    found: list[DeploymentResponse] = []
    while True:
        page = client.read_deployments(limit=PAGE, offset=len(found))
        found += page
        if len(page) < PAGE:
            return _targets(client, found)


def _targets(client: SyncPrefectClient, deployments: Iterable[DeploymentResponse]) -> list[Target]:
    names: dict[UUID, str] = {}
    targets = []
    for deployment in deployments:
        if deployment.flow_id not in names:
            names[deployment.flow_id] = client.read_flow(deployment.flow_id).name
        targets.append(Target(names[deployment.flow_id], deployment))
    return targets


def merged_parameters(target: Target, words: list[str]) -> dict[str, Any]:
    """The parameters that settings touch, each section with the deployment's own values below them.

    Prefect replaces a section as a whole: a partial one would take the rest from the defaults of the code.

    Args:
        target: the deployment.
        words: like ``training.epochs=3``.

    Raises:
        ConfigurationError: a setting is unknown or impossible, by its name and with the nearest right one.
    """
    flow = _flow_of(target)
    content = deepcopy(target.deployment.parameters)
    touched = {put_setting(content, word) for word in words}
    model = _parameters_model(flow)
    try:
        checked = model.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(explain(error, model)) from None
    # as text of YAML may be: 1e-3 is a number for us, but not for the server
    plain = checked.model_dump(mode="json", exclude_unset=True)
    if set(Experiment.model_fields) <= set(model.model_fields):
        # settings of several sections may not fit each other
        build_experiment({name: value for name, value in plain.items() if name in Experiment.model_fields})
    return to_form({name: plain[name] for name in touched}, target.deployment.parameter_openapi_schema or {})


def watch(flow_run_id: str, say: Callable[[str], None]) -> str:
    """Follow a run until it has ended, and tell each line of its log; the name of its last state.

    Args:
        flow_run_id: of the run.
        say: is told a line.
    """
    run_id = UUID(flow_run_id)
    with connected() as client:
        lines = _NewLines(client, run_id)
        state = ""
        while True:
            run = client.read_flow_run(run_id)
            if run.state_name != state and run.state_name is not None:
                state = run.state_name
                say(f"{datetime.now():%H:%M:%S}  {state}")
            for line in lines.read():
                say(line)
            if run.state is not None and run.state.is_final():
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
        deadline = time.monotonic() + LATE_LINES_SECONDS
        while time.monotonic() < deadline and not lines.complete:
            time.sleep(SECONDS_BETWEEN_LOOKS / 4)
            for line in lines.read():
                say(line)
    return state


def result_of(flow_run_id: str) -> dict[str, Any]:
    """The MLflow run that a Prefect run has made: its id, its page and its metrics; nothing where there is none."""
    run_id = tracking.run_of_flow_run(flow_run_id)
    if not run_id:
        return {}
    metrics = tracking.find_run(run_id).data.metrics
    return {
        "run_id": run_id,
        "run_url": tracking.run_url(run_id),
        "metrics": {name: value for name, value in sorted(metrics.items()) if not name.startswith("system/")},
    }


class _NewLines:
    """Log lines of a run that have not been read yet."""

    def __init__(self, client: SyncPrefectClient, run_id: UUID) -> None:
        self._client = client
        self._run_id = run_id
        self._read: set[UUID] = set()
        self._latest: datetime | None = None
        self.complete = False
        """Whether the line is read that Prefect logs at a run's end, which says its state as we do."""

    def read(self) -> Iterator[str]:
        # lines of two processes may come out of order
        after = self._latest and LogFilterTimestamp(after_=self._latest - timedelta(seconds=10))
        of_run = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[self._run_id]), level=LogFilterLevel(ge_=logging.INFO), timestamp=after
        )
        page: list[Log] = []
        offset = 0
        while offset == 0 or len(page) == PAGE:
            page = self._client.read_logs(of_run, limit=PAGE, offset=offset)
            offset += len(page)
            for log in page:
                if log.id not in self._read:
                    self._read.add(log.id)
                    self._latest = max(self._latest or log.timestamp, log.timestamp)
                    if not log.message.startswith("Finished in state"):
                        yield f"{log.timestamp.astimezone():%H:%M:%S}  {log.message}"
                    elif log.task_run_id is None:
                        self.complete = True
            if not page:
                break


def _flow_of(target: Target) -> Flow[..., Any]:
    entrypoint = target.deployment.entrypoint or ""
    if not entrypoint.startswith("flows."):
        raise ConfigurationError(
            f"{target.name} is no deployment of this project: start it with `prefect deployment run '{target.name}'`."
        )
    return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)


def _parameters_model(flow: Flow[..., Any]) -> type[BaseModel]:
    """A flow's parameters as a model that refuses what it does not know."""
    parameters = inspect.signature(flow.fn).parameters.values()
    fields: dict[str, Any] = {
        parameter.name: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
        for parameter in parameters
    }
    return create_model(f"{flow.name} parameters", __config__=ConfigDict(extra="forbid"), **fields)


def _run_name(target: Target, parameters: Mapping[str, Any]) -> str:
    """What a person reads until the run begins and names itself."""
    own = target.deployment.parameters | dict(parameters)
    return str(own.get("name") or target.deployment.name)


def _no_worker(client: SyncPrefectClient, target: Target) -> str:
    pool = target.deployment.work_pool_name
    if pool is None:
        return ""
    online = WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    if client.read_workers_for_work_pool(pool, worker_filter=online):
        return ""
    return (
        f"no worker looks at the work pool {pool}: the run waits for one (`recognition up`, or `prefect worker start"
        f" --pool {pool}`)"
    )
