"""Runs of deployments by `recognition trigger`: merged, refused before a run exists, watched to the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import OpenHouse
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
)
from prefect.client.schemas.responses import DeploymentResponse

from flows.deployments.deploying import deploy
from flows.deployments.triggering import find_deployment, merged_parameters, trigger
from flows.servers.connecting import connected
from recognition.errors import ConfigurationError


@pytest.fixture
def own(in_open_house: OpenHouse, tmp_path: Path) -> Iterator[DeploymentResponse]:
    """A deployment of an experiment file that no worker looks at."""
    file = tmp_path / "triggered_digits.yaml"
    file.write_text("name: triggered\nmodel:\n  dropout: 0.25\ntraining:\n  epochs: 4\n  batch_size: 32\n")
    deploy([file])
    with get_client(sync_client=True) as client:
        target = find_deployment(client, "triggered_digits").deployment
        client.request("PATCH", "/deployments/{id}", path_params={"id": target.id}, json={"work_pool_name": "idle"})
    yield target
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[target.id]))):
            client.delete_flow_run(run.id)
        client.delete_deployment(target.id)


@pytest.fixture(autouse=True)
def idle_pool(request: pytest.FixtureRequest) -> Iterator[None]:
    """A work pool without a worker."""
    if request.node.get_closest_marker("server") is None:
        yield
        return
    request.getfixturevalue("in_open_house")
    from prefect.client.schemas.actions import WorkPoolCreate

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="idle", type="process"), overwrite=True)
        yield
        client.delete_work_pool("idle")


def runs_of(deployment: DeploymentResponse) -> list[Any]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])))


@pytest.mark.server
def test_a_partial_section_keeps_the_deployments_other_values(own: DeploymentResponse) -> None:
    run = trigger("train/triggered_digits", ["training.epochs=1", "training.learning_rate=1e-3", "seed=7"])
    assert "no worker looks at the work pool idle" in run.warning
    (created,) = runs_of(own)
    assert str(created.id) == run.flow_run_id
    assert run.url.endswith(f"/runs/flow-run/{run.flow_run_id}")
    assert created.parameters["training"] == own.parameters["training"] | {"epochs": 1, "learning_rate": 0.001}
    assert created.parameters["training"]["batch_size"] == 32
    assert created.parameters["model"] == own.parameters["model"]
    assert (created.parameters["name"], created.parameters["seed"]) == ("triggered", 7)
    assert created.name == "triggered"


@pytest.mark.server
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.network=cnm"], "did you mean 'cnn'?"),
        (["training.epoch=3"], "did you mean training.epochs?"),
        (["training.epochs=0"], "training.epochs: input should be greater than or equal to 1 (got 0)"),
        (["training.monitor=val/map", "model.network=cnn"], "training.monitor: models for classification have no"),
        (["freshh=true"], "did you mean fresh?"),
        (["training"], "'training' is no setting: write section.key=value"),
    ],
)
def test_what_is_wrong_is_refused_before_a_run_exists(own: DeploymentResponse, words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        trigger("triggered_digits", words)
    assert message in str(caught.value)
    assert runs_of(own) == []


@pytest.mark.server
@pytest.mark.parametrize(
    "parameters",
    [
        {"training": {"epochs": 0}},
        {"training": {"batch_size": "many"}},
        {"model": {"network": "cnm"}},
        {"data": {"sauce": "digits"}},
        {"evaluation": {"threshold": 1.5}},
    ],
)
def test_the_server_itself_refuses_a_form_that_is_wrong(
    own: DeploymentResponse, in_open_house: OpenHouse, parameters: dict[str, Any]
) -> None:
    answer = requests.post(
        f"{in_open_house.api}/deployments/{own.id}/create_flow_run", json={"parameters": parameters}, timeout=20
    )
    assert answer.status_code in (409, 422)
    assert runs_of(own) == []


@pytest.mark.server
def test_other_flows_take_their_own_settings_by_the_same_rules(in_open_house: OpenHouse) -> None:
    deploy([])
    with connected() as client:
        evaluate, audit = find_deployment(client, "evaluate"), find_deployment(client, "audit/audit")
    words = ["model=models:/digits@champion", "evaluation.batch_size=64"]
    # only what is said: the rest is as the model's run had it
    assert merged_parameters(evaluate, words) == {
        "model": "models:/digits@champion", "evaluation": {"batch_size": 64},
    }  # fmt: skip
    assert merged_parameters(audit, ["data.source=/data/flowers", "fresh=true"]) == {
        "data": {"source": "/data/flowers"}, "fresh": True,
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match="model: must be given, as model="):
        merged_parameters(evaluate, [])
    with pytest.raises(ConfigurationError, match=r"did you mean evaluation\.batch_size"):
        merged_parameters(evaluate, ["model=digits", "evaluation.batch=3"])
    with pytest.raises(ConfigurationError, match="training: there is no such setting"):
        merged_parameters(audit, ["training.epochs=3"])


@pytest.mark.server
def test_a_deployment_that_is_not_there_is_named_with_the_nearest(in_open_house: OpenHouse) -> None:
    deploy([])
    with pytest.raises(ConfigurationError, match=r"There is no deployment 'trian'; did you mean train\? There are: "):
        trigger("trian", [])
    with pytest.raises(ConfigurationError, match="There is no deployment 'evaluate/train'"):
        trigger("evaluate/train", [])


@pytest.mark.server
def test_a_run_is_watched_to_its_end(in_open_house: OpenHouse) -> None:
    done = in_open_house.house.run("trigger", "train", "training.epochs=1", "name=watched", "--watch", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["name"], told["state"]) == ("watched", "Completed")
    assert told["url"] == f"{in_open_house.prefect}/v2/runs/flow-run/{told['flow_run_id']}"
    assert told["run_url"].startswith(in_open_house.mlflow)
    assert told["metrics"]["test/accuracy"] > 0.5
    assert "epoch 1/1" in done.stderr
    assert "Traceback" not in done.stderr
    failed = in_open_house.house.run("trigger", "audit", "data.source=nowhere", "--watch")
    assert failed.returncode == 1
    # the worker's operator has allowed no folder
    assert "may not be read by this worker" in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
