"""The small frozen records that travel between stages: paths, digests, names and numbers, never models or images."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """A frozen record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Record):
    """Something about the data that its owner should know, with the files it concerns."""

    kind: str
    message: str
    files: tuple[str, ...] = ()


class PreparedData(Record):
    """A data set, decoded once: a folder of memory-mapped arrays and what they hold."""

    path: Path
    digest: str
    test_digest: str
    source: str
    class_names: tuple[str, ...]
    height: int
    width: int
    channels: int
    counts: dict[str, int]
    class_counts: dict[str, dict[str, int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class Policy(Record):
    """A checked augmentation policy."""

    path: Path
    preview: Path
    name: str
    transforms: tuple[str, ...]


class TrainedModel(Record):
    """What training leaves: the folder of the run, the model bundle in it and how training went."""

    path: Path
    bundle: Path
    best_epoch: int
    epochs: int
    device: str
    parameters: int
    flops: int
    history: dict[str, list[float]] = Field(default_factory=dict)


class Scores(Record):
    """Scores of a model on test images, and the folder of figures and tables."""

    path: Path
    test_digest: str
    metrics: dict[str, float]


class Version(Record):
    """A version in the model registry."""

    name: str
    version: str
    aliases: tuple[str, ...]
    verdict: str
    uri: str


class TrainingResult(Record):
    """What a training run ends with."""

    run_id: str
    run_url: str
    flow_run_id: str
    metrics: dict[str, float]
    model: Version | None
    seconds: dict[str, float]


class EvaluationResult(Record):
    """What scoring a model again ends with."""

    run_id: str
    run_url: str
    model: str
    evaluated_run_id: str
    test_digest: str
    metrics: dict[str, float]
    largest_difference: float = Field(description="Largest absolute difference to the scores of the model's own run.")
