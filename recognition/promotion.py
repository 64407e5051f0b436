"""Whether a new version can be registered and become champion, asked before it is trained."""

from __future__ import annotations

import posixpath
from pathlib import Path

from recognition import registry, tracking
from recognition.configuration import build_experiment
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, ModelError, RecognitionError, TrackingError
from recognition.experiment import Experiment
from recognition.families import Task, is_better_when_lower
from recognition.settings import tracking_uri

LONGEST_NAME = 250
"""Characters that every store keeps of a name."""
_SHARES = frozenset({"mse", "psnr", "frechet_distance"})
"""Scores that may lie above 1."""
_OF_THE_TEST = ("source", "test_fraction", "split_seed", "frozen_test", "group_column", "group_pattern", "split_column")


def check_name(experiment: Experiment, task: Task) -> None:
    """Refuse a name that a registry would refuse when training is over.

    Raises:
        ConfigurationError: it would.
    """
    name = experiment.registered_name(task)
    normal = posixpath.normpath(name)
    if name.strip() and normal == name and not normal.startswith(".") and len(name) <= LONGEST_NAME:
        return
    where = "" if experiment.registration.model_name else f", made of data.source={experiment.data.source},"
    raise ConfigurationError(
        f"registration.model_name: {name[:80]!r}{where} is no name for a registered model: give one of 1 to "
        f"{LONGEST_NAME} characters that does not begin with a dot."
    )


def warnings_about(experiment: Experiment, task: Task) -> list[str]:
    """What may keep a new version from becoming champion, or make it champion though it is worse.

    Raises:
        TrackingError: the tracking server does not answer.
    """
    if not experiment.registration.enabled:
        return []
    return [*_about_gain(experiment, task), *_about_champion(experiment, task)]


def _about_gain(experiment: Experiment, task: Task) -> list[str]:
    gain, metric = experiment.registration.minimum_gain, experiment.promotion_metric(task)
    if gain < 0:
        return [f"registration.minimum_gain={gain:g}: a model with a worse {metric} becomes champion too."]
    if gain >= 1 and metric not in _SHARES:
        return [f"registration.minimum_gain={gain:g}: {metric} is at most 1, so that no later model becomes champion."]
    return []


def _about_champion(experiment: Experiment, task: Task) -> list[str]:
    if not _store_is_there():
        return []
    name = f"models:/{experiment.registered_name(task)}@{registry.CHAMPION}"
    try:
        run = registry.run_of(name)
    except TrackingError:
        raise
    except ModelError:
        return []
    metric = experiment.promotion_metric(task)
    if f"test/{metric}" not in tracking.find_run(run).data.metrics:
        return [f"registration.metric={metric}: the champion was not scored by it, so that any new model beats it."]
    try:
        theirs = build_experiment(tracking.experiment_of(run))
    except RecognitionError:
        return []  # a champion that was made in another way
    unlike = _unlike(experiment.data, theirs.data)
    if not unlike:
        return []
    said = ", ".join(f"data.{key}={getattr(theirs.data, key)}" for key in unlike)
    better = "lower" if is_better_when_lower(metric) else "higher"
    return [
        f"registration: {name} was scored on test images of {said}; on others a {better} {metric} makes no champion. "
        "Keep these settings, or give another registration.model_name."
    ]


def _unlike(ours: Data, theirs: Data) -> list[str]:
    """The settings that choose other test images."""
    if ours.frozen_test:
        return []  # whose images they are is not known here
    return [key for key in _OF_THE_TEST if getattr(ours, key) != getattr(theirs, key)]


def _store_is_there() -> bool:
    """Whether there is a store to ask; asking would make a file that is not there."""
    kind, separator, path = tracking_uri().partition(":///")
    return not (separator and kind.startswith("sqlite")) or Path(path).is_file()
