"""What an evaluation is about: a loaded model, the images it is judged on, and where results go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recognition.datasets import PreparedArrays
from recognition.events import Emit
from recognition.experiment import Evaluation
from recognition.records import PreparedData
from recognition.scoring import Scorer


@dataclass(frozen=True)
class Judged:
    """A model and the images it is judged on."""

    scorer: Scorer
    """Loaded from the bundle, with the code in it."""
    data: PreparedData
    arrays: PreparedArrays
    evaluation: Evaluation
    folder: Path
    """Where tables go; it and its ``figures`` are there."""
    emit: Emit
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Metrics of each epoch of the training, where it is known."""

    @property
    def figures(self) -> Path:
        return self.folder / "figures"
