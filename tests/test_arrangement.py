"""MLflow arranged for comparing: descriptions, the column ``settings``, and the views that show the best run first."""

from __future__ import annotations

import base64
import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
from conftest import BIN, House, free_port, serving

from recognition import arrangement, tracking
from recognition.configuration import load_experiment
from recognition.errors import DataError
from recognition.experiment import Experiment
from recognition.families import FAMILIES, TASKS, Task
from recognition.records import Scores
from recognition.settings import tracking_settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
LONGEST_TAG = 5000
"""Characters that MLflow takes as an experiment's tag."""


def state_of(task: Task) -> dict[str, Any]:
    view = json.loads(arrangement.view_tag(task, 1)[1])
    packed = view["state"].removeprefix("deflate;")
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state


@pytest.mark.parametrize("task", TASKS)
def test_a_view_is_sorted_by_the_deciding_score_and_small_enough_for_a_tag(task: Task) -> None:
    assert len(arrangement.view_tag(task, 1_800_000_000_000)[1]) < LONGEST_TAG
    state = state_of(task)
    assert state["orderByKey"] == f"metrics.`test/{FAMILIES[task].metric}`"
    assert state["orderByAsc"] == (task == "generation")
    assert state["orderByKey"] in state["selectedColumns"]
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
    identifiers = [chart["uuid"] for chart in state["compareRunCharts"]]
    assert len(set(identifiers)) == len(identifiers)


def test_settings_are_told_as_they_are_typed() -> None:
    assert arrangement.settings_text(Experiment(name="mine")) == "defaults"
    asked = load_experiment(None, ["training.epochs=5", "model.network=vit"])
    assert set(arrangement.settings_text(asked).split()) == {"training.epochs=5", "model.network=vit"}
    long = load_experiment(None, [f"registration.description={'x' * 900}"])
    assert len(arrangement.settings_text(long)) == arrangement.LONGEST_SETTINGS


def test_a_failed_run_says_why_and_what_is_a_users_is_no_markup() -> None:
    note = arrangement.run_note("FAILED", {}, {"failure": "DataError: <b>|`no` images\nmore"}, {"data.source": "a`b"})
    assert "**FAILED**: `DataError: <b>|'no' images`" in note
    assert "on `a'b`" in note


def test_descriptions_are_written_once_and_never_over_a_persons(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    settings = tracking_settings().model_copy(update={"system_metrics": False})
    monkeypatch.setattr(tracking, "tracking_settings", lambda: settings)
    store = tracking.client()
    with tracking.tracked_run(Experiment(), {"prefect.flow_run_url": "http://p/run"}) as run_id:
        begun = store.get_run(run_id).data.tags[arrangement.NOTE]
        assert "[the run in Prefect](http://p/run)" in begun
        assert arrangement.NOT_ENDED in begun
    assert arrangement.NOT_ENDED not in store.get_run(run_id).data.tags[arrangement.NOTE]
    experiment_id = store.get_run(run_id).info.experiment_id
    tags = store.get_experiment(experiment_id).tags
    assert arrangement.NOTE not in tags  # no view, nothing to link to
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert "on `digits`, `defaults`" in store.get_run(run_id).data.tags[arrangement.NOTE]

    def failing() -> None:
        with tracking.tracked_run(Experiment(), {}) as failed:
            ids.append(failed)
            raise DataError("no images")

    views: list[tuple[Task, set[str]]] = [
        ("classification", {"classifiers"}),
        ("detection", {"classifiers", "detectors"}),
    ]
    for task, linked in views:
        tracking.log_scores(run_id, Scores(path=evaluation, task=task, test_digest="", metrics={}))
        note = store.get_experiment(experiment_id).tags[arrangement.NOTE]
        assert {word for word in ("classifiers", "detectors", "segmenters") if f"[{word}](#/" in note} == linked
    ids: list[str] = []
    store.set_experiment_tag(experiment_id, arrangement.NOTE, "ours")
    tracking.log_scores(run_id, Scores(path=evaluation, task="segmentation", test_digest="", metrics={}))
    with pytest.raises(DataError):
        failing()
    assert store.get_experiment(experiment_id).tags[arrangement.NOTE] == "ours"
    assert "**FAILED**: `DataError: no images`" in store.get_run(ids[0]).data.tags[arrangement.NOTE]
    with tracking.tracked_run(Experiment(), {}) as mine:
        store.set_tag(mine, arrangement.NOTE, "mine")
    assert store.get_run(mine).data.tags[arrangement.NOTE] == "mine"


@pytest.mark.server
def test_a_run_leaves_its_view_its_verdict_and_its_links(in_house: dict[str, Any]) -> None:
    run = tracking.client().get_run(in_house["run_id"])
    experiment = tracking.client().get_experiment(run.info.experiment_id)
    assert json.loads(experiment.tags["mlflow.sharedViewState.recognition-classification"])["name"]
    assert run.data.tags["verdict"].startswith("champion: first version: f1_macro ")
    assert "training.epochs=2" in run.data.tags["settings"].split()
    note = run.data.tags[arrangement.NOTE]
    assert f"[the run in Prefect]({run.data.tags['prefect.flow_run_url']})" in note
    assert "[digits version 1](#/models/digits/versions/1)" in note
    assert f"{in_house['metrics']['test/accuracy']:.4f}" in note
    address = arrangement.view_address(run.info.experiment_id, "classification")
    assert tracking.best_runs_url(in_house["run_id"], "classification").endswith(f"/{address}")


@pytest.mark.server
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium)")
def test_mlflows_pages_show_the_view_the_charts_and_the_description(
    house: House, in_house: dict[str, Any], tmp_path: Path
) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    pictures = Path(os.environ.get("RECOGNITION_SCREENSHOTS", tmp_path))
    experiment_id = tracking.find_run(in_house["run_id"]).info.experiment_id
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    words = [str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{house.state / 'mlflow.db'}", "--no-serve-artifacts"]
    environment = house.environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (
        serving(words, f"{base}/health", environment, tmp_path / "mlflow.log"),
        sync_api.sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1600, "height": 900})
            # the assistant that MLflow opens by itself hides a third of the page
            page.add_init_script("localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')")
            page.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
            page.goto(f"{base}/{arrangement.view_address(experiment_id, 'classification')}")
            for text in ("Classifiers, best first", "f1_macro", "settings"):
                page.get_by_text(text).first.wait_for(timeout=60_000)
            page.screenshot(path=pictures / "mlflow_best_first.png")
            page.goto(f"{base}/{arrangement.view_address(experiment_id, 'classification', charts=True)}")
            for text in ("Which run was best", "How they learned, by epoch", "test/f1_macro"):
                page.get_by_text(text).first.wait_for(timeout=60_000)
            page.screenshot(path=pictures / "mlflow_charts.png")
            page.goto(f"{base}/#/experiments/{experiment_id}/runs/{in_house['run_id']}")
            page.get_by_text("digits version 1").first.wait_for(timeout=60_000)
            page.screenshot(path=pictures / "mlflow_run.png")
        finally:
            browser.close()
