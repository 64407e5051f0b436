"""Stage 4, evaluate: score a model bundle on the test images."""

from __future__ import annotations

from pathlib import Path

from recognition import tracking
from recognition.experiment import Evaluation
from recognition.records import PreparedData, Scores, TrainedModel
from recognition.settings import run_folder
from tasks.isolation import run_isolated
from tasks.stage import stage
from tasks.watching import run_logger, watching


@stage("evaluate")
def evaluate(
    run_id: str,
    data: PreparedData,
    bundle: Path,
    evaluation: Evaluation,
    accelerator: str,
    trained: TrainedModel | None = None,
) -> Scores:
    """Score the bundle, the very files that are registered, and record scores, figures and tables."""
    folder = run_folder(run_id) / "evaluation"
    with watching(run_id, "evaluate") as emit:
        scores: Scores = run_isolated(
            "lightning_modules.evaluation:evaluate",
            data,
            bundle,
            evaluation,
            folder,
            trained.history if trained else None,
            trained.best_epoch if trained else None,
            accelerator,
            on_event=emit,
        )
    tracking.log_scores(run_id, scores)
    shown = ("accuracy", "precision_macro", "recall_macro", "f1_macro")
    run_logger().info("test: " + "  ".join(f"{name} {scores.metrics[f'test/{name}']:.4f}" for name in shown))
    return scores
