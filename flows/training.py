"""The main job: labelled images in, a scored and registered model out.

Annotations are evaluated here: Prefect loads a triggered flow by its path and finds no module to look names up in.
"""

from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.identity import access, prefect_tags, set_up_logs
from recognition import tracking
from recognition.access import UNRESTRICTED, Access
from recognition.defaults import require_fit
from recognition.experiment import Augmentation, Data, Evaluation, Experiment, Model, Registration, Training
from recognition.local_models import PREFIX, with_local_models
from recognition.records import TrainingResult
from recognition.sources import check_source
from tasks.audit import audit
from tasks.augment import augment
from tasks.download import download
from tasks.evaluate import evaluate
from tasks.isolation import run_isolated, start_host
from tasks.prepare import prepare
from tasks.register import register
from tasks.reporting import link_to_mlflow, report
from tasks.train import fit

set_up_logs()


def check(experiment: Experiment, access: Access = UNRESTRICTED) -> None:
    """Refuse what cannot work, or may not be read, before anything is fetched.

    Raises:
        ConfigurationError, DataError, ModelError: by the setting's name.
    """
    start_host()
    check_source(experiment.data, access)
    for path in (experiment.model.weights, experiment.evaluation.judge, experiment.data.frozen_test):
        # neither a run's id nor a registered model is a path
        if ("/" in path or "." in path) and not path.startswith(PREFIX):
            access.check_path(Path(path))
    with_local_models(experiment, experiment.task)
    run_isolated("lightning_modules.training:check", experiment)


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
    with tracking.tracked_run(experiment, prefect_tags()) as run_id:
        check(experiment, may_read)
        link_to_mlflow(tracking.run_url(run_id))
        located = download(run_id, fresh, experiment.data, may_read)
        require_fit(experiment, located.kind)
        audited = audit(run_id, fresh, experiment.data, located, may_read)
        prepared = prepare(run_id, fresh, experiment.data, audited)
        policy = augment(run_id, prepared, experiment.augmentation, experiment.seed)
        trained = fit(run_id, prepared, policy, experiment)
        scores = evaluate(run_id, prepared, trained.bundle, experiment, trained)
        version = register(run_id, experiment, prepared, trained, scores)
        report(experiment.run_name, scores, version, tracking.run_url(run_id))
    return tracking.training_result(run_id, version)
