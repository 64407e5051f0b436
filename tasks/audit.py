"""Stage 2, audit: decode every image once, find what is wrong with the images, decide what is used, and split it."""

from __future__ import annotations

import logging

from prefect import task

from recognition import preparation, tracking
from recognition.access import Access
from recognition.data_settings import Data
from recognition.records import AuditedData, Located
from recognition.sources import signature
from tasks.kept import kept_stage
from tasks.reporting import audit_artifact
from tasks.watching import progress_of, run_logger, watching


def _key(data: Data, located: Located, access: Access) -> str:
    frozen = signature(Data(source=data.frozen_test), access) if data.frozen_test.endswith(".parquet") else ""
    return f"{data.model_dump_json()} {located.fingerprint} {frozen}"


@kept_stage("audit", _key)
def _audit(run_id: str, fresh: bool, data: Data, located: Located, access: Access) -> AuditedData:
    with watching(run_id, "audit") as emit:
        return preparation.examine(data, located, progress_of(emit, "audit"), access=access, fresh=fresh)


def audit(run_id: str, fresh: bool, data: Data, located: Located, access: Access) -> AuditedData:
    """Audit the images, show the report in Prefect and in the run, and stop where a policy says so.

    Raises:
        AuditError: a finding whose policy is ``fail``; the report is there all the same.
    """
    audited = _audit(run_id, fresh, data, located, access)
    _show(run_id, audited)
    preparation.require_usable(audited)
    return audited


@task(name="labels", task_run_name="labels")
def check_labels(
    run_id: str, data: Data, located: Located, audited: AuditedData, model: str, access: Access
) -> AuditedData:
    """Look for likely wrong labels besides, with a registered model, and show the report again with them.

    Raises:
        DataError: the model knows other classes, or was trained on all the images.
        ModelError, TrackingError: there is no such model.
    """
    # torch, which most runs of the flow's process do without
    from recognition.label_check import with_wrong_labels

    with watching(run_id, "labels") as emit:
        judged = with_wrong_labels(data, located, audited, model, progress_of(emit, "labels"), access)
    _show(run_id, judged)
    return judged


def _show(run_id: str, audited: AuditedData) -> None:
    """The report in MLflow and on the run's page, and each finding in the log."""
    tracking.log_audit(run_id, audited)
    audit_artifact(audited)
    logger = run_logger()
    found = f"{len(audited.findings)} findings" if audited.findings else "nothing wrong was found"
    logger.info(f"{audited.source}: {found} among {audited.images:,} images, {audited.left_out:,} left out")
    for finding in audited.findings:
        logger.log(logging.INFO if finding.policy == "move" else logging.WARNING, finding.message)
