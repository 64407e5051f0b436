"""Keeping the house in order: end in MLflow and Prefect what was left behind by killed processes.

Annotations are evaluated here, as in ``flows/training.py``.
"""

from prefect import flow

from flows.forms import with_form
from flows.identity import set_up_logs
from recognition.left_behind import Ending
from tasks.maintenance import end_left_behind, find_left_behind, report

set_up_logs()


@flow(name="maintain", flow_run_name="maintain")
def maintain(dry_run: bool = False) -> list[Ending]:
    """End runs that MLflow shows as running although their process or their Prefect run has ended.

    Args:
        dry_run: Only say what would be ended.
    """
    endings = find_left_behind()
    if not dry_run:
        endings = end_left_behind(endings)
    report(endings, dry_run)
    return endings


with_form(maintain)
