"""Stage 4, evaluate: score a model bundle on the test images."""

from __future__ import annotations

from pathlib import Path

from recognition import bundle, few_shot, tracking
from recognition.events import Emit
from recognition.experiment import Experiment
from recognition.families import FAMILIES
from recognition.local_models import with_local_models
from recognition.records import PreparedData, Scores, TrainedModel
from recognition.settings import run_folder
from tasks.isolation import run_isolated
from tasks.slots import cuda_environment
from tasks.stage import stage
from tasks.watching import run_logger, watching

MOST_SHOWN = 4
WITHOUT_GALLERIES = {"mistakes": 0, "explanations": 0}
"""What is not shown of the draws whose networks are not registered."""


@stage("evaluate")
def evaluate(
    run_id: str,
    data: PreparedData,
    model: Path,
    experiment: Experiment,
    trained: TrainedModel | None = None,
    gpus: tuple[str, ...] = (),
) -> Scores:
    """Score the bundle in a folder, the very files that are registered, and record scores, figures and tables.

    ``gpus``: the only ones that the stage's process sees, as `gpu_slot` gives them.
    """
    folder = run_folder(run_id) / "evaluation"
    local = with_local_models(experiment, bundle.describe(model)["task"])
    with watching(run_id, "evaluate") as emit:
        scores = _scores(data, model, local, folder, trained, emit, gpus)
        if trained and trained.others:
            few = local.model_copy(update={"evaluation": local.evaluation.model_copy(update=WITHOUT_GALLERIES)})
            others = [
                _scores(data, one.bundle, few, one.path / "evaluation", one, emit, gpus) for one in trained.others
            ]
            scores = few_shot.over_draws(experiment.data.draw, [scores, *others])
    tracking.log_scores(run_id, scores)
    shown = [name for name in FAMILIES[scores.task].headline if f"test/{name}" in scores.metrics][:MOST_SHOWN]
    run_logger().info("test: " + "  ".join(f"{name} {scores.metrics[f'test/{name}']:.4f}" for name in shown))
    return scores


def _scores(
    data: PreparedData,
    model: Path,
    experiment: Experiment,
    folder: Path,
    trained: TrainedModel | None,
    emit: Emit,
    gpus: tuple[str, ...],
) -> Scores:
    scores: Scores = run_isolated(
        "lightning_modules.evaluation:evaluate",
        data,
        model,
        experiment.evaluation,
        folder,
        trained.history if trained else None,
        trained.best_epoch if trained else None,
        experiment.training.accelerator,
        on_event=emit,
        environment=cuda_environment(gpus),
    )
    baselines = {f"test/{name}": value for name, value in trained.baselines.items()} if trained else {}
    return scores.model_copy(update={"metrics": scores.metrics | baselines})
