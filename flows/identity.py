"""Who a flow run is, for the MLflow run that belongs to it, and how its failures are shown."""

from __future__ import annotations

import logging

from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_UI_URL

from recognition.access import UNRESTRICTED, Access, worker_access
from recognition.errors import RecognitionError

UI_OF_A_LOCAL_SERVER = "http://127.0.0.1:4200/v2"
"""Where the newer pages of ``prefect server start`` lie, which show the runs of temporary servers too."""


def prefect_tags() -> dict[str, str]:
    """The tags that lead from an MLflow run to its Prefect run; empty outside a flow run."""
    if not flow_run.id:
        return {}
    base = str(PREFECT_UI_URL.value() or UI_OF_A_LOCAL_SERVER)
    tags = {
        "prefect.flow_run_id": str(flow_run.id),
        "prefect.flow_run_name": str(flow_run.name),
        "prefect.flow_run_url": f"{base.rstrip('/')}/runs/flow-run/{flow_run.id}",
    }
    if deployment.name:
        tags["prefect.deployment"] = str(deployment.name)
    return tags


def access() -> Access:
    """What this run may read: on a worker what its operator allows, from a command line or a notebook everything."""
    return worker_access() if deployment.id else UNRESTRICTED


class _NoTracebackForMistakes(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], RecognitionError):
            record.msg, record.args = str(record.exc_info[1]), ()
            record.exc_info = record.exc_text = None
        return True


def set_up_logs() -> None:
    """Let the domain's own messages through, and log a user's mistake as its message: tracebacks are for defects."""
    logging.getLogger("recognition").setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_NoTracebackForMistakes())
