"""Schedules of deployments: set, shown, paused and removed from a shell, as in Prefect's pages."""

from __future__ import annotations

import asyncio
import zoneinfo
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule
from prefect.server.schemas.core import DeploymentSchedule as ServersSchedule
from pydantic import ValidationError

from flows.deployments.triggering import Target, all_deployments, find_deployment, merged_parameters
from flows.servers.connecting import connected
from recognition.errors import ConfigurationError

DEFAULT_SLUG = "default"
SHOWN_RUNS = 3
EXAMPLE = "for example '0 2 * * *' (every night at 2) or '*/30 8-18 * * mon-fri'"
CRON_FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of the month": "1 to 31",
    "month": "1 to 12, or jan to dec",
    "day of the week": "0 to 7, or sun to sat",
}


@dataclass(frozen=True)
class Planned:
    """A schedule of a deployment."""

    deployment: str
    slug: str
    """Its name within the deployment; empty where it was made without one."""
    when: str
    """The cron line, or what else it goes by."""
    timezone: str
    active: bool
    parameters: dict[str, Any]
    next_runs: tuple[datetime, ...]
    """In the time zone of this machine; empty when it is not active."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self.__dict__ | {"next_runs": [moment.isoformat() for moment in self.next_runs]}


def planned(name: str = "") -> list[Planned]:
    """All schedules, or those of one deployment.

    Raises:
        ConfigurationError: there is no such deployment.
    """
    with connected() as client:
        targets = [find_deployment(client, name)] if name else all_deployments(client)
        return [_planned(target, schedule) for target in targets for schedule in target.deployment.schedules]


def set_schedule(name: str, cron: str, timezone: str, slug: str, words: list[str]) -> Planned:
    """Give a deployment a schedule that is active, or change the one of this slug.

    Args:
        name: of the deployment.
        cron: five fields.
        timezone: a name of the IANA, such as Europe/Berlin.
        slug: which of the deployment's schedules.
        words: settings of the scheduled runs, on top of the deployment's own.

    Raises:
        ConfigurationError: one of these is wrong; nothing is changed then.
    """
    check_cron(cron)
    check_timezone(timezone)
    schedule = CronSchedule(cron=cron, timezone=timezone)
    with connected() as client:
        target = find_deployment(client, name)
        parameters = merged_parameters(target, words)
        found = [one for one in target.deployment.schedules if one.slug == slug]
        if found:
            client.update_deployment_schedule(
                target.deployment.id, found[0].id, active=True, schedule=schedule, parameters=parameters
            )
        else:
            made = DeploymentScheduleCreate(schedule=schedule, active=True, parameters=parameters, slug=slug)
            client.create_deployment_schedules(target.deployment.id, [made])
        _plan(client, target)
        return next(one for one in _again(client, target) if one.slug == slug)


def pause(name: str, slug: str = "") -> list[Planned]:
    """Switch off one schedule of a deployment, or all of them; runs that exist already go on.

    Raises:
        ConfigurationError: there is no such schedule.
    """
    with connected() as client:
        target = find_deployment(client, name)
        for schedule in [_one(target, slug)] if slug else _some(target):
            _switch(client, target, schedule, False)
        return _again(client, target)


def resume(name: str, slug: str = "") -> list[Planned]:
    """Switch on a schedule of a deployment: that of the slug, else the default one, else the only one.

    Raises:
        ConfigurationError: there is no such schedule.
    """
    with connected() as client:
        target = find_deployment(client, name)
        _switch(client, target, _one(target, slug), True)
        if target.deployment.paused:
            client.resume_deployment(target.deployment.id)
        _plan(client, target)
        return _again(client, target)


def remove(name: str, slug: str = "") -> list[Planned]:
    """Take a schedule from a deployment: that of the slug, else the default one, else the only one; those left.

    Raises:
        ConfigurationError: there is no such schedule.
    """
    with connected() as client:
        target = find_deployment(client, name)
        client.delete_deployment_schedule(target.deployment.id, _one(target, slug).id)
        return _again(client, target)


def check_cron(cron: str) -> None:
    """Refuse a cron line that is wrong, or never comes; Prefect's server takes six fields, words and 31 February.

    Raises:
        ConfigurationError: by the field that is wrong.
    """
    fields = cron.split()
    if len(fields) != len(CRON_FIELDS):
        raise ConfigurationError(
            f"--cron {cron!r} has {len(fields)} fields; a cron line has five, {', '.join(CRON_FIELDS)}; {EXAMPLE}."
        )
    for position, (field, known) in enumerate(CRON_FIELDS.items()):
        alone = ["*"] * len(CRON_FIELDS)
        alone[position] = fields[position]
        if not _is_cron(" ".join(alone)):
            raise ConfigurationError(
                f"--cron {cron!r}: {fields[position]!r} is no {field} ({known}, *, */5, 1-3 or 1,3); {EXAMPLE}."
            )
    if not _is_cron(cron) or not _comes(cron):
        raise ConfigurationError(f"--cron {cron!r}: no such day ever comes; {EXAMPLE}.")


def check_timezone(timezone: str) -> None:
    """Refuse a time zone that is none.

    Raises:
        ConfigurationError: with the nearest one.
    """
    known = zoneinfo.available_timezones()
    if timezone in known:
        return
    # also by a city alone, in any case
    names = {name.lower(): name for name in sorted(known)}
    cities = {name.rpartition("/")[2].lower(): name for name in sorted(known)}
    asked = timezone.lower().replace(" ", "_")
    close = get_close_matches(asked, names, n=1, cutoff=0.7)
    city = get_close_matches(asked.rpartition("/")[2], cities, n=1, cutoff=0.7)
    nearest = names[close[0]] if close else cities[city[0]] if city else ""
    hint = f"did you mean {nearest}?" if nearest else "give a name of the IANA, such as Europe/Berlin or UTC."
    raise ConfigurationError(f"--timezone {timezone!r} is no time zone; {hint}")


def _is_cron(cron: str) -> bool:
    try:
        CronSchedule(cron=cron)
    except ValidationError:
        return False
    return True


def _comes(cron: str) -> bool:
    try:
        return bool(_dates({"cron": cron, "timezone": "UTC"}))
    except ValueError:
        return False


def _dates(schedule: dict[str, Any]) -> list[datetime]:
    """The next runs, counted as the server will."""
    parsed = ServersSchedule.model_validate({"schedule": schedule}).schedule
    return list(asyncio.run(parsed.get_dates(SHOWN_RUNS)))


def _planned(target: Target, schedule: DeploymentSchedule) -> Planned:
    content = schedule.schedule.model_dump(mode="json")
    active = schedule.active and not target.deployment.paused
    said = {"cron": "{}", "rrule": "rrule {}", "interval": "every {} s"}
    when = next((text.format(content[kind]) for kind, text in said.items() if kind in content), str(content))
    zone = zoneinfo.ZoneInfo(content.get("timezone") or "UTC")
    return Planned(
        deployment=target.name,
        slug=schedule.slug or "",
        when=when,
        timezone=zone.key,
        active=active,
        parameters=schedule.parameters,
        next_runs=tuple(moment.astimezone(zone) for moment in _dates(content)) if active else (),
    )


def _plan(client: SyncPrefectClient, target: Target) -> None:
    """Have the next runs made at once; the server's own round comes once a minute, and would miss those before it."""
    client.request("POST", "/deployments/{id}/schedule", path_params={"id": target.deployment.id}, json={})


def _switch(client: SyncPrefectClient, target: Target, schedule: DeploymentSchedule, active: bool) -> None:
    # the server empties the settings of a schedule when they are not said again
    client.update_deployment_schedule(target.deployment.id, schedule.id, active=active, parameters=schedule.parameters)


def _again(client: SyncPrefectClient, target: Target) -> list[Planned]:
    """The deployment's schedules as they are now."""
    now = Target(target.flow_name, client.read_deployment(target.deployment.id))
    return [_planned(now, schedule) for schedule in now.deployment.schedules]


def _some(target: Target) -> list[DeploymentSchedule]:
    if not target.deployment.schedules:
        raise ConfigurationError(f"{target.name} has no schedule: `recognition schedule set` gives it one.")
    return list(target.deployment.schedules)


def _one(target: Target, slug: str) -> DeploymentSchedule:
    found = _some(target)
    if not slug and len(found) == 1:
        return found[0]
    for schedule in found:
        if schedule.slug == (slug or DEFAULT_SLUG):
            return schedule
    slugs = ", ".join(schedule.slug or "(one without a slug)" for schedule in found)
    what = f"no schedule {slug!r}; there are" if slug else "several schedules, say which by --slug"
    raise ConfigurationError(f"{target.name} has {what}: {slugs}.")
