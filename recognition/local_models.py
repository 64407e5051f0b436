"""Registered models that an experiment builds on, brought to this machine before a stage without MLflow needs them."""

from __future__ import annotations

from pathlib import Path

from recognition import bundle, registry
from recognition.errors import ModelError
from recognition.experiment import Experiment, Model
from recognition.families import ENCODERS, Task

PREFIX = "models:/"


def with_local_models(experiment: Experiment, task: Task | None) -> Experiment:
    """The experiment with ``model.weights`` and ``evaluation.judge`` as folders of this machine.

    What an ``encoder`` leaves open of its sizes is its autoencoder's.

    Args:
        experiment: the settings.
        task: what is learned; none: not known yet.

    Raises:
        ModelError: there is no such registered model.
    """
    model, evaluation = experiment.model, experiment.evaluation
    if model.weights.startswith(PREFIX):
        folder = registry.fetch_bundle(model.weights)
        model = _of_one_size(model, folder).model_copy(update={"weights": str(folder)})
    if task == "generation" or evaluation.judge:
        judge = evaluation.judge or f"{PREFIX}{experiment.data_name}@{registry.CHAMPION}"
        try:
            found = registry.fetch_bundle(judge)
        except ModelError as error:
            raise ModelError(
                f"evaluation.judge: {error} What a generator makes is judged by a registered classifier of the same "
                "images: train one first, or name it."
            ) from error
        evaluation = evaluation.model_copy(update={"judge": str(found)})
    return experiment.model_copy(update={"model": model, "evaluation": evaluation})


def _of_one_size(model: Model, folder: Path) -> Model:
    """The section with the channels and the code of the autoencoder in a folder, where it names none."""
    architecture = bundle.describe(folder)["architecture"]
    if model.network != "encoder" or architecture["network"] not in ENCODERS:
        return model
    channels = model.channels or tuple(architecture["channels"])
    return model.model_copy(update={"channels": channels, "code": model.code or architecture["code"]})
