"""Stage 1, download: fetch what is missing of a source, and list its images."""

from __future__ import annotations

from recognition import preparation
from recognition.access import Access
from recognition.data_settings import Data
from recognition.records import Located
from recognition.sources import signature
from tasks.kept import kept_stage
from tasks.watching import progress_of, run_logger, watching


def _key(data: Data, access: Access) -> str:
    return f"{data.model_dump_json()} {signature(data, access)}"


@kept_stage("download", _key, talks_to_hosts=True)
def download(run_id: str, fresh: bool, data: Data, access: Access) -> Located:
    """Bring the source's files to this machine.

    Args:
        run_id: the MLflow run.
        fresh: fetch again what is there already.
        data: which images.
        access: what may be read.
    """
    with watching(run_id, "download") as emit:
        located = preparation.locate(data, progress_of(emit, "download"), access=access, fresh=fresh)
    run_logger().info(f"{data.source}: {located.images:,} files in {located.classes} classes")
    return located
