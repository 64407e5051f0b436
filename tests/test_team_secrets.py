"""Secrets are planted wherever a team's house takes one, and looked for in everything that it leaves behind."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from team_servers import PREFIX, Team, finished

from recognition.access import ADDRESS_WITH_CREDENTIALS, redacted_text, refuse_credentials
from recognition.errors import ConfigurationError
from recognition.settings import tracking_address, tracking_uri

ADDRESSES = (
    f"https://ann:{PREFIX}@example.org/flowers.zip",
    f"https://example.org/flowers.zip?token={PREFIX}",
    f"https://bucket.example.org/flowers.zip?X-Amz-Signature={PREFIX}",
)


def planted(team: Team) -> list[bytes]:
    """All that gives a secret away: the mark that each begins with, and the headers that carry log-ins."""
    logins = [f"team:{team.secrets.prefect}", f"worker:{team.secrets.mlflow_worker}"]
    logins += [f"anna:{team.secrets.mlflow_person}", f"admin:{team.secrets.mlflow_admin}"]
    # without the last letters, which padding may change
    return [PREFIX.encode(), *(base64.b64encode(login.encode())[:-4] for login in logins)]


@pytest.fixture(scope="module")
def used(team: Team, team_runs: list[dict[str, Any]]) -> Team:
    """The house after everything that is given a secret was used: runs, storage, automations with a webhook."""
    webhook = f"http://127.0.0.1:9/{team.secrets.webhook}"
    done = team.person.run("deploy", "--automations", **team.of_person() | {"RECOGNITION_WEBHOOK_URL": webhook})
    assert done.returncode == 0, done.stderr
    assert PREFIX not in done.stdout + done.stderr
    # a run that uses the storage's key, and fails
    deployment = team.ask_prefect("GET", "/deployments/name/train/train")
    path = f"/deployments/{deployment['id']}/create_flow_run"
    run = team.ask_prefect("POST", path, parameters={"data": {"source": "s3://no-such-bucket/flowers.zip"}})
    assert [run["state_type"] for run in finished(team, [run["id"]])] == ["FAILED"]
    return team


@pytest.mark.server
@pytest.mark.parametrize("setting", ["source", "mirror"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_the_server_refuses_an_address_with_credentials_before_a_run_is_on_record(
    used: Team, setting: str, address: str
) -> None:
    deployment = used.ask_prefect("GET", "/deployments/name/train/train")
    answer = requests.post(
        f"{used.prefect}/api/deployments/{deployment['id']}/create_flow_run",
        json={"parameters": {"data": {setting: address}}},
        auth=("team", used.secrets.prefect),
        verify=str(used.certificate or True),
        timeout=60,
    )
    assert answer.status_code == 409
    assert len(used.ask_prefect("POST", "/flow_runs/filter", limit=50)) == 3


@pytest.mark.server
def test_commands_refuse_an_address_with_credentials_and_do_not_repeat_it(used: Team, tmp_path: Path) -> None:
    file = tmp_path / "flowers.yaml"
    file.write_text(f"data:\n  source: {ADDRESSES[0]}\n")
    for words in (("trigger", "train", f"data.source={ADDRESSES[0]}"), ("deploy", str(file)), ("train", str(file))):
        done = used.person.run(*words, **used.of_person())
        assert done.returncode == 2, done.stderr
        assert PREFIX not in done.stdout + done.stderr


@pytest.mark.server
def test_nothing_that_is_left_behind_holds_a_secret(used: Team) -> None:
    """Parameters, logs and artifacts of Prefect, MLflow's store, the bucket, state folders, and every log."""
    marks = planted(used)
    holding = [name for name, content in left_behind(used) if any(mark in content for mark in marks)]
    assert not holding


@pytest.mark.server
def test_no_command_line_holds_a_secret(used: Team) -> None:
    """The list of processes is open to every user of a machine; an environment to its own user and root alone."""
    own = [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
    assert not [line for line in (" ".join(process.cmdline()) for process in own) if PREFIX in line]
    # where they are
    servers = [process for process in own if "basic-auth" in " ".join(process.cmdline())]
    assert PREFIX in " ".join(servers[0].environ().values())


def left_behind(team: Team) -> Iterator[tuple[str, bytes]]:
    """Every database, stored object and file of the house, by name."""
    for database in ("prefect", "mlflow", "mlflow_auth"):
        dump = team.postgres.dump(database)
        assert "INSERT INTO" in dump
        yield f"database {database}", dump.encode()
    yield from ((f"bucket {key}", content) for key, content in team.stored_files().items())
    for folder in (team.base, team.reachable):
        for path in sorted(folder.rglob("*")):
            # the databases' own files are in the dumps; sockets hold nothing
            if path.is_file() and not path.is_relative_to(team.postgres.folder / "data"):
                yield str(path.relative_to(folder)), path.read_bytes()


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_schema_refuses_what_the_run_would_refuse(address: str) -> None:
    with pytest.raises(ConfigurationError):
        refuse_credentials(address)
    assert re.search(ADDRESS_WITH_CREDENTIALS, address)


@pytest.mark.parametrize(
    "address", ["digits", "/data/a@b/token=x", "hf:org/name", "https://example.org/a.zip?version=3&key=cats/a.zip#top"]
)
def test_the_schema_lets_ordinary_addresses_pass(address: str) -> None:
    refuse_credentials(address)
    assert not re.search(ADDRESS_WITH_CREDENTIALS, address)


def test_every_setting_that_takes_an_address_has_the_schema() -> None:
    schema = json.loads((Path(__file__).parent.parent / "experiments" / "schema.json").read_text(encoding="utf-8"))
    fields = schema["$defs"]["Data"]["properties"]
    for name in ("source", "mirror"):
        assert fields[name]["not"] == {"pattern": ADDRESS_WITH_CREDENTIALS}


def test_a_password_in_the_tracking_address_is_neither_recorded_nor_shown(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://ann:{PREFIX}@house.example.org:5443")
    with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_USERNAME") as caught:
        tracking_uri()
    assert PREFIX not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://mlflow:{PREFIX}@localhost/mlflow")
    assert tracking_address() == "postgresql+psycopg2://…@localhost/mlflow"


@pytest.mark.parametrize(
    "variable", ["AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_AUTH_STRING", "PGPASSWORD"]
)
def test_a_secret_of_the_environment_is_taken_out_of_messages(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, f"{PREFIX}0123456789")
    assert PREFIX not in redacted_text(f"refused: {PREFIX}0123456789 is no key")
