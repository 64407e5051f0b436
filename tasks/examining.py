"""A preflight, wherever it is asked for: by a flow, by the command line before it starts a server, by ``--dry-run``."""

from __future__ import annotations

from pathlib import Path

from recognition import promotion
from recognition.access import UNRESTRICTED, Access
from recognition.defaults import require_fit
from recognition.disk_space import check_disk
from recognition.expectations import expect
from recognition.experiment import Experiment
from recognition.local_models import PREFIX, with_local_models
from recognition.records import Expected, Preflight
from tasks.isolation import run_isolated, start_host


def examine(experiment: Experiment, access: Access = UNRESTRICTED, *, timed: bool = True) -> Preflight:
    """Refuse what cannot work, or may not be read, before anything is fetched; estimate what can.

    Args:
        experiment: what to train and how.
        access: what may be read.
        timed: also estimate the time, and look at the champion; both are for people.

    Raises:
        ConfigurationError, DataError, ModelError: by the setting's name.
        TrackingError: the tracking server does not answer.
    """
    start_host()
    expected = expect(experiment.data, access)
    _check_paths(experiment, access)
    if expected.kind_is_sure:
        require_fit(experiment, expected.kind)
    warnings = check_disk(experiment.data, expected)
    found = _examined(with_local_models(experiment, experiment.task), expected, timed)
    if experiment.registration.enabled:
        promotion.check_name(experiment, found.task)
        found = found.model_copy(update={"model_name": experiment.registered_name(found.task)})
    if timed:
        warnings += promotion.warnings_about(experiment, found.task)
    return found.model_copy(update={"warnings": (*found.warnings, *warnings)})


def _check_paths(experiment: Experiment, access: Access) -> None:
    for path in (experiment.model.weights, experiment.evaluation.judge, experiment.data.frozen_test):
        # neither a run's id nor a registered model is a path
        if ("/" in path or "." in path) and not path.startswith(PREFIX):
            access.check_path(Path(path))


def _examined(local: Experiment, expected: Expected, timed: bool) -> Preflight:
    found: Preflight = run_isolated("lightning_modules.preflight:examine", local, expected, timed)
    return found
