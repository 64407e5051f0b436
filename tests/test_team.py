"""docs/team.md for real on this machine: Postgres, an S3 server, both servers with log-ins, TLS, and two workers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from team_servers import Team

pytestmark = pytest.mark.server


@dataclass(frozen=True)
class Trained:
    """Two runs, one a worker, as Prefect and MLflow tell of them."""

    flow_runs: list[dict[str, Any]]
    runs: list[dict[str, Any]]


def ask_mlflow(team: Team, path: str, user: str = "anna", password: str = "", **content: Any) -> requests.Response:
    """Ask MLflow's API as one of its users."""
    return requests.post(
        f"{team.mlflow}/api/2.0/mlflow/{path}",
        json=content,
        auth=(user, password or team.secrets.mlflow_person),
        verify=str(team.certificate or True),
        timeout=60,
    )


@pytest.fixture(scope="module")
def trained(team: Team, team_runs: list[dict[str, Any]]) -> Trained:
    """The two runs of the two workers, with what MLflow tells a person of them."""
    experiment = ask_mlflow(team, "experiments/search", max_results=10).json()["experiments"]
    found = ask_mlflow(team, "runs/search", experiment_ids=[one["experiment_id"] for one in experiment]).json()
    return Trained(team_runs, found.get("runs", []))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "blank.png"
    Image.new("L", (8, 8)).save(path)
    return path


def test_two_workers_in_separate_folders_each_take_a_run(team: Team, trained: Trained) -> None:
    logs = "".join((team.base / "logs" / f"worker{n}.log").read_text() for n in (1, 2))
    assert [run["state_name"] for run in trained.flow_runs] == ["Completed"] * 2, logs[-5000:]
    for house in team.workers:
        assert len(list((house.state / "runs").iterdir())) == 1


def test_mlflow_holds_both_runs_and_the_bucket_their_files(team: Team, trained: Trained) -> None:
    assert [run["info"]["status"] for run in trained.runs] == ["FINISHED"] * 2
    linked = {
        tag["value"] for run in trained.runs for tag in run["data"]["tags"] if tag["key"] == "prefect.flow_run_url"
    }
    assert linked == {f"{team.prefect}/v2/runs/flow-run/{run['id']}" for run in trained.flow_runs}
    keys = team.stored_files()
    for run in trained.runs:
        assert run["info"]["artifact_uri"].startswith("mlflow-artifacts:/")
        assert any(run["info"]["run_id"] in key and key.endswith("experiment.yaml") for key in keys)
    assert any(key.endswith("weights.safetensors") for key in keys)


def test_workers_keep_nothing_that_belongs_to_the_servers(team: Team, trained: Trained) -> None:
    for house in team.workers:
        kept = {path.name for path in house.state.iterdir()}
        assert "runs" in kept
        assert not kept & {"mlflow.db", "artifacts", "house.json"}


def test_a_person_asks_the_registered_model_from_another_folder(team: Team, trained: Trained, image: Path) -> None:
    done = team.person.run("predict", "models:/digits@champion", str(image), "--json", **team.of_person())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"][0]["label"] in set("0123456789")


def test_wrong_credentials_are_refused_by_both_servers(team: Team, trained: Trained) -> None:
    certificate = str(team.certificate or True)
    for auth in (None, ("team", "wrong"), ("worker", team.secrets.mlflow_worker)):
        answer = requests.post(
            f"{team.prefect}/api/flow_runs/filter", json={}, auth=auth, verify=certificate, timeout=60
        )
        assert answer.status_code == 401
    for user, password in (("anna", "wrong"), ("team", team.secrets.prefect), ("admin", "password1234")):
        assert ask_mlflow(team, "experiments/search", user, password, max_results=10).status_code == 401


def test_who_may_only_read_writes_into_a_run_when_the_admin_lets_them(team: Team, trained: Trained) -> None:
    run = trained.runs[0]["info"]
    tag = {"run_id": run["run_id"], "key": "mine", "value": "1"}
    assert ask_mlflow(team, "runs/set-tag", **tag).status_code == 403
    assert ask_mlflow(team, "runs/set-tag", "worker", team.secrets.mlflow_worker, **tag).status_code == 200
    team.as_admin(f"house.grant_user_permission('anna', 'experiment', '{run['experiment_id']}', 'EDIT')")
    assert ask_mlflow(team, "runs/set-tag", **tag).status_code == 200


def test_a_password_is_changed_by_the_admin(team: Team, trained: Trained) -> None:
    team.as_admin(f"house.create_user('bert', '{team.secrets.webhook}')")
    assert ask_mlflow(team, "experiments/search", "bert", team.secrets.webhook, max_results=1).status_code == 200
    team.as_admin("house.update_user_password('bert', 'another password')")
    assert ask_mlflow(team, "experiments/search", "bert", team.secrets.webhook, max_results=1).status_code == 401
    assert ask_mlflow(team, "experiments/search", "bert", "another password", max_results=1).status_code == 200


def test_a_model_of_any_size_passes_to_the_bucket(team: Team, trained: Trained) -> None:
    """nginx takes 1 MB where nothing else is said."""
    place = trained.runs[0]["info"]["artifact_uri"].removeprefix("mlflow-artifacts:")
    content = bytes(range(256)) * 4096 * 20
    answer = requests.put(
        f"{team.mlflow}/api/2.0/mlflow-artifacts/artifacts{place}/weights.bin",
        data=content,
        auth=("worker", team.secrets.mlflow_worker),
        verify=str(team.certificate or True),
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert content in team.stored_files().values()


def test_a_person_is_told_that_the_house_is_whole(team: Team, trained: Trained) -> None:
    done = team.person.run("up", "--check", **team.of_person())
    assert done.returncode == 0, done.stdout + done.stderr
    online = next(line for line in done.stdout.splitlines() if " online" in line)
    assert "worker1" in online
    assert "worker2" in online


def test_wrong_credentials_are_told_by_the_command_in_a_line(team: Team, trained: Trained, image: Path) -> None:
    for command, variable in (
        (("predict", "models:/digits@champion", str(image)), "MLFLOW_TRACKING_PASSWORD"),
        (("deploy",), "PREFECT_API_AUTH_STRING"),
    ):
        done = team.person.run(*command, **team.of_person() | {variable: "team:wrong"})
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert variable in done.stderr


def test_pages_of_other_sites_cannot_use_a_visitors_login(team: Team, trained: Trained) -> None:
    """What --cors-allowed-origins and --allowed-hosts of docs/team.md are for."""
    url, auth = f"{team.mlflow}/api/2.0/mlflow/experiments/search", ("anna", team.secrets.mlflow_person)
    statuses = {}
    for name, headers in {
        "own": {"Origin": "https://house.example.org:5443", "Host": "house.example.org:5443"},
        "other site": {"Origin": "https://evil.example.com"},
        "other name": {"Host": "evil.example.com"},
    }.items():
        answer = requests.post(
            url, json={"max_results": 1}, auth=auth, headers=headers, verify=str(team.certificate or True), timeout=60
        )
        statuses[name] = answer.status_code
    assert statuses == {"own": 200, "other site": 403, "other name": 403}


def test_tls_is_checked_against_the_teams_own_authority(team: Team) -> None:
    if team.certificate is None:
        pytest.skip("needs nginx and openssl (Debian: apt-get install nginx openssl)")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{team.prefect}/api/health", timeout=60)
    assert requests.get(f"{team.prefect}/api/health", verify=str(team.certificate), timeout=60).ok
    # Prefect's pages are told an address that a browser can reach
    settings = requests.get(f"{team.prefect}/ui-settings", verify=str(team.certificate), timeout=60).json()
    assert settings["api_url"] == f"{team.prefect}/api"
    assert settings["auth"] == "BASIC"
    # and ask no other host from a browser
    page = requests.get(f"{team.prefect}/v2/", verify=str(team.certificate), timeout=60)
    assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
    # nothing of Prefect's WebSockets was refused on the way
    upgraded = [line for line in (team.reachable / "access.log").read_text().splitlines() if "/api/events/in" in line]
    assert upgraded
    assert all('" 101 ' in line for line in upgraded)
