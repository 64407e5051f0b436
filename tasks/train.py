"""Stage 3, train: a network in a process of its own, its epochs live in MLflow."""

from __future__ import annotations

from pathlib import Path

from recognition import preparation, tracking
from recognition.defaults import resolve_model, resolve_task
from recognition.events import Emit, Event, Message, Progress
from recognition.experiment import Experiment
from recognition.local_models import with_local_models
from recognition.records import Policy, PreparedData, TrainedModel
from recognition.settings import run_folder
from tasks.isolation import run_isolated
from tasks.slots import cuda_environment
from tasks.stage import stage
from tasks.watching import run_logger, watching


@stage("train")
def fit(
    run_id: str, data: PreparedData, policy: Policy, experiment: Experiment, gpus: tuple[str, ...] = ()
) -> TrainedModel:
    """Train and keep the best epoch's weights as a model bundle, and beside it those of ``data.draws``' other draws.

    ``gpus``: the only ones that the stage's processes see, as `gpu_slot` gives them.
    """
    local, folder = with_local_models(experiment, resolve_task(experiment.model, data.kind)), run_folder(run_id)
    # start weights keep their name: the folder says nothing to others
    resolved = resolve_model(local.model, data).model_copy(update={"weights": experiment.model.weights})
    asked, chosen = experiment.model.model_dump(mode="json"), resolved.model_dump(mode="json")
    tracking.log_parameters(
        run_id, {f"resolved.model.{key}": str(value) for key, value in chosen.items() if value != asked[key]}
    )
    with watching(run_id, "train") as emit:
        model = _fit(data, policy, local, folder, emit, gpus)
        # the run's curves are the first network's
        others = [
            _fit(draw, policy, local, folder / "draws" / str(number), _without_epochs(emit), gpus)
            for number, draw in enumerate(preparation.draws(experiment.data, data), 1)
        ]
    scores = {name: values for name, values in model.history.items() if name.startswith(("train/", "val/"))}
    best = {f"best/{name}": values[model.best_epoch] for name, values in scores.items()}
    sizes = {"model/parameters": model.parameters, "model/flops": model.flops, "best/epoch": model.best_epoch + 1}
    tracking.log_metrics(run_id, {**best, **sizes})
    tracking.log_file(run_id, model.bundle / "model.json", "model_description")
    tracking.log_tags(run_id, {"device": model.device, "task": model.task})
    run_logger().info(
        f"{model.parameters:,} parameters on {model.device}; best epoch {model.best_epoch + 1} of {model.epochs} "
        f"by {model.monitor}"
    )
    return model.model_copy(update={"others": tuple(others)})


def _fit(
    data: PreparedData, policy: Policy, experiment: Experiment, folder: Path, emit: Emit, gpus: tuple[str, ...]
) -> TrainedModel:
    model: TrainedModel = run_isolated(
        "lightning_modules.training:fit",
        data,
        policy,
        experiment,
        folder,
        on_event=emit,
        processes=experiment.training.devices,
        environment=cuda_environment(gpus),
    )
    return model


def _without_epochs(emit: Emit) -> Emit:
    def on_event(event: Event) -> None:
        if isinstance(event, Progress | Message):
            emit(event)

    return on_event
