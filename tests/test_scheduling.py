"""Schedules from a shell: refused with the reason, kept by slug, and paused without touching anything else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from conftest import OpenHouse
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.sorting import FlowRunSort

from flows.deployments.deploying import deploy
from flows.deployments.scheduling import (
    Planned,
    check_cron,
    check_timezone,
    pause,
    planned,
    remove,
    resume,
    set_schedule,
)
from flows.deployments.triggering import find_deployment
from flows.servers.connecting import connected
from recognition.errors import ConfigurationError


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 2 * *", "'0 2 * *' has 4 fields; a cron line has five, minute, hour, day of the month"),
        ("0 2 * * * *", "has 6 fields"),
        ("@daily", "has 1 fields"),
        ("60 2 * * *", "'60' is no minute (0 to 59,"),
        ("0 25 * * *", "'25' is no hour (0 to 23,"),
        ("0 2 32 * *", "'32' is no day of the month"),
        ("0 2 * 13 *", "'13' is no month"),
        ("0 2 * * funday", "'funday' is no day of the week"),
        ("H 2 * * *", "'H' is no minute"),
        ("0 0 31 2 *", "no such day ever comes"),
    ],
)
def test_a_wrong_cron_line_is_refused_by_its_field_with_an_example(cron: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_cron(cron)
    assert message in str(caught.value)
    assert "for example '0 2 * * *' (every night at 2)" in str(caught.value)


@pytest.mark.parametrize("cron", ["0 2 * * *", "*/30 8-18 * * mon-fri", "0 0 29 2 *", "15 3 1,15 jan-jun 0"])
def test_a_right_cron_line_is_taken(cron: str) -> None:
    check_cron(cron)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("Europe/Berln", "Europe/Berlin"), ("berlin", "Europe/Berlin"), ("new york", "America/New_York")],
)
def test_a_wrong_time_zone_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigurationError, match=f"did you mean {nearest}"):
        check_timezone(name)
    check_timezone(nearest)


@pytest.fixture
def deployment(in_open_house: OpenHouse, tmp_path: Path) -> Iterator[str]:
    """A deployment of the test's own."""
    file = tmp_path / "scheduled_digits.yaml"
    file.write_text("name: scheduled\ntraining:\n  epochs: 2\n  batch_size: 32\n")
    deploy([file])
    yield "scheduled_digits"
    with connected() as client:
        client.delete_deployment(find_deployment(client, "scheduled_digits").deployment.id)


def by_slug(schedules: list[Planned]) -> dict[str, Planned]:
    return {schedule.slug: schedule for schedule in schedules}


@pytest.mark.server
def test_schedules_are_set_listed_paused_resumed_and_removed(deployment: str) -> None:
    others = [schedule for schedule in planned() if "scheduled_digits" not in schedule.deployment]
    words = ["training.epochs=1", "training.learning_rate=1e-3"]
    made = set_schedule(deployment, "0 2 * * *", "Europe/Berlin", "default", words)
    assert (made.deployment, made.when, made.timezone, made.active) == (
        "train/scheduled_digits", "0 2 * * *", "Europe/Berlin", True,
    )  # fmt: skip
    # the section whole, with the deployment's own values below what is set
    assert made.parameters["training"] == made.parameters["training"] | {
        "epochs": 1, "batch_size": 32, "learning_rate": 0.001,
    }  # fmt: skip
    assert set(made.parameters) == {"training"}
    moments = [moment.astimezone(ZoneInfo("Europe/Berlin")) for moment in made.next_runs]
    assert len(moments) == 3
    assert all((moment.hour, moment.minute) == (2, 0) for moment in moments)
    assert moments == sorted(moments)
    assert moments[0] > datetime.now().astimezone()

    set_schedule(deployment, "*/30 * * * *", "UTC", "often", [])
    assert set(by_slug(planned(deployment))) == {"default", "often"}
    paused = pause(deployment, "default")
    assert not by_slug(paused)["default"].active
    assert by_slug(paused)["often"].active
    # Prefect's server forgets them otherwise
    assert by_slug(paused)["default"].parameters == made.parameters
    assert not any(schedule.active for schedule in pause(deployment))
    resumed = by_slug(resume(deployment))
    assert (resumed["default"].active, resumed["often"].active) == (True, False)
    assert resumed["default"].parameters == made.parameters

    changed = set_schedule(deployment, "0 3 * * 1", "Asia/Tokyo", "default", [])
    assert (changed.when, changed.timezone, changed.parameters) == ("0 3 * * 1", "Asia/Tokyo", {})
    assert set(by_slug(remove(deployment))) == {"often"}
    # the only one left
    assert remove(deployment) == []
    assert [one for one in planned() if "scheduled_digits" not in one.deployment and not one.active] == [
        one for one in others if not one.active
    ]


@pytest.mark.server
def test_nothing_is_changed_by_what_is_wrong(deployment: str) -> None:
    wrong = {
        "training.epochs: input should be greater": ("0 2 * * *", "UTC", ["training.epochs=0"]),
        "did you mean Europe/Berlin": ("0 2 * * *", "Europe/Berln", []),
        "'25' is no hour": ("0 25 * * *", "UTC", []),
    }
    for message, (cron, timezone, words) in wrong.items():
        with pytest.raises(ConfigurationError, match=message):
            set_schedule(deployment, cron, timezone, "default", words)
    assert planned(deployment) == []
    for change in (pause, resume, remove):
        with pytest.raises(ConfigurationError, match="train/scheduled_digits has no schedule"):
            change(deployment)
    set_schedule(deployment, "0 2 * * *", "UTC", "one", [])
    with pytest.raises(ConfigurationError, match="has no schedule 'two'; there are: one"):
        remove(deployment, "two")


@pytest.mark.server
def test_a_schedule_made_without_a_slug_is_found_too(deployment: str) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    with get_client(sync_client=True) as client:
        target = find_deployment(client, deployment)
        made = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 5 * * *", timezone="UTC"), active=True)
        client.create_deployment_schedules(target.deployment.id, [made])
    assert [(one.slug, one.active) for one in pause(deployment)] == [("", False)]
    assert remove(deployment) == []


@pytest.mark.server
def test_the_server_plans_the_runs_that_are_shown(deployment: str) -> None:
    """With SQLAlchemy 2.1 Prefect 3.8.8 plans none, and says so in its log alone."""
    made = set_schedule(deployment, "0 2 * * *", "Europe/Berlin", "default", ["training.epochs=1"])
    with get_client(sync_client=True) as client:
        of_it = DeploymentFilter(id=DeploymentFilterId(any_=[find_deployment(client, deployment).deployment.id]))
        deadline = time.monotonic() + 100
        while not (runs := client.read_flow_runs(deployment_filter=of_it, sort=FlowRunSort.EXPECTED_START_TIME_ASC)):
            assert time.monotonic() < deadline, "no run is planned"
            time.sleep(0.5)
    assert [run.expected_start_time for run in runs[:3]] == list(made.next_runs)
    assert runs[0].parameters["training"]["epochs"] == 1
    assert runs[0].parameters["name"] == "scheduled"
