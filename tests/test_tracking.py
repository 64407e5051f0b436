"""MLflow runs: their status, their content, a store that is not there."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from recognition import tracking
from recognition.configuration import load_experiment
from recognition.errors import DataError, TrackingError
from recognition.experiment import Experiment


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: Path) -> None:
    """A store of its own, without the sampling thread."""
    settings = tracking.tracking_settings().model_copy(update={"system_metrics": False})
    monkeypatch.setattr(tracking, "tracking_settings", lambda: settings)


def status(run_id: str) -> str:
    return str(tracking.client().get_run(run_id).info.status)


def test_a_run_is_running_inside_and_finished_after() -> None:
    with tracking.tracked_run(Experiment(), {"prefect.flow_run_id": "x"}) as run_id:
        assert status(run_id) == "RUNNING"
    assert status(run_id) == "FINISHED"
    run = tracking.client().get_run(run_id)
    assert run.info.run_name == "digits"
    assert run.data.params == Experiment().flattened()
    assert run.data.tags["prefect.flow_run_id"] == "x"


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (DataError("no images"), "FAILED"),
        (ValueError("defect"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(1), "KILLED"),
    ],
)
def test_a_run_that_breaks_off_says_how(ending: BaseException, said: str) -> None:
    runs = []

    def broken() -> None:
        with tracking.tracked_run(Experiment(), {}) as run_id:
            runs.append(run_id)
            raise ending

    with pytest.raises(type(ending)):
        broken()
    assert status(runs[0]) == said


def test_the_reason_of_a_failure_is_a_tag() -> None:
    with suppress(DataError), tracking.tracked_run(Experiment(), {}) as run_id:
        raise DataError("no images in there")
    assert tracking.client().get_run(run_id).data.tags["failure"] == "DataError: no images in there"


def test_many_metrics_are_logged_and_what_is_no_number_is_left_out() -> None:
    with tracking.tracked_run(Experiment(), {}) as run_id:
        tracking.log_metrics(
            run_id, {f"m{i}": float(i) for i in range(2500)} | {"nan": math.nan, "inf": math.inf}, step=3
        )
    metrics = tracking.client().get_run(run_id).data.metrics
    assert len(metrics) == 2500
    assert tracking.client().get_metric_history(run_id, "m7")[0].step == 3


def test_the_experiment_comes_back_from_the_run() -> None:
    asked = load_experiment(None, ["training.epochs=2", "augmentation.transforms=[{HorizontalFlip: {p: 0.5}}]"])
    with tracking.tracked_run(asked, {}) as run_id:
        pass
    assert Experiment.model_validate(tracking.experiment_of(run_id)) == asked


def test_a_run_of_somebody_else_is_refused() -> None:
    store = tracking.client()
    run_id = store.create_run(store.create_experiment("other")).info.run_id
    with pytest.raises(TrackingError, match=r"holds no experiment\.yaml"):
        tracking.experiment_of(run_id)


def test_a_server_that_does_not_answer_is_named_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "tracking_uri", lambda: "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9 does not answer.*mlflow\.yaml"):
        tracking.tracked_run(Experiment(), {}).__enter__()


def test_two_state_folders_do_not_see_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracking.tracked_run(Experiment(), {}) as run_id:
        pass
    monkeypatch.setenv("RECOGNITION_HOME", str(tmp_path / "other"))
    with pytest.raises(TrackingError, match=f"no run {run_id}"):
        tracking.find_run(run_id)


def test_two_runs_that_write_the_same_at_once_both_succeed() -> None:
    """What a team's Postgres answered to the later of two runs of the same new data."""
    answers = iter(['duplicate key value violates unique constraint "dataset_pk": Key (1, a) already exists.', ""])

    def write() -> None:
        if said := next(answers):
            raise MlflowException(said)

    tracking.write_beside_others(write)


def test_a_write_that_is_refused_for_another_reason_is_not_tried_again() -> None:
    tries = []

    def write() -> None:
        tries.append(1)
        raise MlflowException("no permission")

    with pytest.raises(MlflowException, match="no permission"):
        tracking.write_beside_others(write)
    assert len(tries) == 1
