"""Stage 5, register: a version in the model registry, its aliases by the promotion rule."""

from __future__ import annotations

from recognition import registry, tracking
from recognition.experiment import Experiment
from recognition.records import PreparedData, Scores, TrainedModel, Version
from recognition.settings import run_folder
from tasks.announcing import announce_champion
from tasks.stage import stage
from tasks.watching import run_logger


@stage("register")
def register(
    run_id: str, experiment: Experiment, data: PreparedData, model: TrainedModel, scores: Scores
) -> Version | None:
    """Register the model, or, with ``registration.enabled`` off, leave the registry alone."""
    if not experiment.registration.enabled:
        run_logger().info("not registered: registration.enabled is off")
        return None
    former = registry.champion_of(experiment.registered_name(model.task))
    version = registry.register(run_id, experiment, data, model, scores, run_folder(run_id))
    tracking.log_tags(
        run_id,
        {"model.name": version.name, "model.version": version.version, "model.aliases": ", ".join(version.aliases)},
    )
    run_logger().info(f"{version.uri} is {' and '.join(version.aliases)} ({version.verdict})")
    if registry.CHAMPION in version.aliases:
        metric = experiment.promotion_metric(model.task)
        announce_champion(run_id, version, metric, scores.metrics[f"test/{metric}"], former)
    return version
