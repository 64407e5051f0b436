"""Deployments: the same by `recognition deploy` and `prefect deploy`, and nothing that a person has set is reset."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from conftest import BIN, ROOT, OpenHouse
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, GlobalConcurrencyLimitUpdate, WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule

from flows import steps
from flows.deployments.deploying import deploy, project_file
from flows.deployments.pools import template_file
from flows.deployments.triggering import Target, all_deployments
from recognition import checkout
from recognition.errors import ConfigurationError, TrackingError

BUILT_IN = {"train/train", "evaluate/evaluate", "audit/audit", "compare/compare", "maintain/maintain"}
COMPARED = (
    "name", "version", "description", "tags", "entrypoint", "path", "parameters", "parameter_openapi_schema",
    "enforce_parameter_schema", "pull_steps", "job_variables", "work_pool_name", "work_queue_name", "paused",
)  # fmt: skip


def found() -> dict[str, DeploymentResponse]:
    with get_client(sync_client=True) as client:
        targets: list[Target] = all_deployments(client)
    return {target.name: target.deployment for target in targets}


def told(deployment: DeploymentResponse) -> dict[str, Any]:
    """What two ways of deploying must agree on."""
    content = {name: getattr(deployment, name) for name in COMPARED}
    schedules = [one.model_dump(include={"slug", "active", "parameters", "schedule"}) for one in deployment.schedules]
    return content | {"schedules": sorted(schedules, key=lambda one: str(one["slug"]))}


def delete(*names: str) -> None:
    with get_client(sync_client=True) as client:
        for name, deployment in found().items():
            if name in names:
                client.delete_deployment(deployment.id)


@pytest.mark.server
def test_every_flow_is_deployed_with_all_that_a_person_reads(in_open_house: OpenHouse) -> None:
    deploy([])
    deployments = found()
    assert set(deployments) >= BUILT_IN
    for name in BUILT_IN:
        deployment = deployments[name]
        assert deployment.description
        assert deployment.tags
        assert deployment.version == checkout.code_version()
        assert deployment.enforce_parameter_schema
        assert deployment.work_pool_name == "local"
        # which answers the folder of the project on the worker's machine
        assert deployment.pull_steps == [{"flows.steps.project_folder": {}}]
        assert Path(steps.project_folder()["directory"]).samefile(ROOT)
        assert not any(schedule.active for schedule in deployment.schedules if schedule.slug != "default")
    schedules = {name: [one.slug for one in deployment.schedules] for name, deployment in deployments.items()}
    assert "nightly" in schedules["train/train"]
    assert "weekly" in schedules["compare/compare"]
    assert "hourly" in schedules["maintain/maintain"]


@pytest.mark.server
def test_prefect_deploy_makes_the_same_deployments(in_open_house: OpenHouse) -> None:
    delete(*BUILT_IN)
    deploy([])
    ours = {name: told(deployment) for name, deployment in found().items() if name in BUILT_IN}
    delete(*BUILT_IN)
    try:
        done = subprocess.run(
            [BIN / "prefect", "--no-prompt", "deploy", "--all"],
            cwd=ROOT,
            env=in_open_house.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        theirs = {name: told(deployment) for name, deployment in found().items() if name in BUILT_IN}
        deploy([])
    assert ours == theirs


@pytest.mark.server
def test_what_a_person_has_set_stays_when_it_is_applied_again(in_open_house: OpenHouse) -> None:
    deploy([])
    with get_client(sync_client=True) as client:
        train = found()["train/train"]
        nightly = next(one for one in train.schedules if one.slug == "nightly")
        other = CronSchedule(cron="0 4 * * *", timezone="Asia/Tokyo")
        client.update_deployment_schedule(train.id, nightly.id, active=True, schedule=other, parameters={"seed": 1})
        # as Prefect's pages make one: without a slug
        own = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 5 * * *", timezone="UTC"), active=False)
        client.create_deployment_schedules(train.id, [own])
        client.pause_deployment(found()["compare/compare"].id)
        before = found()
        try:
            deploy([])
            after = found()
            assert {name: one.updated for name, one in after.items()} == {
                name: one.updated for name, one in before.items()
            }
            # and as well when there is something new to say
            client.request("PATCH", "/deployments/{id}", path_params={"id": train.id}, json={"description": "old"})
            client.request(
                "PATCH", "/deployments/{id}", path_params={"id": before["compare/compare"].id}, json={"version": "old"}
            )
            deploy([])
            after = found()
            assert {name: told(one) for name, one in after.items()} == {name: told(one) for name, one in before.items()}
            assert after["compare/compare"].paused
            assert sorted(one.schedule.cron for one in after["train/train"].schedules if one.slug != "default") == [
                "0 4 * * *",
                "0 5 * * *",
            ]
        finally:
            delete("train/train", "compare/compare")
            deploy([])


@pytest.mark.server
def test_an_experiment_file_becomes_a_deployment_with_its_values(in_open_house: OpenHouse, tmp_path: Path) -> None:
    file = tmp_path / "tiny_digits.yaml"
    file.write_text(
        "# yaml-language-server: $schema=schema.json\n# Digits, quickly.\n#\n# For trying things out.\n"
        "# tags: small, cpu\nname: tiny\nmodel:\n  network: timm/resnet10t\ntraining:\n  epochs: 2\n"
    )
    try:
        assert deploy([file]) == [*(name.partition("/")[2] for name in _in_order()), "tiny_digits"]
        deployment = found()["train/tiny_digits"]
        assert deployment.description == "Digits, quickly.\n\nFor trying things out."
        assert deployment.tags == ["training", "experiment", "small", "cpu"]
        assert set(deployment.parameters) == {"name", "model", "training"}
        assert deployment.parameters["training"]["epochs"] == 2
        # whole: a form shows what the run will have
        assert deployment.parameters["training"]["batch_size"] == 64
        schema = deployment.parameter_openapi_schema
        assert schema is not None
        assert schema["properties"]["name"]["default"] == "tiny"
        assert "timm/resnet10t" in schema["definitions"]["Model"]["properties"]["network"]["enum"]
        assert deployment.schedules == []
    finally:
        delete("train/tiny_digits")


def _in_order() -> list[str]:
    return ["train/train", "evaluate/evaluate", "audit/audit", "compare/compare", "maintain/maintain"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/digits.yaml", "b/digits.yaml"], "b/digits.yaml: its deployment would be named digits, as is "),
        (["a/train.yaml"], "named train, as is a deployment of prefect.yaml"),
        (["a/two words.yaml"], "with letters, digits, '.', '_' and '-' alone"),
        (["a/wrong.yaml"], "a/wrong.yaml: training.epoch: there is no such setting; did you mean training.epochs?"),
        (["a/nowhere.yaml"], "There is no experiment file"),
        (["a/no_yaml.yaml"], "no_yaml.yaml is no YAML"),
    ],
)
def test_a_file_that_cannot_be_deployed_is_refused_before_a_server_is_asked(
    tmp_path: Path, names: list[str], message: str
) -> None:
    content = {"wrong": "training:\n  epoch: 3\n", "no_yaml": "data: [\n"}
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        if file.stem != "nowhere":
            file.write_text(content.get(file.stem, "name: digits\n"))
    with pytest.raises(ConfigurationError) as caught:
        deploy([tmp_path / name for name in names])
    assert message in str(caught.value)


def test_without_a_server_the_way_to_one_is_named() -> None:
    with pytest.raises(TrackingError, match="start the house with `recognition up`"):
        deploy([])


def test_an_unknown_pool_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'cloud' is none of our work pools: local, docker, kubernetes"):
        deploy([], "cloud")


def test_the_version_is_the_commit_or_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    monkeypatch.setattr(checkout, "project_root", lambda: tmp_path)
    assert checkout.code_version() == "0.1.0"
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "first")
    clean = checkout.code_version()
    assert len(clean) == 12
    (tmp_path / "file").write_text("2")
    assert checkout.code_version() == f"{clean}-dirty"


@pytest.mark.server
@pytest.mark.parametrize("pool", ["docker", "kubernetes"])
def test_a_pool_is_made_from_its_template_and_deployed_to(
    in_open_house: OpenHouse, pool: str, caplog: pytest.LogCaptureFixture
) -> None:
    with get_client(sync_client=True) as client:
        try:
            deploy([], pool)
            made = client.read_work_pool(pool)
            assert made.type == pool
            assert made.base_job_template == json.loads(template_file(pool).read_text())
            assert {found()[name].work_pool_name for name in BUILT_IN} == {pool}
            # what a person changes in it stays
            variables = made.base_job_template["variables"] | {"description": "Ours."}
            changed = made.base_job_template | {"variables": variables}
            client.update_work_pool(pool, WorkPoolUpdate(base_job_template=changed))
            deploy([], pool)
            assert client.read_work_pool(pool).base_job_template == changed
            assert f"The work pool {pool} keeps its own job template" in caplog.text
        finally:
            deploy([])
            client.delete_work_pool(pool)
        assert {found()[name].work_pool_name for name in BUILT_IN} == {"local"}


@pytest.mark.server
def test_the_gpu_limit_is_made_once_and_kept(in_open_house: OpenHouse) -> None:
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name("gpu")
        deploy([])
        made = client.read_global_concurrency_limit_by_name("gpu").limit
        assert made >= 1
        client.update_global_concurrency_limit("gpu", GlobalConcurrencyLimitUpdate(limit=made + 3))
        deploy([])
        assert client.read_global_concurrency_limit_by_name("gpu").limit == made + 3
        client.update_global_concurrency_limit("gpu", GlobalConcurrencyLimitUpdate(limit=made))


@pytest.fixture
def worker_environment(in_open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a worker of a team's servers; the configuration may ask a server for blocks, hence the house."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "worker")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "swordfish")


def job_variables(flow_name: str) -> dict[str, Any]:
    """Those of a deployment in prefect.yaml."""
    return next(one.work_pool.job_variables for one in project_file().deployments if one.name == flow_name)


@pytest.mark.server
@pytest.mark.usefixtures("worker_environment")
@pytest.mark.parametrize(("flow_name", "gpus"), [("train", 1), ("audit", 0)])
def test_a_docker_worker_starts_what_the_template_says(flow_name: str, gpus: int) -> None:
    pytest.importorskip("prefect_docker", reason="needs the extra docker")
    from docker.models.containers import _create_container_args
    from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration

    template = json.loads(template_file("docker").read_text())
    values = job_variables(flow_name) | {"mem_limit": "8g", "env": {"PREFECT_API_URL": "https://prefect.example/api"}}
    configuration = asyncio.run(DockerWorkerJobConfiguration.from_template_and_values(template, values))
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid.uuid4(), name="a run"))
    settings = DockerWorker(work_pool_name="docker")._build_container_settings(None, configuration)  # type: ignore[arg-type]
    container = _create_container_args(settings | {"version": "1.43"})
    assert container["image"] == "image-recognition:latest"
    environment = container["environment"]
    assert environment["PREFECT_API_URL"] == "https://prefect.example/api"
    assert environment["MLFLOW_TRACKING_URI"] == "https://mlflow.example"
    assert environment["MLFLOW_TRACKING_PASSWORD"] == "swordfish"
    assert environment["RECOGNITION_HOME"] == "/state"
    host = container["host_config"]
    assert host["ShmSize"] == 2 * 1024**3
    assert host["Memory"] == 8 * 1024**3
    assert host["Binds"] == ["recognition-state:/state", "recognition-data:/data:ro"]
    asked = [{"Driver": "nvidia", "Count": 1, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}]
    assert host["DeviceRequests"] == (asked if gpus else [])
    assert "swordfish" not in json.dumps(template)


async def as_kubernetes_reads(manifest: dict[str, Any]) -> Any:
    """What is left of a job when its client library has read it: what it knows, after its own checks."""
    from kubernetes_asyncio.client import ApiClient

    async with ApiClient() as client:
        return client.sanitize_for_serialization(client._ApiClient__deserialize(manifest, "V1Job"))


@pytest.mark.server
@pytest.mark.usefixtures("worker_environment")
@pytest.mark.parametrize(("flow_name", "gpus"), [("train", 1), ("audit", 0)])
def test_a_kubernetes_worker_makes_the_job_that_the_template_says(flow_name: str, gpus: int) -> None:
    pytest.importorskip("prefect_kubernetes", reason="needs the extra kubernetes")
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    template = json.loads(template_file("kubernetes").read_text())
    values = job_variables(flow_name)
    configuration = asyncio.run(KubernetesWorkerJobConfiguration.from_template_and_values(template, values))
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid.uuid4(), name="a run"))
    manifest = configuration.job_manifest
    again = asyncio.run(as_kubernetes_reads(manifest))
    pod, known = manifest["spec"]["template"]["spec"], again["spec"]["template"]["spec"]
    # Prefect wants them here, where Kubernetes does not know them
    assert {name: pod.pop(name) for name in ("parallelism", "completions")} == {"parallelism": 1, "completions": 1}
    container = pod["containers"][0]
    limits = container["resources"]["limits"]
    assert known["containers"][0]["resources"]["limits"] == {name: str(value) for name, value in limits.items()}
    known["containers"][0]["resources"]["limits"] = limits
    assert pod == known
    assert limits["nvidia.com/gpu"] == gpus
    environment = {entry["name"]: entry for entry in container["env"]}
    assert environment["RECOGNITION_HOME"]["value"] == "/state"
    assert environment["MLFLOW_TRACKING_URI"]["value"] == "https://mlflow.example"
    password = environment["MLFLOW_TRACKING_PASSWORD"]
    assert password["valueFrom"]["secretKeyRef"] == {"name": "recognition", "key": "mlflow-password", "optional": True}
    assert "swordfish" not in json.dumps(manifest)
    assert container["args"] == ["prefect", "flow-run", "execute"]
    claims = {volume["name"]: volume for volume in pod["volumes"]}
    assert claims["state"]["persistentVolumeClaim"]["claimName"] == "recognition-state"
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/state", "/data", "/dev/shm"}
