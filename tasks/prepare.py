"""Stage 3, prepare: the splits of the audited images, and what training wants to know of them."""

from __future__ import annotations

from recognition import preparation, tracking
from recognition.data_settings import Data
from recognition.families import KINDS
from recognition.records import AuditedData, PreparedData
from tasks.kept import kept_stage
from tasks.watching import run_logger


def _key(data: Data, audited: AuditedData) -> str:
    return f"{data.source} {data.per_class} {data.draw} {audited.path}"


@kept_stage("prepare", _key)
def _prepare(run_id: str, fresh: bool, data: Data, audited: AuditedData) -> PreparedData:
    return preparation.arrange(data, audited, fresh=fresh)


def prepare(run_id: str, fresh: bool, data: Data, audited: AuditedData) -> PreparedData:
    """Prepare the images, or find them prepared, and record them as the run's inputs."""
    prepared = _prepare(run_id, fresh, data, audited)
    record(run_id, prepared)
    return prepared


def record(run_id: str, prepared: PreparedData) -> None:
    """Record prepared images as the inputs of a run."""
    tracking.log_data(run_id, prepared)
    counts = ", ".join(f"{count} {split}" for split, count in prepared.counts.items())
    size = f"{prepared.height}x{prepared.width}x{prepared.channels}"
    classes = f"{prepared.num_classes} class{'es' if prepared.num_classes > 1 else ''}"
    what = f"in {classes}" if prepared.kind == "classes" else f"with {KINDS[prepared.kind]} of {classes}"
    run_logger().info(f"{prepared.source}: {counts} images of {size} {what}")
