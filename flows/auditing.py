"""Look at images before a network learns them, as a run of its own.

Annotations are evaluated here, as in ``flows/training.py``.
"""

from prefect import flow
from prefect.runtime import flow_run

from flows.forms import with_form
from flows.identity import access, prefect_tags, set_up_logs
from recognition import tracking
from recognition.experiment import Data, Experiment
from recognition.records import AuditedData
from tasks.announcing import announce_dataset
from tasks.audit import audit as examine
from tasks.audit import check_labels
from tasks.download import download
from tasks.preflight import preflight_of_source
from tasks.reporting import link_to_mlflow

set_up_logs()


def _run_name() -> str:
    return f"audit {Experiment(data=flow_run.parameters['data']).data_name}"


@flow(name="audit", flow_run_name=_run_name)
def audit(data: Data = Data(), model: str = "", fresh: bool = False) -> AuditedData:
    """Find what is wrong with images: damaged files, copies, leaks between splits, odd images, wrong labels.

    Args:
        data: Which images, what is done about what is wrong with them, and how they are split.
        model: Also look for wrong labels with this registered model (models:/name@champion) or run, on the images that
            it was not trained on. Empty: labels are not judged.
        fresh: Download and audit the images again, even where an earlier run has done it.
    """
    may_read = access()
    experiment = Experiment(data=data)
    experiment = experiment.model_copy(update={"name": f"audit {experiment.data_name}"})
    with tracking.tracked_run(experiment, prefect_tags() | {"audited.source": data.source}) as run_id:
        link_to_mlflow(tracking.run_url(run_id))
        preflight_of_source(run_id, data, may_read)
        located = download(run_id, fresh, data, may_read)
        announce_dataset(data, located, "audit")
        audited = examine(run_id, fresh, data, located, may_read)
        if model:
            audited = check_labels(run_id, data, located, audited, model, may_read)
    return audited


with_form(audit)
