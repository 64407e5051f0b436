"""The main job, as a user runs it: the command line, a real Prefect server, MLflow's own clients and scoring server."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from conftest import BIN, ROOT, House, free_port, serving
from PIL import Image
from sample_images import folder_of
from sklearn.datasets import load_digits

pytestmark = pytest.mark.server
STAGES = {"preflight", "download", "audit", "prepare", "augment", "train", "evaluate", "register"}


@pytest.fixture(scope="session")
def digit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of scikit-learn's digits as a PNG, as the pipeline scales it."""
    path = tmp_path_factory.mktemp("images") / "digit.png"
    Image.fromarray(np.rint(load_digits().images[7] * 255 / 16).astype(np.uint8)).save(path)
    return path


def test_one_json_line_tells_the_run_the_metrics_the_model_and_the_seconds(trained: dict[str, Any]) -> None:
    assert len(trained["run_id"]) == 32
    assert len(trained["flow_run_id"]) == 36
    assert trained["metrics"]["test/accuracy"] > 0.8
    assert trained["model"]["name"] == "digits"
    assert trained["model"]["version"] == "1"
    assert set(trained["model"]["aliases"]) == {"challenger", "champion"}
    assert set(trained["seconds"]) >= STAGES


def test_all_state_lies_in_the_state_folder(house: House, trained: dict[str, Any]) -> None:
    assert {"mlflow.db", "artifacts", "datasets", "runs", "prefect"} <= {path.name for path in house.state.iterdir()}
    assert list(house.work.iterdir()) == []
    assert [path for path in house.user.iterdir() if path.name not in {".cache", ".config"}] == []


def test_mlflow_holds_everything_about_the_run(in_house: dict[str, Any]) -> None:
    from recognition import tracking

    store = tracking.client()
    run = store.get_run(in_house["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.epochs"] == "2"
    assert run.data.params["model.network"] == "auto"
    assert run.data.params["resolved.model.network"] == "cnn"
    tags = run.data.tags
    assert tags["prefect.flow_run_id"] == in_house["flow_run_id"]
    assert tags["prefect.flow_run_url"].endswith(in_house["flow_run_id"])
    assert {"git.commit", "git.dirty", "device", "data.digest", "data.test_digest", "experiment.digest"} <= set(tags)
    history = store.get_metric_history(in_house["run_id"], "val/accuracy")
    assert [point.step for point in history] == [1, 2]
    for name in ("test/accuracy", "test/recall/3", "best/val/loss", "model/parameters", "seconds/train"):
        assert name in run.data.metrics
    contexts = {tag.value for given in run.inputs.dataset_inputs for tag in given.tags}
    assert contexts == {"training", "validation", "testing"}

    def files(folder: str) -> set[str]:
        return {Path(found.path).name for found in store.list_artifacts(in_house["run_id"], folder)}

    assert {"experiment.yaml", "environment.json"} <= files("")
    assert files("augmentation") == {"policy.json", "policy.yaml", "preview.png"}
    assert files("audit") == {"report.html", "audit.json"}
    assert files("data") == {"dataset.json", "samples.parquet"}
    assert {"predictions.parquet", "scores.json", "per_class.csv", "confusion_matrix.csv"} <= files("evaluation")
    assert "likely_wrong_labels.csv" in files("evaluation")
    assert files("evaluation/figures") == {
        "confusion_matrix.png",
        "precision_recall.png",
        "roc.png",
        "learning_curves.png",
        "most_confident_mistakes.png",
        "explanations.png",
    }


def test_the_predictions_table_reproduces_the_logged_accuracy(in_house: dict[str, Any]) -> None:
    from recognition import tracking

    path = tracking.client().download_artifacts(in_house["run_id"], "evaluation/predictions.parquet")
    table = pd.read_parquet(path)
    assert len(table) == in_house["metrics"]["data/test_images"]
    assert table["sample_id"].is_unique
    assert (table["label"] == table["prediction"]).mean() == in_house["metrics"]["test/accuracy"]


def test_the_logged_policy_and_experiment_rebuild_what_was_used(in_house: dict[str, Any]) -> None:
    from recognition import policies, tracking
    from recognition.configuration import build_experiment, load_experiment

    text = Path(tracking.client().download_artifacts(in_house["run_id"], "augmentation/policy.json")).read_text()
    assert [type(step).__name__ for step in policies.from_json(text).transforms] == ["Affine"]
    asked = load_experiment(ROOT / "experiments" / "digits_cnn.yaml", ["training.epochs=2"])
    assert build_experiment(tracking.experiment_of(in_house["run_id"])) == asked


def test_the_registered_version_has_card_tags_and_no_pickle(in_house: dict[str, Any]) -> None:
    from recognition import registry, tracking

    version = tracking.client().get_model_version_by_alias("digits", "champion")
    assert version.run_id == in_house["run_id"]
    assert "| accuracy |" in version.description
    assert version.tags["data.test_digest"]
    names = {path.name for path in registry.fetch_bundle("models:/digits@champion").rglob("*") if path.is_file()}
    assert {"model.json", "weights.safetensors", "scorer.py", "pixels.py"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".ckpt"))]


def test_the_prefect_server_shows_the_run_its_stages_and_its_artifacts(
    house: House, trained: dict[str, Any], tmp_path: Path
) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = house.environment() | {
        "PREFECT_HOME": str(house.state / "prefect"),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    words = [str(BIN / "prefect"), "server", "start", "--port", str(port)]
    with serving(words, f"{api}/health", environment, tmp_path / "prefect.log"):
        run = requests.get(f"{api}/flow_runs/{trained['flow_run_id']}", timeout=30).json()
        assert run["state_type"] == "COMPLETED"
        assert run["name"] == "digits_cnn"
        only_this = {"flow_runs": {"id": {"any_": [trained["flow_run_id"]]}}}
        tasks = requests.post(f"{api}/task_runs/filter", json=only_this, timeout=30).json()
        assert {found["name"]: found["state_type"] for found in tasks} == dict.fromkeys(STAGES, "COMPLETED")
        artifacts = requests.post(f"{api}/artifacts/filter", json=only_this, timeout=30).json()
        kept = {found["key"]: found["data"] for found in artifacts}
        assert {"mlflow-run", "audit", "augmentation-preview", "report"} <= set(kept)
        assert "Nothing wrong was found" in kept["audit"]
        assert trained["run_id"] in kept["mlflow-run"]
        assert "| accuracy |" in kept["report"]


def test_two_addresses_point_the_same_command_at_a_teams_servers(house: House, tmp_path: Path) -> None:
    prefect_port, mlflow_port = free_port(), free_port()
    api, store = f"http://127.0.0.1:{prefect_port}/api", f"http://127.0.0.1:{mlflow_port}"
    environment = house.environment() | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_API_PORT": str(prefect_port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    prefect = [str(BIN / "prefect"), "server", "start", "--port", str(prefect_port)]
    mlflow = [str(BIN / "mlflow"), "server", "--port", str(mlflow_port), "--workers", "1"]
    mlflow += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path / 'store.db'}",
        "--artifacts-destination",
        str(tmp_path / "a"),
    ]
    with (
        serving(prefect, f"{api}/health", environment, tmp_path / "prefect.log"),
        serving(mlflow, f"{store}/health", environment, tmp_path / "mlflow.log"),
    ):
        servers = {"PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": store, "RECOGNITION_HOME": str(tmp_path / "state")}
        result = house.json("train", "training.epochs=1", **servers)
        run = requests.get(f"{api}/flow_runs/{result['flow_run_id']}", timeout=30).json()
        assert run["state_type"] == "COMPLETED"
        asked = {"run_id": result["run_id"]}
        info = requests.get(f"{store}/api/2.0/mlflow/runs/get", params=asked, timeout=30).json()["run"]["info"]
        assert info["status"] == "FINISHED"
        assert result["run_url"].startswith(store)
        answer = house.json(
            "predict", "digits", str(ROOT / "docs" / "images" / "fashion_mnist_confusion.png"), **servers
        )
        assert len(answer["predictions"][0]["probabilities"]) == 10
    # nothing of the run was kept in a store of its own
    assert {"mlflow.db", "artifacts"} & {path.name for path in (tmp_path / "state").iterdir()} == set()


def test_predict_and_mlflows_scoring_server_give_the_same_probabilities(
    house: House, trained: dict[str, Any], digit_file: Path, tmp_path: Path
) -> None:
    answer = house.json("predict", "models:/digits@champion", str(digit_file))["predictions"][0]
    assert answer["image"] == str(digit_file)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    port = free_port()
    environment = house.environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{house.state / 'mlflow.db'}"}
    words = [str(BIN / "mlflow"), "models", "serve", "-m", "models:/digits@champion", "--env-manager", "local"]
    url = f"http://127.0.0.1:{port}"
    encoded = base64.b64encode(digit_file.read_bytes()).decode()
    with serving([*words, "-p", str(port)], f"{url}/ping", environment, tmp_path / "serve.log"):

        def ask(content: dict[str, Any]) -> requests.Response:
            return requests.post(f"{url}/invocations", json=content, timeout=60)

        served = ask({"dataframe_records": [{"image": encoded}]}).json()["predictions"][0]
        assert served["label"] == answer["label"]
        assert served["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)
        as_inputs = ask({"inputs": {"image": [encoded, encoded]}}).json()["predictions"]
        assert [found["label"] for found in as_inputs] == [answer["label"]] * 2
        pixels = np.asarray(Image.open(digit_file)).tolist()
        assert ask({"dataframe_records": [{"image": pixels}]}).json()["predictions"][0]["label"] == answer["label"]
        two = ask({"dataframe_records": [{"image": encoded}], "params": {"top_k": 2}}).json()["predictions"][0]
        assert len(two["probabilities"]) == 2
        refused = {
            str(digit_file): "not base64",
            base64.b64encode(b"plain words").decode(): "not an image",
        }
        for image, reason in refused.items():
            response = ask({"dataframe_records": [{"image": image}]})
            assert response.status_code == 400
            assert reason in response.json()["message"]
            assert "stack_trace" not in response.json()


def test_evaluate_reproduces_the_scores_of_the_run_exactly(house: House, trained: dict[str, Any]) -> None:
    again = house.json("evaluate", "models:/digits@champion")
    assert again["metrics"] == {name: value for name, value in trained["metrics"].items() if name.startswith("test/")}
    assert again["largest_difference"] == 0
    assert again["evaluated_run_id"] == trained["run_id"]


def test_a_second_run_downloads_and_prepares_nothing_says_so_and_competes_for_champion(
    house: House, trained: dict[str, Any]
) -> None:
    stores = {path: path.stat().st_mtime_ns for path in (house.state / "images").iterdir()}
    done = house.run("train", "training.epochs=1", "training.learning_rate=1e-6", "name=worse", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    for name in ("download", "audit", "prepare"):
        assert f"{name}: nothing to do, an earlier run has done it" in done.stderr
        assert f"Task run '{name}' - Finished in state Cached" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (house.state / "images").iterdir()} == stores
    assert result["metrics"]["data/train_images"] == trained["metrics"]["data/train_images"]
    assert result["model"]["aliases"] == ["challenger"]
    assert "against the champion's" in result["model"]["verdict"]


def test_a_run_that_fails_is_failed_in_mlflow_and_shown_without_a_traceback(house: House, trained: Any) -> None:
    from recognition import tracking

    settings = ["training.optimizer=sgd", "training.learning_rate=100", "model.network=cnn", "model.batch_norm=false"]
    done = house.run("train", "name=diverging", "training.epochs=3", *settings)
    assert done.returncode == 2, done.stderr
    assert "training: the loss is" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(house.state))
        run = _runs_named(tracking.client(), "diverging")[0]
    assert run.info.status == "FAILED"
    assert "training: the loss is" in run.data.tags["failure"]


def test_fresh_does_it_again_and_a_missing_store_is_made_anew(house: House, trained: dict[str, Any]) -> None:
    from recognition import datasets

    prepared = [datasets.load(path) for path in (house.state / "datasets").iterdir() if path.is_dir()]
    (store,) = {record.images for record in prepared if record.source == "digits"}
    before = store.stat().st_ino
    done = house.run("train", "training.epochs=1", "name=fresh", "registration.enabled=false", "--fresh")
    assert done.returncode == 0, done.stderr
    assert "nothing to do" not in done.stderr
    assert store.stat().st_ino != before
    shutil.rmtree(store)
    done = house.run("evaluate", "models:/digits@champion", "--json")
    assert done.returncode == 0, done.stderr
    assert "audit: nothing to do" not in done.stderr
    assert (store / "store.json").is_file()
    assert json.loads(done.stdout.splitlines()[-1])["largest_difference"] == 0


def test_what_the_audit_forbids_fails_the_run_and_leaves_the_report_in_it(
    house: House, trained: Any, tmp_path: Path
) -> None:
    from recognition import tracking

    pets = folder_of(tmp_path / "pets", "cat", "dog", count=12)
    (pets / "cat" / "cut.jpg").write_bytes(b"")
    done = house.run("train", f"data.source={pets}", "name=damaged")
    assert done.returncode == 2
    assert "cat/cut.jpg is empty (0 bytes)" in done.stderr
    assert "data.audit.unreadable=quarantine" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(house.state))
        store = tracking.client()
        run = _runs_named(store, "damaged")[0]
        assert run.info.status == "FAILED"
        assert run.data.metrics["data/findings/unreadable"] == 1
        report = Path(store.download_artifacts(run.info.run_id, "audit/report.html")).read_text()
    assert "cat/cut.jpg" in report


def test_the_audit_command_tells_by_its_exit_code_whether_the_data_can_be_used(house: House, tmp_path: Path) -> None:
    pets = folder_of(tmp_path / "pets", "cat", "dog", count=12)
    assert house.json("audit", str(pets))["left_out"] == 0
    (pets / "cat" / "cut.jpg").write_bytes(b"")
    (pets / "dog" / "copy.png").write_bytes((pets / "cat" / "0.png").read_bytes())
    done = house.run("audit", str(pets), "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout.splitlines()[-1])
    assert {finding["kind"] for finding in told["findings"]} >= {"unreadable", "conflicting_labels"}
    assert Path(told["report"]).is_file()
    done = house.run("audit", str(pets), "data.audit.unreadable=quarantine")
    assert done.returncode == 0
    assert "cat/0.png" in done.stdout
    assert house.json("data", "diff", str(pets), str(pets))["added"]["count"] == 0


def test_ctrl_c_ends_the_run_as_killed_and_leaves_no_process(house: House, trained: Any) -> None:
    from recognition import tracking

    process = house.start("train", "name=interrupted", "training.epochs=5000")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(house.state))
        store = tracking.client()
        deadline = time.monotonic() + 200
        while not any("val/loss" in run.data.metrics for run in _runs_named(store, "interrupted")):
            assert time.monotonic() < deadline, "no epoch was logged"
            assert process.poll() is None, process.communicate()
            time.sleep(0.5)
        # as a terminal does: to every process of the group
        os.killpg(process.pid, signal.SIGINT)
        try:
            _, err = process.communicate(timeout=90)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 130, err
        assert _runs_named(store, "interrupted")[0].info.status == "KILLED"
    assert _processes_with_state(house.state) == []


def _runs_named(store: Any, name: str) -> list[Any]:
    ids = [found.experiment_id for found in store.search_experiments()]
    found: list[Any] = store.search_runs(ids, f"attributes.run_name = '{name}'")
    return found


def _processes_with_state(folder: Path) -> list[str]:
    """Command lines of the processes that were started with a state folder."""
    import psutil

    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RECOGNITION_HOME") == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                left.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return left
