"""The small frozen records that travel between stages: paths, digests, names and numbers, never models or images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from recognition.families import Kind, Task


class Record(BaseModel):
    """A frozen record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Record):
    """Something about the data that its owner should know, with the files it concerns."""

    kind: str
    """The name of its policy in ``data.audit``, or another word for what has no policy."""
    message: str
    files: tuple[str, ...] = ()
    """The first hundred at most; files that belong together (copies) follow each other."""
    count: int = 0
    """How many images, or groups of copies, it is about."""
    policy: Literal["fail", "move", "quarantine", "warn"] = "warn"
    """What is done about it."""
    groups: tuple[tuple[str, ...], ...] = ()
    """For copies, the first groups by name: each a tuple of files."""


class Located(Record):
    """A source that is there: everything fetched, every image listed."""

    source: str
    fingerprint: str
    """Changes whenever the content does; independent of where the source lies."""
    images: int
    classes: int
    kind: Kind = "classes"
    """What the source says of its images."""

    def is_whole(self) -> bool:
        """Always: what has been removed since is fetched again when it is needed."""
        return True


class AuditedData(Record):
    """A source whose images were decoded once, looked at and split: where the report, the table and the store lie."""

    path: Path
    """The folder of report.html, audit.json, report.md and samples.parquet."""
    store: Path
    """The folder of the decoded images."""
    source: str
    class_names: tuple[str, ...]
    kind: Kind = "classes"
    images: int
    left_out: int
    findings: tuple[Finding, ...]
    failed: str = ""
    """Why the data cannot be used, by the policies of ``data.audit``; empty when they can."""

    def is_whole(self) -> bool:
        """Whether the folders are still there."""
        return (self.path / "samples.parquet").is_file() and (self.store / "store.json").is_file()


class PreparedData(Record):
    """A data set, decoded once: a folder of memory-mapped arrays and what they hold."""

    path: Path
    images: Path
    """The store of decoded images, which data sets with other splits share."""
    digest: str
    """Of all images in use and their labels, independent of names, folders and order."""
    test_digest: str
    source: str
    kind: Kind = "classes"
    """What is known of each image."""
    class_names: tuple[str, ...]
    """Of images, or with another kind of objects."""
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

    def is_whole(self) -> bool:
        """Whether the folders are still there."""
        return (self.path / "dataset.json").is_file() and (self.images / "store.json").is_file()


class Expected(Record):
    """What is known of a source's images before anything is fetched."""

    source: str
    known: str
    """How: ``data set`` (a named one), ``earlier run``, ``looked at N files``, or ``assumed``."""
    kind_is_sure: bool
    """Whether kind and classes are facts, so that what does not fit them is refused."""
    size_is_sure: bool
    """Whether height, width and channels are facts too."""
    kind: Kind = "classes"
    classes: int
    class_names: tuple[str, ...] = ()
    """Empty where only their number is known, or assumed."""
    images: int
    train_images: int
    val_images: int
    height: int
    width: int
    channels: int


class Preflight(Record):
    """What a run will be, as far as it can be told before anything is fetched and without a GPU."""

    device: Literal["cpu", "cuda", "mps"]
    devices: int
    task: Task
    network: str
    data: Expected
    model_name: str = ""
    """Under which the model will be registered; empty: it will not be."""
    policy: str = ""
    """The name of the augmentation policy."""
    parameters: int = 0
    """0: the network could not be built for images as they are assumed; a warning says why."""
    flops: int = 0
    """Of one image's forward pass; a multiplication and an addition are two."""
    memory_mb: dict[str, float] = Field(default_factory=dict)
    """Of one device (on a CPU of the machine), by part, in 10^6 bytes."""
    total_mb: float = 0.0
    """Memory of one device; 0: not known."""
    free_mb: float = 0.0
    store_mb: float = 0.0
    """Prepared images on the disk."""
    seconds: float = 0.0
    """Of the stage train; 0: not estimated."""
    rate: float = 0.0
    """Floating-point operations a second that ``seconds`` counts on."""
    rate_from: str = ""
    """Where ``rate`` comes from."""
    warnings: tuple[str, ...] = ()

    @property
    def needed_mb(self) -> float:
        """Memory of one device, all parts."""
        return sum(self.memory_mb.values())


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
    task: Task = "classification"
    monitor: str = "val/loss"
    best_epoch: int
    epochs: int
    device: str
    parameters: int
    flops: int
    history: dict[str, list[float]] = Field(default_factory=dict)
    baselines: dict[str, float] = Field(default_factory=dict)
    """Test scores of the frozen start weights, where ``evaluation.probe`` asked for them."""
    others: tuple[TrainedModel, ...] = ()
    """The networks of the other draws of ``data.draws``, in order."""


class Scores(Record):
    """Scores of a model on test images, and the folder of figures and tables."""

    path: Path
    task: Task = "classification"
    test_digest: str
    """Of the test images, and of the judge where there is one: what two scores must share to be compared."""
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
    task: Task = "classification"
    metrics: dict[str, float]
    model: Version | None
    seconds: dict[str, float]


class EvaluationResult(Record):
    """What scoring a model again ends with."""

    run_id: str
    run_url: str
    model: str
    evaluated_run_id: str
    task: Task = "classification"
    test_digest: str
    metrics: dict[str, float]
    largest_difference: float = Field(description="Largest absolute difference to the scores of the model's own run.")
