"""Who a flow run is, for the MLflow run that belongs to it, and how its failures are shown."""

from __future__ import annotations

import logging
import os

from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_UI_URL

from recognition.errors import RecognitionError, TrackingError

UI_OF_A_LOCAL_SERVER = "http://127.0.0.1:4200"


def prefect_tags() -> dict[str, str]:
    """The tags that lead from an MLflow run to its Prefect run; empty outside a flow run.

    With the temporary server the address is the one that ``prefect server start`` answers at.
    """
    if not flow_run.id:
        return {}
    base = (
        str(PREFECT_UI_URL.value() or UI_OF_A_LOCAL_SERVER)
        if os.environ.get("PREFECT_API_URL")
        else UI_OF_A_LOCAL_SERVER
    )
    tags = {
        "prefect.flow_run_id": str(flow_run.id),
        "prefect.flow_run_name": str(flow_run.name),
        "prefect.flow_run_url": f"{base.rstrip('/')}/runs/flow-run/{flow_run.id}",
    }
    if deployment.name:
        tags["prefect.deployment"] = str(deployment.name)
    return tags


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


def check_server() -> None:
    """Refuse to start against a Prefect server that does not answer; without one, a temporary server is started.

    Raises:
        TrackingError: the configured server does not answer within 5 seconds.
    """
    import requests
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return
    try:
        requests.get(f"{url.rstrip('/')}/health", timeout=5).raise_for_status()
    except requests.RequestException as error:
        raise TrackingError(
            f"The Prefect server {url} does not answer ({type(error).__name__}). Start it with `prefect server start`, "
            "or unset PREFECT_API_URL for a temporary one."
        ) from None
