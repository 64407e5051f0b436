"""Compare runs with each other: what was set otherwise, what each scored, which images flipped.

Annotations are evaluated here, as in ``flows/training.py``.
"""

from typing import Annotated

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import Field

from flows.forms import with_form
from flows.identity import prefect_tags, set_up_logs
from recognition import comparison, tracking
from recognition.comparison import Comparison
from recognition.comparison_report import as_markdown, verdict
from tasks.reporting import link_to_mlflow
from tasks.watching import run_logger

set_up_logs()


@flow(name="compare", flow_run_name="compare")
def compare(
    runs: tuple[str, ...] = (),
    model: str = "",
    experiment: str = "",
    newest: Annotated[int, Field(ge=2, le=100)] = 5,
) -> Comparison:
    """Compare finished runs that were scored on the same test images.

    Args:
        runs: Ids of runs, or registered models (models:/name@alias). The first is what the others are held against.
        model: Instead of runs: the name of a registered model, whose newest versions are held against its champion.
        experiment: Instead of runs: an MLflow experiment, whose newest runs are compared. All empty: the usual one.
        newest: How many versions or runs are looked at where none are named.
    """
    found = comparison.find(runs, model, experiment, newest)
    page = as_markdown(found)
    tags = prefect_tags() | {"kind": "comparison", "compared.runs": ",".join(run.run_id for run in found.runs)}
    run_id = tracking.log_comparison(f"comparison of {len(found.runs)} runs", found.as_dict(), page, tags)
    link_to_mlflow(tracking.run_url(run_id))
    create_markdown_artifact(page, key="comparison", description=verdict(found))
    run_logger().info(verdict(found))
    return found


with_form(compare)
