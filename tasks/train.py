"""Stage 3, train: a network in a process of its own, its epochs live in MLflow."""

from __future__ import annotations

from recognition import tracking
from recognition.defaults import resolve_model
from recognition.experiment import Experiment
from recognition.records import Policy, PreparedData, TrainedModel
from recognition.settings import run_folder
from tasks.isolation import run_isolated
from tasks.stage import stage
from tasks.watching import run_logger, watching


@stage("train")
def fit(run_id: str, data: PreparedData, policy: Policy, experiment: Experiment) -> TrainedModel:
    """Train and keep the best epoch's weights as a model bundle."""
    asked, chosen = (
        experiment.model.model_dump(mode="json"),
        resolve_model(experiment.model, data).model_dump(mode="json"),
    )
    tracking.log_parameters(
        run_id, {f"resolved.model.{key}": str(value) for key, value in chosen.items() if value != asked[key]}
    )
    with watching(run_id, "train") as emit:
        model: TrainedModel = run_isolated(
            "lightning_modules.training:fit",
            data,
            policy,
            experiment,
            run_folder(run_id),
            on_event=emit,
            processes=experiment.training.devices,
        )
    scores = {name: values for name, values in model.history.items() if name.startswith(("train/", "val/"))}
    best = {f"best/{name}": values[model.best_epoch] for name, values in scores.items()}
    sizes = {"model/parameters": model.parameters, "model/flops": model.flops, "best/epoch": model.best_epoch + 1}
    tracking.log_metrics(run_id, {**best, **sizes})
    tracking.log_file(run_id, model.bundle / "model.json", "model_description")
    tracking.log_tags(run_id, {"device": model.device})
    run_logger().info(
        f"{model.parameters:,} parameters on {model.device}; best epoch {model.best_epoch + 1} of {model.epochs} "
        f"by {experiment.training.monitor}"
    )
    return model
