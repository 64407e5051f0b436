"""Automations on a real server, each fired: a scheduled failure, new images, another champion, a run that is gone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest
from conftest import OpenHouse
from recording import mail_server, webhook
from sample_images import folder_of

pytestmark = pytest.mark.server
T = TypeVar("T")
SECRET = "token-1f6e2c"
DIES = """
import sys, time
from pathlib import Path
import flows  # prepares the environment
from prefect import flow
from flows.identity import prefect_tags
from recognition import tracking
from recognition.experiment import Experiment

@flow(name=sys.argv[1])
def dies():
    with tracking.tracked_run(Experiment(name="dies"), prefect_tags()) as run_id:
        Path(sys.argv[2]).write_text(run_id)
        time.sleep(600)

dies()
"""


def until(found: Callable[[], T | None], seconds: float = 180.0) -> T:
    """What ``found`` answers, as soon as that is something."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.3)
    return answer


@dataclass(frozen=True)
class Automated:
    """A house with automations, whose webhook is kept, and what was begun in it."""

    house: OpenHouse
    said: subprocess.CompletedProcess[str]
    announced: dict[str, Any]
    address: str
    received: list[dict[str, Any]]
    killed: str
    """The id of the MLflow run whose process was killed."""

    def message(self, *words: str) -> dict[str, Any]:
        """The first message that holds all these words."""
        return until(lambda: next((m for m in self.received if all(word in str(m) for word in words)), None))


@pytest.fixture(scope="module")
def at_the_server(open_house: OpenHouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This process's Prefect and MLflow clients talk to the house, and its state folder is its own."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    folder = tmp_path_factory.mktemp("automations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(folder / "state"))
        patch.setenv("MLFLOW_TRACKING_URI", open_house.mlflow)
        with temporary_settings({PREFECT_API_URL: open_house.api, PREFECT_HOME: folder / "prefect"}):
            yield


@pytest.fixture(scope="module")
def automated(
    open_house: OpenHouse, at_the_server: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Automated]:
    """Everything begun at once, since each of it waits for a worker or a clock."""
    from prefect.client.orchestration import get_client

    from flows.deployments import automations

    folder = tmp_path_factory.mktemp("experiments")
    folder_of(open_house.images / "watched", "cat", "dog", count=12)
    folder_of(open_house.images / "few", "cat", "dog", count=1)
    broken, watched = folder / "broken.yaml", folder / "watched.yaml"
    broken.write_text(json.dumps({"data": {"source": str(open_house.images / "gone")}}))
    watched.write_text(json.dumps({"data": {"source": str(open_house.images / "watched")}, "training": {"epochs": 1}}))
    with webhook() as (address, received), get_client(sync_client=True) as client:
        watch_over("dies")
        killed = killed_run(open_house, folder, "dies")
        said = open_house.house.run(
            "deploy", str(broken), str(watched), "--automations", RECOGNITION_WEBHOOK_URL=f"{address}/{SECRET}"
        )
        assert said.returncode == 0, said.stderr
        ids = {name: client.read_deployment_by_name(f"train/{name}").id for name in ("broken", "watched")}
        # With the scheduler's tag. Of a run that the scheduler plans and that begins within five minutes, Prefect holds
        # the events back for a quarter of an hour: they wait for the event of its planning, which is never emitted.
        client.create_flow_run_from_deployment(ids["broken"], tags=["auto-scheduled"])
        try:
            announced = open_house.house.json("data", "announce", str(open_house.images / "watched"))
            yield Automated(open_house, said, announced, address, received, killed)
        finally:
            automations.remove()
            for found in client.read_automations():
                if found.name.startswith("dies: "):
                    client.delete_automation(found.id)
            for deployment in ids.values():
                client.delete_deployment(deployment)


def watch_over(flow: str) -> None:
    """The automations for runs that are gone, quicker, for a flow of its own."""
    from prefect.client.orchestration import get_client

    from flows.deployments import automations

    with get_client(sync_client=True) as client:
        maintain = client.read_deployment_by_name("maintain/maintain")
        for name, automation in (
            ("dies: ended", automations.end_of_silent_runs(timedelta(seconds=10), [flow])),
            ("dies: cleaned", automations.maintenance_after_a_crash(maintain.id, timedelta(seconds=1), [flow])),
        ):
            client.create_automation(automation.model_copy(update={"name": name}))


def killed_run(house: OpenHouse, folder: Path, flow: str) -> str:
    """The MLflow run of a flow whose process is killed, after its first sign of life."""
    script, ready = folder / "dies.py", folder / f"{flow}-is-ready"
    script.write_text(DIES)
    words = [sys.executable, str(script), flow, str(ready)]
    process = subprocess.Popen(words, env=house.environment(), cwd=house.house.work)
    try:
        run_id = until(lambda: ready.read_text() if ready.exists() else "")
        until(lambda: has_given_a_sign(house, run_id))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return run_id


def has_given_a_sign(house: OpenHouse, run_id: str) -> bool:
    """Whether the flow run behind an MLflow run has said that it lives."""
    import requests

    from recognition import tracking

    flow_run = tracking.find_run(run_id).data.tags["prefect.flow_run_id"]
    asked = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{flow_run}"]}}
    answer = requests.post(f"{house.api}/events/filter", json={"filter": asked}, timeout=30).json()
    return bool(answer["events"])


def automations_of_the_project() -> dict[str, bool]:
    """By name, whether each is switched on."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = [a for a in client.read_automations() if a.name.startswith("recognition: ")]
    assert len({a.name for a in found}) == len(found)
    return {a.name: a.enabled for a in found}


def test_a_new_version_of_images_trains_the_deployment_that_names_them_and_the_champion_is_told(
    automated: Automated,
) -> None:
    assert automated.announced == {"announced": True, "digest": automated.announced["digest"], "images": 24}
    message = automated.message("watched", "is champion")
    assert message["subject"] == "watched: version 1 is champion"
    assert automated.house.mlflow in message["body"]
    assert message["path"] == f"/{SECRET}"
    (run,) = runs_of("watched")
    assert run.parameters["training"]["epochs"] == 1
    assert run.created_by.display_value == "recognition: new images train watched"


def test_images_that_no_deployment_names_are_trained_on_by_train(automated: Automated) -> None:
    from recognition import preparation
    from recognition.data_settings import Data
    from tasks.announcing import announce_dataset

    source = str(automated.house.images / "few")
    data = Data(source=source)
    located = preparation.locate(data)
    assert not announce_dataset(data, located, "train")  # seen for the first time
    folder_of(automated.house.images / "few", "dog", count=2)
    located = preparation.locate(data)
    assert announce_dataset(data, located, "audit")
    assert not announce_dataset(data, located, "audit")
    run = until(lambda: next((run for run in runs_of("train") if run.parameters["data"]["source"] == source), None))
    # classes with a single image are refused, and whoever did not start the run is told
    message = automated.message(str(run.id))
    assert "ended as Failed" in message["body"]


def runs_of(deployment: str) -> list[Any]:
    """The runs that automations started of a deployment."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(f"train/{deployment}")
        runs = client.read_flow_runs()
        return [run for run in runs if run.deployment_id == found.id and run.created_by.type == "AUTOMATION"]


def test_a_scheduled_run_that_fails_is_told_with_its_address(automated: Automated) -> None:
    message = automated.message("train/broken")
    assert message["subject"].startswith("train ")
    assert message["subject"].endswith(" failed")
    assert str(automated.house.images / "gone") in message["body"]
    assert f"{automated.house.prefect}/v2/runs/flow-run/" in message["body"]


def test_a_run_that_was_killed_is_ended_in_prefect_and_in_mlflow(automated: Automated) -> None:
    from recognition import tracking

    run = until(lambda: found if (found := tracking.find_run(automated.killed)).info.status != "RUNNING" else None)
    assert run.info.status == "FAILED"
    assert run.data.tags["left_behind"] == "its Prefect run ended as crashed"
    state = state_of(run.data.tags["prefect.flow_run_id"])
    assert state.is_crashed()
    assert "No sign of life for 10 seconds" in str(state.message)


def test_maintenance_ends_a_run_whose_process_is_gone_from_this_machine(automated: Automated, tmp_path: Path) -> None:
    from flows.maintenance import maintain
    from recognition import tracking

    run_id = killed_run(automated.house, tmp_path, "dies-unseen")
    assert run_id in [ending.run_id for ending in maintain(dry_run=True)]
    assert tracking.find_run(run_id).info.status == "RUNNING"
    assert run_id in [ending.run_id for ending in maintain()]
    run = tracking.find_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["left_behind"] == "its process is gone"
    assert state_of(run.data.tags["prefect.flow_run_id"]).is_crashed()
    assert run_id not in [ending.run_id for ending in maintain()]


def state_of(flow_run: str) -> Any:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run)).state


def test_deploying_again_makes_no_twins_and_leaves_off_what_was_switched_off(automated: Automated) -> None:
    from prefect.client.orchestration import get_client

    from flows.deployments import automations

    before = automations_of_the_project()
    assert set(before) <= set(automated.said.stdout.splitlines())
    with get_client(sync_client=True) as client:
        (found,) = client.read_automations_by_name("recognition: a run stopped reporting")
        client.pause_automation(found.id)
        try:
            assert automations.apply() == sorted(before)
            assert automations_of_the_project() == before | {found.name: False}
        finally:
            client.resume_automation(found.id)


def test_an_address_that_is_a_secret_is_seen_nowhere(automated: Automated) -> None:
    import requests

    assert SECRET not in automated.said.stdout + automated.said.stderr
    api = automated.house.api
    for kind in ("block_documents", "automations", "events"):
        assert SECRET not in requests.post(f"{api}/{kind}/filter", json={}, timeout=30).text
    for log in (automated.house.house.state / "logs").iterdir():
        assert SECRET not in log.read_text(encoding="utf-8", errors="replace")


def announce_a_champion(name: str) -> None:
    from prefect import flow
    from prefect.events.worker import EventsWorker

    from recognition import tracking
    from recognition.experiment import Experiment
    from recognition.records import Version
    from tasks.announcing import announce_champion

    @flow(name="announces")
    def announces() -> None:
        with tracking.tracked_run(Experiment(name="announces"), {}) as run_id:
            version = Version(name=name, version="7", aliases=("champion",), verdict="better", uri=f"models:/{name}/7")
            announce_champion(run_id, version, "accuracy", 0.9, "6")

    announces()
    EventsWorker.instance().wait_until_empty()


def test_mail_is_sent_by_smtp(automated: Automated) -> None:
    from flows.deployments import automations

    with mail_server() as (port, mails):
        automations.apply(webhook=f"mailto://127.0.0.1:{port}/?from=house@here.org&to=you@there.org")
        announce_a_champion("by-mail")
        mail = until(lambda: mails[0] if mails else None)
    assert mail["to"] == "you@there.org"
    assert mail["subject"] == "by-mail: version 7 is champion"
    assert "models:/by-mail/7 is champion, instead of version 6 (better)" in mail["text"]


def test_a_slack_block_that_is_there_is_told(automated: Automated) -> None:
    from prefect.blocks.notifications import SlackWebhook
    from pydantic import SecretStr

    from flows.deployments import automations

    # Slack's own host is the only one that the block takes by https; json:// is sent the same way to any
    address = automated.address.replace("http://", "json://")
    SlackWebhook(url=SecretStr(f"{address}/slack")).save("team", overwrite=True)
    automations.apply(notify="slack-webhook/team")
    announce_a_champion("by-slack")
    message = automated.message("by-slack")
    assert message["path"] == "/slack"
    assert message["title"] == "by-slack: version 7 is champion"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--notify", "slack-webhook/nobody"], "There is no block slack-webhook/nobody"),
        (["--notify", "team"], "name a block as type/name"),
        (["--webhook", "ftp://there.org/xyz"], "it begins with https://"),
        (["--webhook", "https://hooks.slack.com/xyz"], "Slack's are https://hooks.slack.com/services/A/B/C"),
        (["--notify", "a/b", "--webhook", "https://there.org/xyz"], "give one of them"),
    ],
)
def test_a_recipient_that_cannot_be_told_is_refused(at_the_server: None, words: list[str], said: str) -> None:
    from prefect.client.orchestration import get_client

    from flows.deployments.notifying import recipient
    from recognition.errors import ConfigurationError

    given = dict(zip(words[::2], words[1::2], strict=True))
    with get_client(sync_client=True) as client, pytest.raises(ConfigurationError) as refused:
        recipient(client, given.get("--notify", ""), given.get("--webhook", ""))
    assert said in str(refused.value)
    assert "xyz" not in str(refused.value)


def test_they_are_taken_off_the_server_again(automated: Automated) -> None:
    assert automations_of_the_project()
    done = automated.house.house.json("deploy", "--no-automations")
    assert "recognition: the champion changed" in done["removed"]
    assert not automations_of_the_project()
