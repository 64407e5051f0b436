"""Runs beside each other: what was set otherwise, what each scored on the same test images, which images flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from recognition import finished_runs, registry, tracking
from recognition.errors import ComparisonError
from recognition.families import FAMILIES, Task, is_better_when_lower
from recognition.finished_runs import PREDICTIONS, FinishedRun
from recognition.records import Record

LISTED = 100
"""Flipped images that are named, of each kind."""
CLASS_SCORES: dict[Task, str] = {
    "classification": "f1",
    "detection": "ap",
    "segmentation": "dice",
    "instance_segmentation": "mask_ap",
}
"""The score whose change is told class by class, of the tasks that have one."""
COSTS = ("best/epoch", "model/parameters", "model/flops", "seconds/train")
CIRCUMSTANCES = ("data.digest", "device", "git.commit")
"""Tags of a run that are no settings and may decide about a score."""


class ComparedRun(Record):
    """One of the runs, and the version in the registry that it made."""

    run_id: str
    name: str
    url: str
    model: str = ""
    """models:/name/version; empty where nothing was registered."""
    aliases: tuple[str, ...] = ()


class ScoreDifference(Record):
    """How much a score is higher in a later run than in an earlier one."""

    estimate: float


class Flips(Record):
    """Test images whose answer became wrong or right from one run to another."""

    right_to_wrong: int
    wrong_to_right: int
    files_right_to_wrong: tuple[str, ...] = ()
    """The first hundred, by name."""
    files_wrong_to_right: tuple[str, ...] = ()


class Pair(Record):
    """What changed from the first run to another one."""

    before: str
    after: str
    """Ids of runs."""
    differences: dict[str, ScoreDifference]
    """By test score, named without ``test/``."""
    classes: dict[str, ScoreDifference]
    """By class, of ``class_score``."""
    flips: Flips | None
    """None for tasks whose answers are not right or wrong, and where the files have other names."""


class Comparison(Record):
    """Two runs or more of one task, scored on the same test images. The first is what the others are held against."""

    task: Task
    test_digest: str
    test_images: int
    runs: tuple[ComparedRun, ...]
    settings: dict[str, dict[str, str]]
    """What is not the same in all runs: by setting, then by run id; ``auto`` is told as what was chosen."""
    scores: dict[str, dict[str, float]]
    """Main test scores without ``test/``, the deciding one first; then by run id."""
    costs: dict[str, dict[str, float]]
    """Best epoch, size and seconds, then by run id."""
    best: dict[str, tuple[str, ...]]
    """Ids of the runs with the best value of each score; several where they are equal."""
    class_score: str = ""
    """Which score ``classes`` tells; empty for tasks that have none."""
    pairs: tuple[Pair, ...]
    """The first run with each of the others, in order."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Runs that were found but cannot be compared with these, by id: why."""

    @property
    def metric(self) -> str:
        """The score that decides."""
        return next(iter(self.scores))

    @property
    def winners(self) -> tuple[ComparedRun, ...]:
        """The best run by the deciding score; several where they are equal."""
        return tuple(run for run in self.runs if run.run_id in self.best[self.metric])

    def as_dict(self) -> dict[str, Any]:
        """Plain content for JSON; ``differences`` and ``flips`` are those of the first two runs."""
        content = self.model_dump(mode="json")
        first = content["pairs"][0]
        return {**content, "differences": first["differences"], "flips": first["flips"]}


def find(runs: Sequence[str], model: str, experiment: str, newest: int) -> Comparison:
    """Compare the runs that are named, or those of a registered model, or the newest of an MLflow experiment.

    Args:
        runs: as `compare` takes them.
        model: as `compare_versions` takes it; empty: none.
        experiment: as `compare_newest` takes it.
        newest: how many are looked at where runs are not named.

    Raises:
        ComparisonError: more than one of them is given, or as those functions say.
        ModelError, TrackingError: as those functions say.
    """
    if sum(map(bool, (runs, model, experiment))) > 1:
        raise ComparisonError("Name runs, or a model, or an experiment: one of them.")
    if newest < 2:
        raise ComparisonError(f"newest is {newest}: a comparison wants 2 at least.")
    if runs:
        return compare(runs)
    return compare_versions(model, newest) if model else compare_newest(experiment, newest)


def compare(run_ids: Sequence[str]) -> Comparison:
    """Compare finished runs; the first is what the others are held against.

    Args:
        run_ids: two at least; a registered model (models:/name@alias, models:/name/1, name) stands for its run.

    Raises:
        ComparisonError: fewer than two runs, one that is not finished, has no scores or no predictions, is of another
            task, or was scored on other test images.
        ModelError, TrackingError: there is no such run or model.
    """
    ids = list(dict.fromkeys(registry.run_of(word) for word in run_ids))
    if len(ids) < 2:
        raise ComparisonError(f"Only {len(ids)} run{'' if len(ids) == 1 else 's'} to compare: name two different ones.")
    runs = [_comparable(finished_runs.finished_run(run_id)) for run_id in ids]
    first = runs[0]
    for run in runs[1:]:
        reason = _mismatch(first, run)
        if reason:
            raise ComparisonError(f"{_named(run)} cannot be compared with {_named(first)}: {reason}.")
    return _compared(runs, {})


def compare_newest(experiment: str = "", newest: int = 5) -> Comparison:
    """Compare the newest run of an MLflow experiment with those before it that it can be compared with, oldest first.

    Args:
        experiment: its name; empty: the one in ``mlflow.yaml``.
        newest: how many finished runs are looked at.

    Raises:
        ComparisonError: there are not two.
        TrackingError: there is no such experiment.
    """
    alike, left_out = _alike(finished_runs.newest_runs(experiment, newest), f"the newest {newest} runs")
    return _compared(alike[::-1], left_out)


def compare_versions(model: str, newest: int = 5) -> Comparison:
    """Compare the champion of a registered model with its newest versions.

    Raises:
        ComparisonError: there are not two that can be compared.
        ModelError: there is no such model.
    """
    runs = [finished_runs.finished_run(run_id) for run_id in registry.runs_of_versions(model, newest)]
    return _compared(*_alike(runs, f"the versions of {model}"))


def _alike(found: Sequence[FinishedRun], where: str) -> tuple[list[FinishedRun], dict[str, str]]:
    """Those of the runs that can be compared with the first sound one; of the others by id, why not."""
    alike: list[FinishedRun] = []
    left_out: dict[str, str] = {}
    for run in found:
        reason = _flaw(run) or (_mismatch(alike[0], run) if alike else "")
        if reason:
            left_out[run.run_id] = reason
        else:
            alike.append(run)
    if len(alike) < 2:
        told = "; ".join(f"{run_id}: {reason}" for run_id, reason in left_out.items())
        raise ComparisonError(f"There are no two runs to compare among {where}{f' ({told})' if told else ''}.")
    return alike, left_out


def _flaw(run: FinishedRun) -> str:
    """Why a run cannot be compared with any; empty when it can."""
    if run.status != "FINISHED":
        return f"it is {run.status}{f' ({run.failure})' if run.failure else ''}, not FINISHED"
    if run.task is None or not any(f"test/{name}" in run.metrics for name in FAMILIES[run.task].headline):
        return "it holds no test scores"
    if run.task == "classification" and not finished_runs.has_file(run.run_id, PREDICTIONS):
        return f"it holds no {PREDICTIONS}"
    return ""


def _comparable(run: FinishedRun) -> FinishedRun:
    flaw = _flaw(run)
    if flaw:
        raise ComparisonError(f"{_named(run)} cannot be compared: {flaw}.")
    return run


def _mismatch(first: FinishedRun, other: FinishedRun) -> str:
    if first.task != other.task:
        return f"it is of another task ({other.task}, not {first.task})"
    if first.test_digest != other.test_digest:
        return (
            f"it was scored on other test images ({other.test_digest[:12]}, not {first.test_digest[:12]}); "
            f"`recognition data diff {first.run_id} {other.run_id}` tells what differs"
        )
    return ""


def _named(run: FinishedRun) -> str:
    return f"Run {run.run_id} ({run.name})"


def _compared(runs: Sequence[FinishedRun], left_out: dict[str, str]) -> Comparison:
    first, task = runs[0], runs[0].task
    assert task is not None  # what has none is refused above
    family = FAMILIES[task]
    names = dict.fromkeys((family.metric, *family.headline))
    scores = {name: found for name in names if (found := _side_by_side(runs, f"test/{name}"))}
    class_score = CLASS_SCORES.get(task, "")
    versions = registry.versions_of_runs([run.run_id for run in runs])
    return Comparison(
        task=task,
        test_digest=first.test_digest,
        test_images=int(first.metrics.get("data/test_images", 0)),
        runs=tuple(
            ComparedRun(
                run_id=run.run_id,
                name=run.name,
                url=tracking.run_url(run.run_id),
                model=versions[run.run_id].uri if run.run_id in versions else "",
                aliases=versions[run.run_id].aliases if run.run_id in versions else (),
            )
            for run in runs
        ),
        settings=differing_settings({run.run_id: _told_settings(run) for run in runs}),
        scores=scores,
        costs={name: found for name in COSTS if (found := _side_by_side(runs, name))},
        best={name: _best(values, name) for name, values in scores.items()},
        class_score=class_score,
        pairs=tuple(_pair(first, other, scores, class_score) for other in runs[1:]),
        left_out=left_out,
    )


def _side_by_side(runs: Sequence[FinishedRun], metric: str) -> dict[str, float]:
    return {run.run_id: run.metrics[metric] for run in runs if metric in run.metrics}


def _best(values: Mapping[str, float], name: str) -> tuple[str, ...]:
    best = (min if is_better_when_lower(name) else max)(values.values())
    return tuple(run_id for run_id, value in values.items() if value == best)


def _told_settings(run: FinishedRun) -> dict[str, str]:
    """Settings, what was chosen for ``auto`` in its place, and the circumstances."""
    prefix = "resolved."
    asked = {name: value for name, value in run.parameters.items() if not name.startswith(prefix) and name != "name"}
    chosen = {name.removeprefix(prefix): value for name, value in run.parameters.items() if name.startswith(prefix)}
    return asked | chosen | {name: run.tags[name] for name in CIRCUMSTANCES if name in run.tags}


def differing_settings(settings: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Of settings by run, those that are not the same in all: by setting, then by run; what a run lacks is empty."""
    names = dict.fromkeys(name for of_run in settings.values() for name in of_run)
    by_name = {name: {run: of_run.get(name, "") for run, of_run in settings.items()} for name in names}
    return {name: values for name, values in by_name.items() if len(set(values.values())) > 1}


def _pair(first: FinishedRun, other: FinishedRun, scores: Mapping[str, Mapping[str, float]], class_score: str) -> Pair:
    prefix = f"test/{class_score}/"
    classes = {
        name.removeprefix(prefix): ScoreDifference(estimate=other.metrics[name] - before)
        for name, before in first.metrics.items()
        if class_score and name.startswith(prefix) and name in other.metrics
    }
    differences = {
        name: ScoreDifference(estimate=values[other.run_id] - values[first.run_id])
        for name, values in scores.items()
        if first.run_id in values and other.run_id in values
    }
    flips = None
    if first.task == "classification":
        flips = flipped(*(finished_runs.fetch_file(run.run_id, PREDICTIONS) for run in (first, other)))
    return Pair(before=first.run_id, after=other.run_id, differences=differences, classes=classes, flips=flips)


def flipped(before: Path, after: Path) -> Flips | None:
    """Count the images that two tables of predictions answer otherwise, right in one and wrong in the other.

    None where the tables name other images: the same pixels under other names.
    """
    old, new = (
        pd.read_parquet(path, columns=["sample_id", "correct"]).set_index("sample_id")["correct"].sort_index()
        for path in (before, after)
    )
    if not old.index.equals(new.index):
        return None
    worse, better = old.index[old & ~new], old.index[~old & new]
    return Flips(
        right_to_wrong=len(worse),
        wrong_to_right=len(better),
        files_right_to_wrong=tuple(worse[:LISTED]),
        files_wrong_to_right=tuple(better[:LISTED]),
    )
