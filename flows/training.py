"""The main job: labelled images in, a scored and registered model out.

Annotations are evaluated here: Prefect loads a triggered flow by its path and finds no module to look names up in.
"""

from prefect import flow
from prefect.runtime import flow_run

from flows.forms import with_form
from flows.identity import access, prefect_tags, set_up_logs
from recognition import tracking
from recognition.defaults import require_fit
from recognition.experiment import Augmentation, Data, Evaluation, Experiment, Model, Registration, Training
from recognition.records import TrainingResult
from tasks.announcing import announce_dataset
from tasks.audit import audit
from tasks.augment import augment
from tasks.download import download
from tasks.evaluate import evaluate
from tasks.preflight import preflight
from tasks.prepare import prepare
from tasks.register import register
from tasks.reporting import failure_shown, link_to_mlflow, report
from tasks.slots import gpu_slot
from tasks.train import fit

set_up_logs()


def _run_name() -> str:
    parameters = flow_run.parameters
    return Experiment(name=parameters["name"], data=parameters["data"]).run_name


@flow(name="train", flow_run_name=_run_name)
def train(
    name: str = "",
    seed: int = 0,
    data: Data = Data(),
    augmentation: Augmentation = Augmentation(),
    model: Model = Model(),
    training: Training = Training(),
    evaluation: Evaluation = Evaluation(),
    registration: Registration = Registration(),
    fresh: bool = False,
) -> TrainingResult:
    """Turn labelled images into a registered model.

    Args:
        name: What people read in Prefect and MLflow. Empty: the data's name.
        seed: Seed of initialisation, shuffling and augmentation.
        data: Which images, how they are split, and the size they are prepared at.
        augmentation: How training images are varied and how all images are normalised.
        model: Which network learns, and with which weights it starts.
        training: How the network learns, for how long and on what.
        evaluation: What is measured on the test images.
        registration: Under which name the model is registered, and when it becomes champion.
        fresh: Download, audit and prepare the images again, even where an earlier run has done it.
    """
    may_read = access()
    experiment = Experiment(
        name=name,
        seed=seed,
        data=data,
        augmentation=augmentation,
        model=model,
        training=training,
        evaluation=evaluation,
        registration=registration,
    )
    with tracking.tracked_run(experiment, prefect_tags()) as run_id, failure_shown(experiment.run_name):
        link_to_mlflow(tracking.run_url(run_id))
        expected = preflight(run_id, experiment, may_read)
        located = download(run_id, fresh, experiment.data, may_read)
        announce_dataset(experiment.data, located, "train")
        require_fit(experiment, located.kind)
        audited = audit(run_id, fresh, experiment.data, located, may_read)
        prepared = prepare(run_id, fresh, experiment.data, audited)
        policy = augment(run_id, prepared, experiment.augmentation, experiment.seed)
        with gpu_slot(run_id, expected.device, expected.devices) as gpus:
            trained = fit(run_id, prepared, policy, experiment, gpus)
            scores = evaluate(run_id, prepared, trained.bundle, experiment, trained, gpus)
        version = register(run_id, experiment, prepared, trained, scores)
        report(experiment, scores, version, run_id)
    return tracking.training_result(run_id, version)


with_form(train)
