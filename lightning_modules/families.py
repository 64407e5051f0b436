"""For each task what learns and what scores it: one entry a task in each registry."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl

from lightning_modules import autoencoding, classification, detection, generation, segmentation
from lightning_modules.evaluations import autoencoding as autoencoding_evaluation
from lightning_modules.evaluations import classification as classification_evaluation
from lightning_modules.evaluations import detection as detection_evaluation
from lightning_modules.evaluations import generation as generation_evaluation
from lightning_modules.evaluations import segmentation as segmentation_evaluation
from lightning_modules.evaluations.judged import Judged
from lightning_modules.setup import Setup
from recognition.families import Task

BUILDERS: dict[Task, Callable[[Setup], pl.LightningModule]] = {
    "classification": classification.build,
    "autoencoding": autoencoding.build,
    "generation": generation.build,
    "detection": detection.build,
    "segmentation": segmentation.build,
    "instance_segmentation": detection.build,
}
"""The LightningModule of an experiment. It keeps what is saved as ``network``, and logs once an epoch, from
``on_validation_epoch_end``, ``train/loss``, ``val/...`` and the score that is monitored."""

EVALUATORS: dict[Task, Callable[[Judged], dict[str, float]]] = {
    "classification": classification_evaluation.evaluate,
    "autoencoding": autoencoding_evaluation.evaluate,
    "generation": generation_evaluation.evaluate,
    "detection": detection_evaluation.evaluate,
    "segmentation": segmentation_evaluation.evaluate,
    "instance_segmentation": detection_evaluation.evaluate,
}
"""Scores of a bundle on the test images; tables go to ``folder``, figures to ``folder / "figures"``."""
