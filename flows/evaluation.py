"""Score a model again, on the test images of the run that made it.

Annotations are evaluated here, as in ``flows/training.py``.
"""

from prefect import flow

from flows.forms import with_form
from flows.identity import access, prefect_tags, set_up_logs
from recognition import registry, tracking
from recognition.configuration import build_experiment
from recognition.experiment import Evaluation
from recognition.records import EvaluationResult
from tasks.audit import audit
from tasks.download import download
from tasks.evaluate import evaluate as score
from tasks.isolation import start_host
from tasks.preflight import preflight_of_model
from tasks.prepare import prepare, record
from tasks.reporting import failure_shown, link_to_mlflow, report
from tasks.slots import gpu_slot

set_up_logs()


@flow(name="evaluate", flow_run_name="evaluate {model}")
def evaluate(model: str, evaluation: Evaluation = Evaluation()) -> EvaluationResult:
    """Score a registered model or a run's model on its test images.

    Args:
        model: models:/name@alias, models:/name/version, a registered name (its champion), or a run's id.
        evaluation: What is measured on the test images; what is left alone is as the model's run had it.
    """
    start_host()
    may_read = access()
    source_run = registry.run_of(model)
    bundle = registry.fetch_bundle(model)
    made_with = build_experiment(tracking.experiment_of(source_run))
    # what is not asked for stays as the run had it, so that scores can be compared
    asked = {name: getattr(evaluation, name) for name in evaluation.model_fields_set}
    again = made_with.evaluation.model_copy(update=asked)
    experiment = made_with.model_copy(update={"evaluation": again, "name": f"evaluate {made_with.run_name}"})
    tags = {"evaluated.model": model, "evaluated.run_id": source_run}
    with tracking.tracked_run(experiment, prefect_tags() | tags) as run_id, failure_shown(experiment.run_name):
        link_to_mlflow(tracking.run_url(run_id))
        prepared = tracking.data_of(source_run)
        expected = preflight_of_model(run_id, experiment, bundle, prepared, may_read)
        if prepared is not None:
            # the very same images, also when the source has changed since
            record(run_id, prepared)
        else:
            located = download(run_id, False, experiment.data, may_read)
            audited = audit(run_id, False, experiment.data, located, may_read)
            prepared = prepare(run_id, False, experiment.data, audited)
        with gpu_slot(run_id, expected.device, 1) as gpus:
            scores = score(run_id, prepared, bundle, experiment, gpus=gpus)
        report(experiment, scores, None, run_id)
    return tracking.evaluation_result(run_id, model, source_run, scores)


with_form(evaluate)
