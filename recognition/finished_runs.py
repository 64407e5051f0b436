"""What a run of the tracking store ended as, read back in one record."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from recognition import tracking
from recognition.errors import TrackingError
from recognition.families import TASKS, Task
from recognition.records import Record
from recognition.settings import tracking_settings, tracking_uri

PREDICTIONS = "evaluation/predictions.parquet"
"""The artifact with a classifier's answer about each test image."""


class FinishedRun(Record):
    """A run's end, settings and scores; it may also have failed, or still be running."""

    run_id: str
    name: str
    status: str
    """RUNNING, FINISHED, FAILED or KILLED."""
    failure: str
    """The first line of why it failed; else empty."""
    task: Task | None
    """None for what has neither trained nor scored a model."""
    test_digest: str
    """Of the test images, and of what else its scores depend on; two runs with one digest can be compared."""
    parameters: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


def finished_run(run_id: str) -> FinishedRun:
    """A run of the store.

    Raises:
        TrackingError: there is none of that id.
    """
    return _read(tracking.find_run(run_id))


def newest_runs(experiment: str, count: int) -> list[FinishedRun]:
    """The newest runs of an MLflow experiment that have trained a model and ended well, the newest first.

    Args:
        experiment: its name; empty: the one of ``mlflow.yaml``.
        count: how many at most.

    Raises:
        TrackingError: the store does not answer, or has no such experiment.
    """
    tracking.check_store()
    store, name = tracking.client(), experiment or tracking_settings().experiment_name
    found = store.get_experiment_by_name(name)
    if found is None:
        known = ", ".join(sorted(one.name for one in store.search_experiments(max_results=100)))
        raise TrackingError(f"There is no MLflow experiment {name!r} in {tracking_uri()}; there are: {known}.")
    # what has trained a model has a task; evaluations and comparisons are runs too
    ended_well = "attributes.status = 'FINISHED' and tags.task != ''"
    runs = store.search_runs([found.experiment_id], ended_well, max_results=count, order_by=["start_time DESC"])
    return [_read(run) for run in runs]


def has_file(run_id: str, path: str) -> bool:
    """Whether a run holds an artifact."""
    folder = str(PurePosixPath(path).parent)
    return path in {file.path for file in tracking.client().list_artifacts(run_id, folder)}


def fetch_file(run_id: str, path: str) -> Path:
    """An artifact of a run as a file of this machine; see `has_file`."""
    return Path(tracking.client().download_artifacts(run_id, path))


def _read(run: Any) -> FinishedRun:
    tags: dict[str, str] = run.data.tags
    task = tags.get("task", "")
    return FinishedRun(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        failure=tags.get("failure", "").partition("\n")[0],
        task=task if task in TASKS else None,
        test_digest=tags.get("scores.test_digest") or tags.get("data.test_digest", ""),
        parameters=run.data.params,
        metrics=run.data.metrics,
        tags=tags,
    )
