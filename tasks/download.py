"""Stage 1, download: fetch the images, decode them once, split them."""

from __future__ import annotations

from recognition import preparation, tracking
from recognition.events import Progress
from recognition.experiment import Data
from recognition.records import PreparedData
from tasks.stage import stage
from tasks.watching import run_logger, watching


@stage("download")
def download(run_id: str, data: Data, known: PreparedData | None = None) -> PreparedData:
    """Prepare the images, or find them prepared, and record them as the run's inputs.

    Args:
        run_id: the MLflow run.
        data: which images.
        known: the very images to use, prepared earlier.
    """
    with watching(run_id, "download") as emit:
        prepared = known or preparation.prepare(
            data, lambda done, total, what: emit(Progress("download", done, total, "", what))
        )
    tracking.log_data(run_id, prepared)
    logger = run_logger()
    counts = ", ".join(f"{count} {split}" for split, count in prepared.counts.items())
    size = f"{prepared.height}x{prepared.width}x{prepared.channels}"
    logger.info(f"{prepared.source}: {counts} images of {size} in {prepared.num_classes} classes")
    for finding in prepared.findings:
        logger.warning(finding.message)
    return prepared
