"""MLflow runs: opened, filled and ended truthfully, through MLflow's client alone."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from PIL import Image

from recognition import arrangement, datasets, versions
from recognition.checkout import commit
from recognition.configuration import to_yaml
from recognition.errors import DataError, TrackingError
from recognition.experiment import Experiment
from recognition.families import Task
from recognition.left_behind import Ending, UnendedRun, this_process
from recognition.records import AuditedData, EvaluationResult, PreparedData, Scores, TrainingResult, Version
from recognition.server_versions import misfit
from recognition.settings import home, project_root, tracking_address, tracking_settings, tracking_uri

LOGGER = logging.getLogger("recognition")
PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "timm", "torchmetrics", "albumentations", "numpy", "scikit-learn",
    "prefect", "mlflow", "image-recognition-pipeline",
)  # fmt: skip
MOST_PER_BATCH = 100
LONGEST_PARAMETER = 6000
TRIES = 5


def client() -> MlflowClient:
    """A client of the tracking store and the registry that ``mlflow.yaml`` and the environment name.

    Raises:
        TrackingError: it is a server that cannot be used (`check_store`).
    """
    uri = tracking_uri()
    _check_once(uri)
    return MlflowClient(uri, uri)


@functools.cache
def _check_once(uri: str) -> None:
    """Before a process asks a server for the first time; later an outage is for the client's retries."""
    check_store()


@contextmanager
def as_default_store() -> Iterator[None]:
    """Let MLflow's own calls find the store while the block runs.

    By the environment, restored afterwards: ``mlflow.set_tracking_uri`` would leave it there for the next state folder.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri()
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


def check_store() -> str:
    """Refuse a tracking server that a run could not use; MLflow's own client would try for minutes.

    Returns:
        Its version; empty for a store without a server.

    Raises:
        TrackingError: it does not answer within 5 seconds, refuses the credentials, or is of a version that does not
            suit ours.
    """
    uri = tracking_uri()
    if not uri.startswith("http"):
        return ""
    creds = get_default_host_creds(uri)
    try:
        # the second is open to nobody without a login, whatever stands before the server
        answers = [
            http_request(creds, path, "GET", max_retries=0, timeout=5, raise_on_status=False)
            for path in ("/version", "/api/2.0/mlflow/experiments/search?max_results=1")
        ]
    except MlflowException as error:
        why = type(error.__cause__ or error.__context__ or error).__name__
        raise TrackingError(
            f"The tracking server {uri} does not answer ({why}). Start it, or change tracking_uri in "
            "mlflow.yaml or MLFLOW_TRACKING_URI; `recognition doctor` shows what answers."
        ) from None
    refused = [answer.status_code for answer in answers if answer.status_code in (401, 403)]
    if refused:
        raise TrackingError(
            f"The tracking server {uri} refuses the credentials ({refused[0]}): give them in MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD, or in MLFLOW_TRACKING_TOKEN."
        )
    if not all(answer.ok for answer in answers):
        raise TrackingError(
            f"{uri} is no MLflow server (status {', '.join(str(answer.status_code) for answer in answers)}): change "
            "tracking_uri in mlflow.yaml or MLFLOW_TRACKING_URI."
        )
    version: str = answers[0].text.strip()
    if why_not := misfit("mlflow", version):
        raise TrackingError(f"The tracking server {uri} {why_not}. Upgrade it, or name another in MLFLOW_TRACKING_URI.")
    return version


@contextmanager
def tracked_run(experiment: Experiment, tags: Mapping[str, str]) -> Iterator[str]:
    """Open a run for an experiment and end it as what it was: FINISHED, FAILED, or KILLED when it was interrupted.

    Args:
        experiment: its settings become the run's parameters.
        tags: links to whoever started the run.

    Yields:
        The run's id.

    Raises:
        TrackingError: the tracking server does not answer.
    """
    check_store()
    store = client()
    of_experiment = {"experiment.digest": experiment.digest, "settings": arrangement.settings_text(experiment)}
    run_id = _open(store, experiment.run_name, {**of_experiment, **tags})
    status = "FINISHED"
    monitor = None
    try:
        monitor = _system_metrics(run_id)
        _describe(store, run_id, experiment)
        yield run_id
    except Exception as error:
        status = "FAILED"
        store.set_tag(run_id, "failure", f"{type(error).__name__}: {error}"[:LONGEST_PARAMETER])
        raise
    except BaseException:
        # Ctrl-C, and the signals that Prefect raises for a cancelled or terminated flow
        status = "KILLED"
        raise
    finally:
        if monitor is not None:
            monitor.finish()
        store.set_terminated(run_id, status)
        _write_note(store, run_id)


def _open(store: MlflowClient, name: str, tags: Mapping[str, str]) -> str:
    settings = tracking_settings()
    try:
        found = store.get_experiment_by_name(settings.experiment_name)
        if found is None:
            artifacts = settings.artifact_location
            if not artifacts and not tracking_uri().startswith("http"):
                artifacts = (home() / "artifacts").as_uri()
            experiment_id = _create(store, settings.experiment_name, artifacts)
        else:
            experiment_id = found.experiment_id
        _arrange(store, experiment_id, found.tags if found else {})
        everything = {
            "mlflow.user": _user(),
            "mlflow.source.name": "recognition",
            "mlflow.source.type": "LOCAL",
            **_git(),
            **this_process(),
            **tags,
        }
        run: Run = store.create_run(experiment_id, tags=everything, run_name=name)
    except MlflowException as error:
        raise TrackingError(
            f"The tracking store {tracking_address()} cannot be used: {error.message.splitlines()[0]} "
            "Check tracking_uri in mlflow.yaml or MLFLOW_TRACKING_URI; `recognition doctor` shows what answers."
        ) from error
    run_id: str = run.info.run_id
    return run_id


def _describe(store: MlflowClient, run_id: str, experiment: Experiment) -> None:
    log_parameters(run_id, experiment.flattened())
    store.log_text(run_id, to_yaml(experiment), "experiment.yaml")
    store.log_dict(run_id, environment(), "environment.json")
    _write_note(store, run_id)


def _create(store: MlflowClient, name: str, artifacts: str) -> str:
    try:
        experiment_id: str = store.create_experiment(name, artifacts or None)
    except MlflowException:
        # another run made it in the meantime
        found = store.get_experiment_by_name(name)
        if found is None:
            raise
        experiment_id = found.experiment_id
    return experiment_id


def _arrange(store: MlflowClient, experiment_id: str, present: Mapping[str, str]) -> None:
    """Say what the experiment is for, where neither a person nor an earlier run has."""
    for key, value in arrangement.KIND.items():
        if key not in present:
            store.set_experiment_tag(experiment_id, key, value)


def _arrange_view(store: MlflowClient, run_id: str, task: Task) -> None:
    """Give the experiment of a run the view of its task, where it has none, and its description a link to it."""
    experiment_id = store.get_run(run_id).info.experiment_id
    key, value = arrangement.view_tag(task, int(time.time() * 1000))
    tags: dict[str, str] = store.get_experiment(experiment_id).tags
    if key in tags:
        return
    store.set_experiment_tag(experiment_id, key, value)
    before = arrangement.experiment_note(experiment_id, arrangement.tasks_with_views(tags))
    if tags.get(arrangement.NOTE, before) == before:
        tasks = arrangement.tasks_with_views(tags | {key: value})
        store.set_experiment_tag(experiment_id, arrangement.NOTE, arrangement.experiment_note(experiment_id, tasks))


def _write_note(store: MlflowClient, run_id: str) -> None:
    """Describe a run, where no person has; that it cannot be described changes nothing about it."""
    try:
        run = store.get_run(run_id)
        if arrangement.NOT_ENDED in run.data.tags.get(arrangement.NOTE, arrangement.NOT_ENDED):
            note = arrangement.run_note(run.info.status, run.data.metrics, run.data.tags, run.data.params)
            store.set_tag(run_id, arrangement.NOTE, note)
    except MlflowException as error:
        LOGGER.warning("The run %s got no description: %s", run_id, error.message.partition("\n")[0])


def best_runs_url(run_id: str, task: Task) -> str:
    """The address of the runs of a task in a run's experiment, the best first."""
    return f"{pages()}/{arrangement.view_address(find_run(run_id).info.experiment_id, task)}"


def _system_metrics(run_id: str) -> SystemMetricsMonitor | None:
    settings = tracking_settings()
    if not settings.system_metrics:
        return None
    monitor = SystemMetricsMonitor(
        run_id, sampling_interval=settings.system_metrics_interval, tracking_uri=tracking_uri()
    )
    monitor.start()
    return monitor


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log finite metrics at one step, in batches; what is no finite number is left out."""
    now = int(time.time() * 1000)
    entities = [Metric(name, value, now, step) for name, value in metrics.items() if abs(value) < float("inf")]
    store = client()
    for start in range(0, len(entities), MOST_PER_BATCH):
        store.log_batch(run_id, metrics=entities[start : start + MOST_PER_BATCH])


def log_parameters(run_id: str, parameters: Mapping[str, str]) -> None:
    store = client()
    entities = [Param(key, value[:LONGEST_PARAMETER]) for key, value in parameters.items()]
    for start in range(0, len(entities), MOST_PER_BATCH):
        store.log_batch(run_id, params=entities[start : start + MOST_PER_BATCH])


def log_tags(run_id: str, tags: Mapping[str, str]) -> None:
    client().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def log_file(run_id: str, path: Path, folder: str) -> None:
    client().log_artifact(run_id, str(path), folder)


def log_picture(run_id: str, path: Path, name: str, step: int) -> None:
    """Log an image file as one of a row of pictures by step, which MLflow's page shows with a slider."""
    with Image.open(path) as image:
        client().log_image(run_id, image, key=name, step=step, synchronous=True)


def log_folder(run_id: str, path: Path, folder: str) -> None:
    client().log_artifacts(run_id, str(path), folder)


def log_data(run_id: str, data: PreparedData) -> None:
    """Log each split as an MLflow dataset input, with digests as tags and counts as metrics."""
    profile = {"classes": list(data.class_names), "height": data.height, "width": data.width, "channels": data.channels}
    contexts = {"train": "training", "val": "validation", "test": "testing"}
    inputs = [
        DatasetInput(
            Dataset(
                name=f"{Path(data.source).name or data.source}-{split}",
                digest=(data.test_digest if split == "test" else data.digest)[:36],
                source_type="local",
                source=json.dumps({"uri": data.source, "prepared": str(data.path)}),
                profile=json.dumps(profile | {"images": data.counts[split]} | {"by_class": data.class_counts[split]}),
            ),
            [InputTag("mlflow.data.context", context)],
        )
        for split, context in contexts.items()
    ]
    store = client()
    write_beside_others(lambda: store.log_inputs(run_id, datasets=inputs))
    store.log_dict(run_id, data.model_dump(mode="json"), "data/dataset.json")
    log_tags(run_id, {"data.digest": data.digest, "data.test_digest": data.test_digest})
    client().log_artifact(run_id, str(data.path / versions.SAMPLES), "data")
    counts = {f"data/{split}_images": float(count) for split, count in data.counts.items()}
    log_metrics(run_id, counts | {"data/classes": float(data.num_classes)})


def write_beside_others(write: Callable[[], object]) -> None:
    """Write into the store; another try where another run was writing the same thing at the same moment.

    MLflow looks whether a data set or an alias is there and inserts it if not, without a lock in between.
    """
    for _ in range(TRIES):
        try:
            write()
            return
        except MlflowException as error:
            if "already exists" not in error.message and "UNIQUE" not in error.message:
                raise
            refused = error
    raise refused


def log_audit(run_id: str, audited: AuditedData) -> None:
    """Log the audit's report as ``audit/report.html`` and ``audit/audit.json``, and its counts as metrics."""
    for name in ("report.html", "audit.json"):
        log_file(run_id, audited.path / name, "audit")
    counts = {f"data/findings/{finding.kind}": float(finding.count) for finding in audited.findings}
    totals = {"data/findings": float(len(audited.findings)), "data/left_out": float(audited.left_out)}
    log_metrics(run_id, totals | counts)


def samples_of(run_id: str) -> Path:
    """A copy of the table of images that a run used.

    Raises:
        TrackingError: there is no such run, or it holds no table.
    """
    find_run(run_id)
    try:
        return Path(client().download_artifacts(run_id, f"data/{versions.SAMPLES}"))
    except (MlflowException, OSError) as error:
        raise TrackingError(f"Run {run_id} holds no data/{versions.SAMPLES}: its data stage has not ended.") from error


def log_comparison(name: str, content: Mapping[str, Any], markdown: str, tags: Mapping[str, str]) -> str:
    """Record a comparison of runs as a finished run of its own; its id."""
    check_store()
    store = client()
    run_id = _open(store, name, tags)
    store.log_text(run_id, markdown, "comparison/comparison.md")
    store.log_dict(run_id, dict(content), "comparison/comparison.json")
    store.set_terminated(run_id, "FINISHED")
    return run_id


def log_scores(run_id: str, scores: Scores) -> None:
    log_metrics(run_id, scores.metrics)
    # the judge of a generator is part of the digest, other than in data.test_digest
    log_tags(run_id, {"scores.test_digest": scores.test_digest})
    _arrange_view(client(), run_id, scores.task)
    log_folder(run_id, scores.path, "evaluation")


def find_run(run_id: str) -> Run:
    """A run of the store.

    Raises:
        TrackingError: there is none of that id.
    """
    try:
        return client().get_run(run_id)
    except MlflowException as error:
        raise TrackingError(f"There is no run {run_id} in {tracking_address()}.") from error


def run_of_flow_run(flow_run_id: str) -> str:
    """The run that a Prefect run has made; empty when it has made none."""
    store = client()
    experiments = [found.experiment_id for found in store.search_experiments()]
    found = store.search_runs(experiments, f"tags.`prefect.flow_run_id` = '{flow_run_id}'", max_results=1)
    return str(found[0].info.run_id) if found else ""


def unended_runs() -> list[UnendedRun]:
    """All runs of the project's MLflow experiment that say they are running, the latest first."""
    check_store()
    store = client()
    found = store.get_experiment_by_name(tracking_settings().experiment_name)
    if found is None:
        return []
    return [
        UnendedRun(
            run_id=run.info.run_id,
            name=run.info.run_name or "",
            started=run.info.start_time / 1000,
            flow_run_id=run.data.tags.get("prefect.flow_run_id", ""),
            tags=run.data.tags,
        )
        for run in store.search_runs([found.experiment_id], "attributes.status = 'RUNNING'", max_results=1000)
    ]


def end_left_behind(ending: Ending) -> bool:
    """End a run that nobody ended, and say why in its tag ``left_behind``; whether it had still been running."""
    store = client()
    if store.get_run(ending.run_id).info.status != "RUNNING":
        return False
    store.set_tag(ending.run_id, "left_behind", ending.reason)
    store.set_terminated(ending.run_id, ending.status)
    _write_note(store, ending.run_id)
    return True


def experiment_of(run_id: str) -> dict[str, Any]:
    """The settings a run was started with, as plain content.

    Raises:
        TrackingError: the run holds none.
    """
    import yaml

    find_run(run_id)
    try:
        path = client().download_artifacts(run_id, "experiment.yaml")
    except (MlflowException, OSError) as error:
        raise TrackingError(f"Run {run_id} holds no experiment.yaml: it was not made by this pipeline.") from error
    content: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return content


def data_of(run_id: str) -> PreparedData | None:
    """The prepared images a run worked on, where they are still on this machine."""
    try:
        path = client().download_artifacts(run_id, "data/dataset.json")
        recorded = PreparedData.model_validate_json(Path(path).read_bytes())
        found = datasets.load(recorded.path)
    except (MlflowException, OSError, DataError):
        return None
    return found if found.digest == recorded.digest and found.is_whole() else None


def pages() -> str:
    """Where a person's browser finds MLflow.

    ``RECOGNITION_MLFLOW_URL`` says it where workers know the server by another name, as inside a network of containers.
    """
    own = tracking_uri() if tracking_uri().startswith("http") else tracking_settings().ui_url
    return (os.environ.get("RECOGNITION_MLFLOW_URL") or own).rstrip("/")


def run_url(run_id: str) -> str:
    """The address of a run's page; without the last word a browser that was never there shows another layout."""
    page = f"experiments/{find_run(run_id).info.experiment_id}/runs/{run_id}"
    return f"{pages()}/#/{page}?workflowType=machine_learning"


def version_url(version: Version) -> str:
    """The address of a registered version's page."""
    return f"{pages()}/#/models/{quote(version.name, safe='')}/versions/{version.version}"


def environment() -> dict[str, Any]:
    """What a run depends on outside its settings: Python, machine, packages, the lock file's digest."""
    lock = project_root() / "requirements.lock"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in PACKAGES},
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else "",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _git() -> dict[str, str]:
    """Commit and whether the work tree differs from it; empty outside a checkout."""
    found = commit()
    if found is None:
        return {}
    return {"git.commit": found[0], "git.dirty": str(found[1]).lower(), "mlflow.source.git.commit": found[0]}


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def training_result(run_id: str, version: Version | None) -> TrainingResult:
    """What a finished run holds, in one record."""
    run = find_run(run_id)
    metrics: dict[str, float] = run.data.metrics
    prefix = "seconds/"
    seconds = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
    return TrainingResult(
        run_id=run_id,
        run_url=run_url(run_id),
        flow_run_id=run.data.tags.get("prefect.flow_run_id", ""),
        task=run.data.tags["task"],
        metrics={key: value for key, value in sorted(metrics.items()) if not key.startswith(("system/", prefix))},
        model=version,
        seconds={**seconds, "total": (run.info.end_time - run.info.start_time) / 1000},
    )


def evaluation_result(run_id: str, model: str, source_run: str, scores: Scores) -> EvaluationResult:
    """Scores of a model, beside those that its own run recorded."""
    recorded: dict[str, float] = find_run(source_run).data.metrics
    shared = [abs(value - recorded[name]) for name, value in scores.metrics.items() if name in recorded]
    return EvaluationResult(
        run_id=run_id,
        run_url=run_url(run_id),
        model=model,
        evaluated_run_id=source_run,
        task=scores.task,
        test_digest=scores.test_digest,
        metrics=scores.metrics,
        largest_difference=max(shared, default=float("nan")),
    )
