"""Each task, from images to a registered model: the same stages, and the same answers wherever the model is asked."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_images import instance_folder, voc_folder
from PIL import Image
from sample_images import folder_of

from lightning_modules import evaluation, training
from recognition import policies, preparation, registry, tracking
from recognition.experiment import Experiment
from recognition.families import FAMILIES, TASKS, Task
from recognition.local_models import with_local_models
from recognition.prediction import predict_files
from recognition.records import Version
from recognition.settings import run_folder

# said by MLflow while it sets its scoring application up, of hints of its own
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")
SMALL: dict[Task, dict[str, Any]] = {
    "classification": {},
    "autoencoding": {"code": 8, "channels": [8, 16]},
    "generation": {"width": 8, "code": 8},
    "detection": {"width": 8},
    "segmentation": {"width": 8, "depth": 2},
    "instance_segmentation": {"width": 8},
}
ANSWERS: dict[Task, set[str]] = {
    "classification": {"image", "label", "confidence", "probabilities"},
    "autoencoding": {"image", "code", "restored", "error"},
    "detection": {"image", "objects"},
    "segmentation": {"image", "mask", "shares"},
    "instance_segmentation": {"image", "objects"},
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Path]:
    folder = tmp_path_factory.mktemp("sources")
    classes = folder_of(folder / "pets", "cat", "dog", count=24)
    boxes, instances = voc_folder(folder / "shapes", 24), instance_folder(folder / "cells", 24)
    return {
        "classification": classes,
        "autoencoding": classes,
        "generation": classes,
        "detection": boxes,
        "segmentation": instances,
        "instance_segmentation": instances,
    }


@pytest.fixture(scope="module", autouse=True)
def one_state(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A state folder that the tasks share: the generator is judged by the classifier."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def trained(task: Task, source: Path) -> Version:
    """What the flow does, without an orchestrator."""
    experiment = Experiment.model_validate(
        {
            "data": {"source": str(source), "image_size": 32, "audit": {"missing_class": "warn"}},
            "model": {"task": task, **SMALL[task]},
            "training": {"epochs": 1, "batch_size": 8},
            "evaluation": {"samples": 32, "explanations": 1, "examples": 4},
        }
    )
    with tracking.tracked_run(experiment, {}) as run_id:
        folder = run_folder(run_id)
        data = preparation.prepare(experiment.data)
        tracking.log_data(run_id, data)
        policy = policies.augment(data, experiment.augmentation, 0, folder / "augmentation")
        local = with_local_models(experiment, task)
        model = training.fit(data, policy, local, folder)
        scores = evaluation.evaluate(
            data, model.bundle, local.evaluation, folder / "evaluation", model.history, model.best_epoch
        )
        tracking.log_scores(run_id, scores)
        assert scores.task == model.task == task
        assert f"test/{FAMILIES[task].metric}" in scores.metrics
        assert (scores.path / "figures" / FAMILIES[task].picture).is_file()
        assert (scores.path / "figures" / "learning_curves.png").is_file()
        assert all(np.isfinite(value) for value in scores.metrics.values())
        return registry.register(run_id, experiment, data, model, scores, folder)


def served(version: Version) -> Any:
    """A client of MLflow's own scoring application, with the registered model behind it."""
    import mlflow
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    bundle = registry.fetch_bundle(version.uri)
    model = next(parent for parent in bundle.parents if (parent / "MLmodel").is_file())
    return TestClient(scoring_server.init(mlflow.pyfunc.load_model(str(model))))


@pytest.mark.parametrize("task", TASKS)
def test_a_registered_model_answers_alike_by_command_and_by_mlflows_scoring_server(
    task: Task, sources: dict[Task, Path], tmp_path: Path
) -> None:
    version = trained(task, sources[task])
    assert version.name == sources[task].name + FAMILIES[task].suffix
    assert version.aliases == ("challenger", "champion")
    client = served(version)
    if task == "generation":
        rows = [{"label": "cat"}, {"label": "dog"}]
        body = {"dataframe_records": rows, "params": {"seed": 3}}
        answers = client.post("/invocations", json=body).json()["predictions"]
        assert [answer["label"] for answer in answers] == ["cat", "dog"]
        picture = Image.open(io.BytesIO(base64.b64decode(answers[0]["image"])))
        assert picture.size == (32, 32)
        assert client.post("/invocations", json=body).json()["predictions"] == answers
        wrong = client.post("/invocations", json={"dataframe_records": [{"label": "cow"}]})
        assert wrong.status_code == 400
        assert "cat, dog" in wrong.json()["message"]
        return
    image = next(path for path in sorted(sources[task].rglob("*.png")) if "masks" not in path.parts)
    answer = predict_files(version.uri, [image], {})[0]
    assert set(answer) == ANSWERS[task]
    encoded = base64.b64encode(image.read_bytes()).decode()
    response = client.post("/invocations", json={"dataframe_records": [{"image": encoded}]})
    assert response.status_code == 200, response.text
    told = response.json()["predictions"][0]
    assert told == json.loads(json.dumps({key: value for key, value in answer.items() if key != "image"}))
    wrong = client.post("/invocations", json={"dataframe_records": [{"image": base64.b64encode(b"words").decode()}]})
    assert wrong.status_code == 400
    assert "is text, not an image" in wrong.json()["message"]
