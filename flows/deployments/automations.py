"""What happens by itself on the Prefect server: messages, trainings on new images, the end of runs that are gone."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture

from flows.deployments.notifying import Recipient, recipient
from flows.deployments.triggering import all_deployments
from flows.servers.connecting import connected
from recognition.data_settings import Data
from recognition.errors import TrackingError
from recognition.last_seen import name_of_source
from recognition.settings import project_root
from tasks.announcing import CHAMPION_CHANGED, DATASET, DATASET_CHANGED, MODEL, SEEN_BY, SOURCE

PREFIX = "recognition: "
NEW_IMAGES = f"{PREFIX}new images train "
SCHEDULED_FAILED = f"{PREFIX}a scheduled run failed"
CHAMPION = f"{PREFIX}the champion changed"
FLOWS = ("train", "evaluate", "audit", "compare")
"""Names of the flows that are watched: not `maintain`, which ends what they leave and would call itself."""
SILENCE = timedelta(seconds=90)
"""Three signs of life missed; ``recognition/settings.py`` says how often a run gives one."""
GATHERING = timedelta(seconds=10)
"""Runs that break off together are looked at by one maintenance run."""
MAINTENANCE = "maintain/maintain"


def apply(notify: str = "", webhook: str = "") -> list[str]:
    """Make the project's automations on the Prefect server, or bring those that are there up to date.

    One that somebody has switched off stays off. Messages of an earlier call stay as they are where nobody is named.

    Args:
        notify: a block that is told, as ``type/name``.
        webhook: an address that a block is made for; empty: that of the environment.

    Returns:
        The names of the automations, sorted.

    Raises:
        ConfigurationError: the recipient, as `recipient` says.
        TrackingError: the deployments are not on the server.
    """
    with connected() as client:
        told = recipient(client, notify, webhook)
        deployments = {target.name: target.deployment for target in all_deployments(client)}
        if MAINTENANCE not in deployments:
            raise TrackingError(f"There is no deployment {MAINTENANCE} on this Prefect server: `recognition deploy`.")
        trained = {name: found for name, found in deployments.items() if name.startswith("train/")}
        wanted = [
            end_of_silent_runs(),
            maintenance_after_a_crash(deployments[MAINTENANCE].id),
            *_trainings(trained),
            *(_messages(told) if told is not None else ()),
        ]
        there = _ours(client)
        for automation in wanted:
            _apply(client, automation, [found for found in there if found.name == automation.name])
        names = {automation.name for automation in wanted}
        for found in there:
            # its deployment is gone
            if found.name.startswith(NEW_IMAGES) and found.name not in names:
                client.delete_automation(found.id)
        return sorted({found.name for found in _ours(client)})


def remove() -> list[str]:
    """Take the project's automations off the Prefect server; the names of those that were there."""
    with connected() as client:
        there = _ours(client)
        for found in there:
            client.delete_automation(found.id)
        return sorted({found.name for found in there})


def notifies(names: list[str]) -> bool:
    """Whether somebody is told, by the names of the automations that are there."""
    return any(name in names for name in (SCHEDULED_FAILED, CHAMPION))


def _ours(client: SyncPrefectClient) -> list[Automation]:
    return [found for found in client.read_automations() if found.name.startswith(PREFIX)]


def _apply(client: SyncPrefectClient, automation: AutomationCore, there: list[Automation]) -> None:
    if not there:
        client.create_automation(automation)
        return
    first, *twins = there
    # an update sends only what was set, and without its type one action is taken for another
    whole = automation.model_dump(mode="json", exclude={"owner_resource"}) | {"enabled": first.enabled}
    client.update_automation(first.id, AutomationCore.model_validate(whole))
    for twin in twins:  # made by two calls at once
        client.delete_automation(twin.id)


def _messages(told: Recipient) -> Iterator[AutomationCore]:
    yield AutomationCore(
        name=SCHEDULED_FAILED,
        description="Tells when a run that a schedule or an automation started has failed or crashed.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*", "prefect.state-type": ["FAILED", "CRASHED"]},
            match_related=[
                {"prefect.resource.id": ["prefect.tag.auto-scheduled", "prefect.automation.*"]},
                _flows([*FLOWS, "maintain"]),
            ],
        ),
        actions=[
            told.told(
                "{{ flow.name }} {{ flow_run.name }} failed",
                "{{ flow.name }}/{{ deployment.name }}: the run {{ flow_run.name }} ended as {{ flow_run.state.name }}."
                "\n{{ flow_run.state.message }}\n{{ flow_run | ui_url }}",
            )
        ],
    )
    yield AutomationCore(
        name=CHAMPION,
        description="Tells when another version of a model became champion, and by which score.",
        trigger=EventTrigger(expect={CHAMPION_CHANGED}, match={"prefect.resource.id": f"{MODEL}.*"}),
        actions=[
            told.told(
                "{{ event.payload.model }}: version {{ event.payload.version }} is champion",
                "models:/{{ event.payload.model }}/{{ event.payload.version }} is champion"
                "{% if event.payload.former %}, instead of version {{ event.payload.former }}{% endif %}"
                " ({{ event.payload.verdict }}).\n{{ event.payload.mlflow }}",
            )
        ],
    )


def _trainings(trained: dict[str, DeploymentResponse]) -> Iterator[AutomationCore]:
    """An automation for each deployment that trains: on its own images, and ``train`` on all that none of them names.

    A deployment with a source of its own runs with its own settings, so that only the images are new. ``train`` takes
    the source from the event; the rest of its section of data goes along, since Prefect merges no sections.
    """
    sources = {name: _source(found) for name, found in trained.items() if name != "train/train"}
    for name, source in sources.items():
        yield _training(name, trained[name], f"of {source}", {SOURCE: glob.escape(source)}, [], parameters=None)
    if "train/train" in trained:
        data = dict(trained["train/train"].parameters.get("data", {}))
        others = [{SOURCE: f"!{glob.escape(source)}"} for source in sorted(set(sources.values()))]
        parameters = {"data": data | {"source": "{{ event.payload.source }}"}}
        yield _training(
            "train/train", trained["train/train"], "that no other deployment trains on", {}, others, parameters
        )


def _source(deployment: DeploymentResponse) -> str:
    """The images of a deployment, as events name them."""
    data = deployment.parameters.get("data", {})
    return name_of_source(str(data.get("source") or Data().source), project_root())


def _training(
    name: str,
    deployment: DeploymentResponse,
    images: str,
    match: dict[str, str],
    match_related: list[dict[str, str]],
    parameters: dict[str, dict[str, str]] | None,
) -> AutomationCore:
    return AutomationCore(
        name=f"{NEW_IMAGES}{name.removeprefix('train/')}",
        description=f"Starts {name} when an audit, or `recognition data announce`, finds another version {images}.",
        trigger=EventTrigger(
            expect={DATASET_CHANGED},
            # a training that sees new images trains on them already
            match={"prefect.resource.id": f"{DATASET}.*", SEEN_BY: ["audit", "announce"], **match},
            match_related=match_related or {},
        ),
        actions=[RunDeployment(source="selected", deployment_id=deployment.id, parameters=parameters)],
    )


def end_of_silent_runs(silence: timedelta = SILENCE, flows: Sequence[str] = FLOWS) -> AutomationCore:
    """Ends a run as Crashed when it gave no sign of life for some time.

    Args:
        silence: at least 10 seconds; it is noticed after one to two times as long.
        flows: names of the flows that are watched.
    """
    seconds = f"{silence.total_seconds():g} seconds"
    return AutomationCore(
        name=f"{PREFIX}a run stopped reporting",
        description=f"Ends a run as Crashed that gave no sign of life for {seconds}.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={"prefect.flow-run.heartbeat"},
            # a heartbeat, or any other state
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_flows(flows),
            for_each={"prefect.resource.id"},
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"No sign of life for {seconds}: its process or its machine is gone.",
            )
        ],
    )


def maintenance_after_a_crash(
    deployment: UUID, gathering: timedelta = GATHERING, flows: Sequence[str] = FLOWS
) -> AutomationCore:
    """Starts maintenance when a run crashed or was cancelled, which may have left an MLflow run open.

    Args:
        deployment: of the flow ``maintain``.
        gathering: it begins so long after the first run broke off, for all that do so until then.
        flows: names of the flows that are watched.
    """
    return AutomationCore(
        name=f"{PREFIX}end in MLflow what broke off",
        description="Starts maintenance when a run crashed or was cancelled, which may have left an MLflow run open.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*", "prefect.state-type": ["CRASHED", "CANCELLED"]},
            match_related=_flows(flows),
            within=gathering,
        ),
        actions=[RunDeployment(source="selected", deployment_id=deployment, parameters={}, schedule_after=gathering)],
    )


def _flows(names: Sequence[str]) -> dict[str, str | list[str]]:
    """What a run's related resources hold when it is one of these flows."""
    return {"prefect.resource.role": "flow", "prefect.resource.name": list(names)}
