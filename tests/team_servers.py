"""A team's house on this machine, as docs/team.md builds it: databases, a bucket, both servers, TLS, two workers."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import BIN, ROOT, House, free_port, serving
from local_postgres import Postgres, postgres_cluster, require_postgres
from local_proxy import make_certificates, proxy, proxy_is_there

BUCKET = "mlflow-artifacts"
PREFIX = "CANARY"
"""Every secret of the house starts with it, so that one search finds any of them."""


def _canary() -> str:
    # of letters and digits alone: the same in an address, in JSON and in a log
    return f"{PREFIX}{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Secrets:
    """What nobody but the programs that need it may ever see."""

    prefect_database: str = field(default_factory=_canary)
    mlflow_database: str = field(default_factory=_canary)
    storage: str = field(default_factory=_canary)
    prefect: str = field(default_factory=_canary)
    mlflow_session: str = field(default_factory=_canary)
    mlflow_admin: str = field(default_factory=_canary)
    mlflow_worker: str = field(default_factory=_canary)
    mlflow_person: str = field(default_factory=_canary)
    webhook: str = field(default_factory=_canary)
    # a key of 32 bytes in base64, as Prefect wants it
    encryption: str = field(default_factory=lambda: f"{PREFIX}{secrets.token_hex(18)}A=")


@dataclass(frozen=True)
class Team:
    """Where everything answers, and who may come in."""

    base: Path
    secrets: Secrets
    prefect: str
    mlflow: str
    certificate: Path | None
    """Of the authority that vouches for both addresses; none: there is no nginx, and no TLS."""
    storage: str
    postgres: Postgres
    reachable: Path
    """The folder of Postgres and nginx."""
    workers: tuple[House, House]
    person: House

    def environment(self, house: House, user: str, password: str) -> dict[str, str]:
        """What a worker, or a person, sets to use the servers."""
        environment = {
            key: value
            for key, value in house.environment().items()
            if not key.startswith(("AWS_", "RECOGNITION_ALLOWED", "SSL_", "REQUESTS_"))
        }
        environment |= {
            "PREFECT_API_URL": f"{self.prefect}/api",
            "PREFECT_UI_URL": f"{self.prefect}/v2",
            "PREFECT_API_AUTH_STRING": f"team:{self.secrets.prefect}",
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password,
        }
        if self.certificate is not None:
            environment["PREFECT_API_SSL_CERT_FILE"] = str(self.certificate)
            environment["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(self.certificate)
        return environment

    def of_worker(self, house: House) -> dict[str, str]:
        return self.environment(house, "worker", self.secrets.mlflow_worker) | {
            # for images in a bucket; models go through MLflow
            **_storage_login(self.storage, self.secrets.storage),
            "OMP_NUM_THREADS": "1",
        }

    def of_person(self) -> dict[str, str]:
        return self.environment(self.person, "anna", self.secrets.mlflow_person)

    def as_admin(self, text: str) -> None:
        """What an admin of MLflow's log-in does in Python, with ``house`` as the client."""
        ready = "import os; from mlflow.server import get_app_client\n"
        ready += "house = get_app_client('basic-auth', os.environ['MLFLOW_TRACKING_URI'])\n"
        done = subprocess.run(
            # not as an argument, which the list of processes would show
            [str(BIN / "python"), "-"],
            input=ready + text,
            env=self.environment(self.person, "admin", self.secrets.mlflow_admin),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    def ask_prefect(self, method: str, path: str, **content: Any) -> Any:
        """Ask Prefect's API with the team's log-in."""
        import requests

        answer = requests.request(
            method,
            f"{self.prefect}/api{path}",
            json=content or None,
            auth=("team", self.secrets.prefect),
            verify=str(self.certificate or True),
            timeout=60,
        )
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def stored_files(self) -> dict[str, bytes]:
        """Every object of the bucket."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.storage,
            aws_access_key_id="mlflow",
            aws_secret_access_key=self.secrets.storage,
            region_name="us-east-1",
        )
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        content = {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
        client.close()
        return content


def _prefect_server(team_secrets: Secrets, port: int, database_port: int, home: Path, url: str) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_API_AUTH_STRING": f"team:{team_secrets.prefect}",
        "PREFECT_SERVER_ENCRYPTION_KEY": team_secrets.encryption,
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_DATABASE_DRIVER": "postgresql+asyncpg",
        "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
        "PREFECT_SERVER_DATABASE_PORT": str(database_port),
        "PREFECT_SERVER_DATABASE_NAME": "prefect",
        "PREFECT_SERVER_DATABASE_USER": "prefect",
        "PREFECT_SERVER_DATABASE_PASSWORD": team_secrets.prefect_database,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def _mlflow_server(team_secrets: Secrets, database_port: int, storage: str) -> dict[str, str]:
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(database_port),
        "PGUSER": "mlflow",
        "PGPASSWORD": team_secrets.mlflow_database,
        "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg2:///mlflow",
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}",
        **_storage_login(storage, team_secrets.storage),
        "MLFLOW_AUTH_CONFIG_PATH": str(ROOT / "deployment" / "mlflow_auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": team_secrets.mlflow_admin,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": team_secrets.mlflow_session,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


@contextmanager
def team_house(base: Path, storage: str) -> Iterator[Team]:
    """Everything up: servers behind the proxy, users made, deployments applied, two workers listening."""
    require_postgres()
    for name, package in (("psycopg2", "psycopg2-binary"), ("flask_wtf", "flask-wtf")):
        pytest.importorskip(name, reason=f"needs the extra team ({package})")
    planted, logs = Secrets(), base / "logs"
    logs.mkdir()
    database_port, prefect_port, mlflow_port = free_port(), free_port(), free_port()
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_", "AWS_"))}
    upstreams = f"127.0.0.1:{prefect_port}", f"127.0.0.1:{mlflow_port}"
    with ExitStack() as parts:
        # Postgres and nginx run as users of their own, who can't reach the folders of a test
        reachable = Path(parts.enter_context(TemporaryDirectory(prefix="team-", ignore_cleanup_errors=True)))
        reachable.chmod(0o711)
        postgres = parts.enter_context(postgres_cluster(reachable / "postgres", database_port))
        certificate = None
        prefect, mlflow = (f"http://{upstream}" for upstream in upstreams)
        if proxy_is_there():
            certificate = make_certificates(reachable / "certs")
            prefect, mlflow = parts.enter_context(proxy(reachable, upstreams))
        team = Team(
            base=base,
            reachable=reachable,
            secrets=planted,
            prefect=prefect,
            mlflow=mlflow,
            certificate=certificate,
            storage=storage,
            postgres=postgres,
            workers=(_house(base / "worker1"), _house(base / "worker2")),
            person=_house(base / "anna"),
        )
        postgres.run_file(
            ROOT / "deployment" / "databases.sql",
            DATABASE_PASSWORD_PREFECT=planted.prefect_database,
            DATABASE_PASSWORD_MLFLOW=planted.mlflow_database,
        )
        run_script(["make_bucket.py", BUCKET], plain | _storage_login(storage, planted.storage))
        of_prefect = plain | _prefect_server(planted, prefect_port, database_port, base / "prefect", prefect)
        of_mlflow = plain | _mlflow_server(planted, database_port, storage)
        servers = (
            serving(
                [str(BIN / "prefect"), "server", "start"],
                f"http://{upstreams[0]}/api/health",
                of_prefect,
                logs / "prefect.log",
            ),
            serving(
                _mlflow_words(mlflow_port, mlflow.partition("://")[2]),
                f"http://{upstreams[1]}/health",
                of_mlflow,
                logs / "mlflow.log",
            ),
        )
        with ThreadPoolExecutor(len(servers)) as both:
            for started in [both.submit(parts.enter_context, server) for server in servers]:
                started.result()
        _make_users(team)
        done = team.person.run("deploy", **team.of_person())
        assert done.returncode == 0, done.stderr
        for number, house in enumerate(team.workers, 1):
            parts.enter_context(_worker(team, house, f"worker{number}", logs / f"worker{number}.log"))
        yield team


def _house(folder: Path) -> House:
    for name in ("work", "user", "state"):
        (folder / name).mkdir(parents=True)
    return House(folder / "state", folder / "work", folder / "user")


def _mlflow_words(port: int, host: str) -> list[str]:
    """The command of docs/team.md, which test_deployment_files.py holds against the compose file's."""
    options = {"--host": "127.0.0.1", "--port": str(port), "--workers": "1", "--app-name": "basic-auth"}
    options["--allowed-hosts"] = f"{host},house.example.org:5443"
    options["--cors-allowed-origins"] = "https://house.example.org:5443"
    return [str(BIN / "mlflow"), "server", "--serve-artifacts", *(f"{name}={value}" for name, value in options.items())]


def _storage_login(endpoint: str, secret: str) -> dict[str, str]:
    """What programs that use the object storage have in their environment."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "mlflow",
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _make_users(team: Team) -> None:
    """A user for all workers and one for a person, by the admin."""
    environment = team.environment(team.person, "admin", team.secrets.mlflow_admin)
    for name, password in (("worker", team.secrets.mlflow_worker), ("anna", team.secrets.mlflow_person)):
        run_script(["mlflow_user.py", name], environment, asked=f"{password}\n")


def run_script(words: list[str], environment: dict[str, str], asked: str = "") -> None:
    """One of the scripts in deployment/."""
    done = subprocess.run(
        [str(BIN / "python"), str(ROOT / "deployment" / words[0]), *words[1:]],
        env=environment,
        input=asked,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def _worker(team: Team, house: House, name: str, log: Path) -> Iterator[None]:
    words = [str(BIN / "prefect"), "worker", "start", "--pool", "local", "--name", name, "--limit", "1"]
    environment = team.of_worker(house) | {
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_HOME": str(house.state / "prefect"),
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            words, env=environment, cwd=house.work, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def finished(team: Team, flow_run_ids: list[str], patience: float = 240.0) -> list[dict[str, Any]]:
    """Flow runs as Prefect tells of them when all have ended."""
    deadline = time.monotonic() + patience
    while True:
        runs = [team.ask_prefect("GET", f"/flow_runs/{run}") for run in flow_run_ids]
        if all(run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") for run in runs):
            return runs
        assert time.monotonic() < deadline, [run["state"] for run in runs]
        time.sleep(1)


def two_trainings(team: Team) -> list[dict[str, Any]]:
    """Two flow runs of one epoch, triggered at once, so that each worker takes one; when both have ended."""
    deployment = team.ask_prefect("GET", "/deployments/name/train/train")
    path = f"/deployments/{deployment['id']}/create_flow_run"
    started = [
        team.ask_prefect("POST", path, parameters={"name": name, "training": {"epochs": 1}})
        for name in ("team-1", "team-2")
    ]
    return finished(team, [run["id"] for run in started])
