"""Servers that a run could not use are refused at once, in one line: no answer, other credentials, another version."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import BIN, House, OpenHouse, free_port, serving

from flows.servers.prefect_api import PrefectServer
from recognition.errors import TrackingError
from recognition.server_versions import misfit
from recognition.tracking import check_store

pytestmark = pytest.mark.server
USER, PASSWORD = "admin", "a-long-password"


class _OtherVersions(BaseHTTPRequestHandler):
    """Answers like both servers, of versions that are not ours."""

    answers = {"/api/health": "true", "/api/admin/version": '"2.20.1"', "/version": "2.9.0", "/health": "OK"}  # noqa: RUF012

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answers.get(self.path, "{}").encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def other_versions() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _OtherVersions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def guarded_prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server behind its basic authentication."""
    folder, port = tmp_path_factory.mktemp("guarded_prefect"), free_port()
    words = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    extra = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{PASSWORD}"}
    api = f"http://127.0.0.1:{port}/api"
    with serving(words, f"{api}/health", dict(os.environ) | extra, folder / "log"):
        yield api


@pytest.fixture(scope="module")
def guarded_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server behind its basic-auth app."""
    folder, port = tmp_path_factory.mktemp("guarded_mlflow"), free_port()
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/users.db\n"
        f"admin_username = {USER}\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    words = [str(BIN / "mlflow"), "server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    extra = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for-a-test",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    url = f"http://127.0.0.1:{port}"
    with serving(words, f"{url}/health", dict(os.environ) | extra, folder / "log"):
        yield url


def test_prefect_takes_the_right_credentials_only(guarded_prefect: str) -> None:
    assert PrefectServer(guarded_prefect, f"{USER}:{PASSWORD}").check().startswith("3.")
    for wrong in ("", "admin:wrong"):
        with pytest.raises(TrackingError, match=r"refuses the credentials \(401\).*PREFECT_API_AUTH_STRING"):
            PrefectServer(guarded_prefect, wrong).check()


def test_mlflow_takes_the_right_credentials_only(guarded_mlflow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded_mlflow)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert check_store().startswith("3.")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(TrackingError, match=r"refuses the credentials \(401\).*MLFLOW_TRACKING_USERNAME"):
        check_store()


def test_wrong_credentials_stop_commands_at_once(guarded_prefect: str, guarded_mlflow: str, tmp_path: Path) -> None:
    house = House(tmp_path / "state", tmp_path, tmp_path)
    servers = {"PREFECT_API_URL": guarded_prefect, "PREFECT_API_AUTH_STRING": "admin:wrong"}
    done = house.run("train", "--json", **servers)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"error: The Prefect server {guarded_prefect} refuses the")
    done = house.run("generate", "digits", MLFLOW_TRACKING_URI=guarded_mlflow)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: The tracking server {guarded_mlflow} refuses the credentials (401)")


def test_a_check_names_servers_of_other_versions(other_versions: str, tmp_path: Path) -> None:
    house = House(tmp_path / "state", tmp_path, tmp_path)
    names = {"PREFECT_API_URL": f"{other_versions}/api", "MLFLOW_TRACKING_URI": other_versions}
    done = house.run("up", "--check", "--json", **names)
    assert done.returncode == 1
    prefect, mlflow = json.loads(done.stdout)["checks"]
    assert not prefect["ok"]
    assert "is of version 2.20.1, which does not suit prefect 3." in prefect["text"]
    assert not mlflow["ok"]
    assert "is of version 2.9.0, which does not suit mlflow 3." in mlflow["text"]


def test_what_is_no_api_is_called_so(open_house: OpenHouse) -> None:
    with pytest.raises(TrackingError, match="is no Prefect API"):
        PrefectServer(open_house.prefect).check()


def test_servers_may_be_newer_within_a_major_version_but_not_older() -> None:
    assert misfit("prefect", "3.8.8") == ""
    assert misfit("prefect", "3.99.0") == ""
    for other in ("3.7.9", "2.20.1", "4.0.0", "<html>"):
        assert misfit("prefect", other)


def test_a_deployment_without_a_worker_is_named(open_house: OpenHouse) -> None:
    server = PrefectServer(open_house.api)
    flow = server.ask("flows/", {"name": "unattended"})["id"]
    server.ask("work_pools/", {"name": "nobody", "type": "process"})
    deployment = server.ask("deployments/", {"name": "lonely", "flow_id": flow, "work_pool_name": "nobody"})["id"]
    try:
        done = open_house.house.run("up", "--check")
    finally:
        import requests

        for path in (f"deployments/{deployment}", "work_pools/nobody"):
            requests.delete(f"{open_house.api}/{path}", timeout=60).raise_for_status()
    assert done.returncode == 1
    wanted = "FAIL  worker: deployment lonely: no worker answers for work pool nobody; start one with "
    assert wanted + "`prefect worker start --pool nobody`" in done.stdout
