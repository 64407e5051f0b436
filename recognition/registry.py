"""The model registry: versions, aliases and the rule that makes a champion."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, ParamSchema, ParamSpec, Schema
from PIL import Image

from recognition import bundle, tracking
from recognition.errors import ConfigurationError, ModelError
from recognition.experiment import Experiment
from recognition.families import FAMILIES, Task, is_better_when_lower
from recognition.records import PreparedData, Scores, TrainedModel, Version
from recognition.settings import tracking_address, tracking_uri

LOGGER = logging.getLogger("recognition")
CHAMPION, CHALLENGER = "champion", "challenger"
SERVED_MODEL = Path(__file__).parent / "served_model.py"
REQUIREMENTS = ("mlflow", "torch", "safetensors", "numpy", "pillow", "pandas")
NETWORK_REQUIREMENTS = {
    "timm": ("timm", "torchvision"),
    **dict.fromkeys(("torchvision", "retinanet", "fasterrcnn", "maskrcnn"), ("torchvision",)),
}


@dataclass(frozen=True)
class Verdict:
    """Whether a version becomes champion, and why."""

    promote: bool
    reason: str


def judge(
    score: float, metric: str, minimum_gain: float, test_digest: str, champion: tuple[float, str] | None
) -> Verdict:
    """Apply the promotion rule.

    Args:
        score: the new version's value of the metric.
        metric: its name, which says whether more or less is better.
        minimum_gain: how much better than the champion's it must be, at least.
        test_digest: of the images it was scored on.
        champion: the champion's score and test digest; none when there is no champion.
    """
    if champion is None:
        return Verdict(True, f"first version: {metric} {score:.4f}")
    best, digest = champion
    if digest != test_digest:
        why = "on other test images, by another judge, or with other noise"
        return Verdict(False, f"not comparable: the champion was scored {why} ({digest[:12]})")
    sign, word = (-1, "less") if is_better_when_lower(metric) else (1, "plus")
    needed = best + sign * minimum_gain
    comparison = f"{metric} {score:.4f} against the champion's {best:.4f}" + (
        f" {word} {minimum_gain:g}" if minimum_gain else ""
    )
    # a gain below float rounding is no difference
    return Verdict(sign * (score - needed) >= -1e-12, comparison)


def register(
    run_id: str, experiment: Experiment, data: PreparedData, model: TrainedModel, scores: Scores, folder: Path
) -> Version:
    """Log the bundle as an MLflow model and make it a version with tags, card and aliases.

    ``challenger`` moves to the new version always, ``champion`` by the rule in ``registration``.
    """
    store = tracking.client()
    card = _card(run_id, experiment, data, model, scores)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    tracking.log_file(run_id, folder / "MODEL_CARD.md", "model_card")
    logged = _log_model(store, run_id, model, data, folder / "mlflow_model")
    name = experiment.registered_name(model.task)
    metric = experiment.promotion_metric(model.task)
    score = _score(scores, metric)
    verdict = judge(
        score, metric, experiment.registration.minimum_gain, scores.test_digest, _champion_score(store, name, metric)
    )
    _ensure_registered(store, name)
    tags = {
        f"test/{metric}": f"{score:.6f}",
        "data.digest": data.digest,
        "data.test_digest": scores.test_digest,
        "experiment.digest": experiment.digest,
        "verdict": verdict.reason,
    }
    with tracking.as_default_store():  # which the registry looks the logged model up in
        created = store.create_model_version(
            name, logged.model_uri, run_id, tags, description=card, model_id=logged.model_id
        )
    # what MLflow's tables of runs read; its own register_model writes it, its client does not
    made = json.dumps([{"name": name, "version": created.version}])
    store.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": made})
    aliases = (CHALLENGER, CHAMPION) if verdict.promote else (CHALLENGER,)
    for alias in aliases:
        tracking.write_beside_others(partial(store.set_registered_model_alias, name, alias, created.version))
    told = f"{'champion' if verdict.promote else 'challenger'}: {verdict.reason}"
    tracking.log_tags(run_id, {"verdict": told})
    return Version(
        name=name,
        version=str(created.version),
        aliases=aliases,
        verdict=verdict.reason,
        uri=f"models:/{name}/{created.version}",
    )


def _score(scores: Scores, metric: str) -> float:
    if f"test/{metric}" not in scores.metrics:
        known = ", ".join(name for name in FAMILIES[scores.task].metrics if f"test/{name}" in scores.metrics)
        raise ConfigurationError(
            f"registration.metric is {metric}, which was not measured on this model: use auto, or one of {known}."
        )
    return scores.metrics[f"test/{metric}"]


def _log_model(store: MlflowClient, run_id: str, model: TrainedModel, data: PreparedData, folder: Path) -> LoggedModel:
    """Make the bundle a logged model of the run, READY when it is whole.

    Through the client: MLflow's ``log_model`` wants a run that is active in this process, and ends it.
    """
    run = store.get_run(run_id)
    logged = store.create_logged_model(run.info.experiment_id, "model", source_run_id=run_id, model_type=model.task)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(SERVED_MODEL),
            artifacts={"bundle": str(model.bundle)},
            signature=_signature(model),
            input_example=_input_example(data, model),
            pip_requirements=_requirements(_network_of(model)),
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                run_id=run_id,
                model_id=logged.model_id,
            ),
        )
        store.log_model_artifacts(logged.model_id, str(folder))
        store.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    except BaseException:
        store.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
        raise
    store.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    shutil.rmtree(folder)
    return logged


def _network_of(model: TrainedModel) -> str:
    network: str = bundle.describe(model.bundle)["architecture"]["network"]
    return network


def _ensure_registered(store: MlflowClient, name: str) -> None:
    try:
        store.get_registered_model(name)
    except MlflowException:
        with contextlib.suppress(MlflowException):  # another run made it in the meantime, or the version is refused
            store.create_registered_model(name)


def _champion_score(store: MlflowClient, name: str, metric: str) -> tuple[float, str] | None:
    try:
        champion: ModelVersion = store.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return None
    metrics = store.get_run(champion.run_id).data.metrics
    worst = float("inf") if is_better_when_lower(metric) else float("-inf")
    return metrics.get(f"test/{metric}", worst), champion.tags.get("data.test_digest", "")


def champion_of(name: str) -> str:
    """The number of the version that is champion; empty where there is none."""
    try:
        champion: ModelVersion = tracking.client().get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return ""
    return str(champion.version)


def _signature(model: TrainedModel) -> ModelSignature:
    """What is sent and answered; of what is nested MLflow only knows that it is there."""
    column = "label" if model.task == "generation" else "image"
    parameters = bundle.describe(model.bundle)["parameters"]
    kinds = {int: DataType.long, float: DataType.double, str: DataType.string}
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), column, required=False)]),
        outputs=Schema([ColSpec(kind, name) for name, kind in _OUTPUTS[model.task].items()]),
        params=ParamSchema([ParamSpec(name, kinds[type(value)], value) for name, value in parameters.items()]),
    )


def _input_example(data: PreparedData, model: TrainedModel) -> dict[str, list[str]]:
    """A small gray square as a PNG in base64; for a generator the name of a class."""
    if model.task == "generation":
        return {"label": [data.class_names[0]]}
    image = Image.fromarray(np.full((data.height, data.width), 128, dtype=np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"image": [base64.b64encode(buffer.getvalue()).decode()]}


def _requirements(network: str) -> list[str]:
    packages = REQUIREMENTS + NETWORK_REQUIREMENTS.get(network.partition("/")[0], ())
    return [f"{package}=={installed_version(package).partition('+')[0]}" for package in packages]


def _card(run_id: str, experiment: Experiment, data: PreparedData, model: TrainedModel, scores: Scores) -> str:
    """A short model card in Markdown."""
    shown = (name for name in FAMILIES[model.task].headline if f"test/{name}" in scores.metrics)
    rows = "\n".join(f"| {name} | {scores.metrics[f'test/{name}']:.4f} |" for name in shown)
    network = _network_of(model)
    return f"""# {experiment.registered_name(model.task)}

{experiment.registration.description or f"{_DOES[model.task]} {data.num_classes} classes."}

- task: {model.task.replace("_", " ")}
- classes: {", ".join(data.class_names)}
- images: {data.height}x{data.width}, {data.channels} channel{"s" if data.channels > 1 else ""}, from {data.source}
- network: {network}, {model.parameters:,} parameters, {model.flops:,} FLOPs an image
- trained on {data.counts["train"]:,} images for {model.epochs} epochs (best: {model.best_epoch + 1}) on {model.device}
- run: {run_id}

| test score | {data.counts["test"]:,} images |
| --- | --- |
{rows}

{_USE[model.task]}
"""


_DOES: dict[Task, str] = {
    "classification": "Classifies images into",
    "autoencoding": "Compresses and restores images of",
    "generation": "Makes images of",
    "detection": "Finds objects of",
    "segmentation": "Marks the pixels of",
    "instance_segmentation": "Finds and marks objects of",
}
_SENT = "Send images as base64 text, bytes or uint8 arrays in a column `image`; the answer holds "
_USE: dict[Task, str] = {
    "classification": f"{_SENT}label, confidence and probabilities.",
    "autoencoding": f"{_SENT}code, restored image (PNG in base64) and mean squared error.",
    "generation": "Send names of classes in a column `label` (empty: any); the answer holds an image a row (PNG in"
    " base64).",
    "detection": f"{_SENT}objects, each with label, confidence and box (x1, y1, x2, y2 in pixels of the image sent).",
    "segmentation": f"{_SENT}a mask of class numbers (PNG in base64) and each class's share of the pixels.",
    "instance_segmentation": f"{_SENT}objects, each with label, confidence, box and mask (PNG in base64).",
}
_OUTPUTS: dict[Task, dict[str, Any]] = {
    "classification": {
        "label": DataType.string,
        "confidence": DataType.double,
        "probabilities": Map(DataType.double),
    },
    "autoencoding": {"code": Array(DataType.double), "restored": DataType.string, "error": DataType.double},
    "generation": {"label": DataType.string, "image": DataType.string},
    "detection": {"objects": AnyType()},
    "segmentation": {"mask": DataType.string, "shares": Map(DataType.double)},
    "instance_segmentation": {"objects": AnyType()},
}


def fetch_bundle(model: str) -> Path:
    """The bundle of a model, on this machine.

    Args:
        model: ``models:/name@alias``, ``models:/name/version``, ``name`` (its champion), ``runs:/id``, a run's id, or a
            bundle's folder.

    Raises:
        ModelError: there is no such model, or it is not one of ours.
    """
    folder = Path(model)
    if (folder / "model.json").is_file():
        return folder
    tracking.check_store()
    location = _place_of(model)
    try:
        # by its place: MLflow would look a models:/ address up in the store of its global settings
        local = Path(mlflow.artifacts.download_artifacts(artifact_uri=location, tracking_uri=tracking_uri()))
    except (MlflowException, OSError) as error:
        place = tracking_address()
        raise ModelError(f"The files of {model} cannot be had from {place} ({_first_line(error)}).") from error
    found = sorted(local.rglob("model.json"))
    if not found:
        raise ModelError(f"{model} is no model of this pipeline: it holds no model.json.")
    return found[0].parent


def run_of(model: str) -> str:
    """The id of the run that made a model.

    Raises:
        ModelError: the model is not in the registry.
    """
    tracking.check_store()
    run_id: str = _run_in(model) or _version(model).run_id
    return run_id


def is_run_id(text: str) -> bool:
    """Whether a text has the form of a run's id: 32 hexadecimal digits."""
    return len(text) == 32 and not set(text) - set("0123456789abcdef")


def _run_in(model: str) -> str:
    """The run's id in ``runs:/id`` or ``id``; empty for the name of a registered model."""
    run_id = model.removeprefix("runs:/").partition("/")[0]
    return run_id if model.startswith("runs:/") or is_run_id(model) else ""


def _version(model: str) -> ModelVersion:
    name, _, alias = model.removeprefix("models:/").partition("@")
    if not alias and not model.startswith("models:/"):
        alias = CHAMPION
    store = tracking.client()
    try:
        if alias:
            return store.get_model_version_by_alias(name, alias)
        name, _, number = name.rpartition("/")
        return store.get_model_version(name, number)
    except MlflowException as error:
        raise ModelError(
            f"There is no model {model} in {tracking_address()} ({_first_line(error)}). "
            f"Registered here: {', '.join(registered_names()) or 'none yet, `recognition train` makes one'}."
        ) from error


def _place_of(model: str) -> str:
    """Where a model's files lie."""
    store = tracking.client()
    run_id = _run_in(model)
    if run_id:
        place = store.get_logged_model(_model_of_run(run_id)).artifact_location
    else:
        version = _version(model)
        place = store.get_model_version_download_uri(version.name, version.version)
    return str(place)


def _model_of_run(run_id: str) -> str:
    outputs = tracking.find_run(run_id).outputs
    models = outputs.model_outputs if outputs else []
    if not models:
        raise ModelError(f"Run {run_id} has no model: it ended before registration.")
    model_id: str = models[-1].model_id
    return model_id


def versions_of_runs(run_ids: Sequence[str]) -> dict[str, Version]:
    """The newest version that each run made, by run id; those that registered nothing are left out."""
    store, found = tracking.client(), {}
    for run_id in run_ids:
        made = store.search_model_versions(f"run_id = '{run_id}'", max_results=100)
        if made:
            newest = max(made, key=lambda version: int(version.version))
            # only a version asked for by itself comes with its aliases
            version = store.get_model_version(newest.name, newest.version)
            found[run_id] = Version(
                name=version.name,
                version=str(version.version),
                aliases=tuple(sorted(version.aliases)),
                verdict=version.tags.get("verdict", ""),
                uri=f"models:/{version.name}/{version.version}",
            )
    return found


def runs_of_versions(name: str, newest: int) -> list[str]:
    """The ids of the runs behind a registered model: that of its champion, then of the newest versions.

    Raises:
        ModelError: there is no such model.
    """
    tracking.check_store()
    if name not in registered_names():
        known = ", ".join(registered_names()) or "none yet, `recognition train` makes one"
        raise ModelError(f"There is no model {name!r} in {tracking_address()}. Registered here: {known}.")
    store = tracking.client()
    versions = store.search_model_versions(f"name = '{name}'", max_results=1000)
    recent = sorted(versions, key=lambda version: int(version.version), reverse=True)[:newest]
    champion = [number for alias, number in store.get_registered_model(name).aliases.items() if alias == CHAMPION]
    first = [store.get_model_version(name, number) for number in champion]
    return list(dict.fromkeys(version.run_id for version in (*first, *recent) if version.run_id))


def registered_names() -> list[str]:
    """Names of all registered models, sorted."""
    return sorted(model.name for model in tracking.client().search_registered_models(max_results=1000))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
