"""How MLflow's pages are arranged for comparing: descriptions, the column ``settings``, and a view for each task.

Texts and JSON only; `recognition.tracking` writes them. A view is what MLflow's page offers under **Views** and opens
by an address: since 3.17 an experiment's tag that holds a name and the page's state.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from recognition.experiment import Experiment
from recognition.families import FAMILIES, Task, is_better_when_lower

NOTE = "mlflow.note.content"
"""The tag of a run or an experiment that MLflow shows as its description, in Markdown."""
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Opens an experiment on its training runs; MLflow's pages would ask, or show what is for language models."""
NOT_ENDED = "This run has not ended yet."
"""Stands in the description that a run begins with, and that may be written over."""
VIEW_PREFIX = "mlflow.sharedViewState."
LONGEST_SETTINGS = 500
MOST_RUNS = 20
_TITLES: dict[Task, str] = {
    "classification": "Classifiers",
    "autoencoding": "Autoencoders",
    "generation": "Generators",
    "detection": "Detectors",
    "segmentation": "Segmenters",
    "instance_segmentation": "Instance segmenters",
}


def view_key(task: Task) -> str:
    """The key of a task's view, as it stands in the address of the page and, behind `VIEW_PREFIX`, in the tag."""
    return f"recognition-{task}"


def view_address(experiment_id: str, task: Task, charts: bool = False) -> str:
    """Where the runs of a task are, best first, behind the address of MLflow's pages: as a table, or as charts."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={view_key(task)}&workflowType=machine_learning{mode}"


def view_tag(task: Task, now: int) -> tuple[str, str]:
    """Key and value of the experiment's tag that holds the view of a task; the value stays below 5,000 characters.

    Args:
        task: whose scores are the columns.
        now: milliseconds since 1970, told as when the view was made.
    """
    state = json.dumps(_state(task), separators=(",", ":"))
    packed = "deflate;" + base64.b64encode(zlib.compress(state.encode(), 9)).decode()
    view = {"name": f"{_TITLES[task]}, best first", "createdAt": now, "updatedAt": now, "state": packed}
    return VIEW_PREFIX + view_key(task), json.dumps(view)


def _state(task: Task) -> dict[str, Any]:
    """What the page of MLflow 3.17 keeps of itself: columns, order, charts."""
    family = FAMILIES[task]
    scores = list(dict.fromkeys((family.metric, *family.headline)))[:2]
    # columns by width in pixels and in this order; run name and date are always there, and have names of their own
    widths = {
        "1": 73,
        "attributes.`Run Name`": 170,
        **{f"metrics.`test/{name}`": 110 for name in scores},
        "tags.`settings`": 330,
        "tags.`verdict`": 290,
        "attributes.`Models`": 120,
        "params.`resolved.model.network`": 100,
        "params.`training.epochs`": 90,
        "params.`training.learning_rate`": 110,
        "metrics.`best/epoch`": 100,
        "metrics.`seconds/train`": 110,
        "metrics.`model/parameters`": 130,
        "runDateAndNestInfo": 150,
        "attributes.`Dataset`": 300,
        "duration": 80,
    }
    chosen = [name for name in widths if "`" in name and name != "attributes.`Run Name`"]
    return {
        "searchFilter": f"tags.task = '{task}'",
        "orderByKey": f"metrics.`test/{family.metric}`",
        "orderByAsc": is_better_when_lower(family.metric),
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": chosen,
        "columnOrder": list(widths),
        "columnWidths": widths,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        **_charts(task, scores),
    }


def _charts(task: Task, scores: list[str]) -> dict[str, Any]:
    """Two sections: the test scores as bars and over the settings, and the curves by epoch."""
    family = FAMILIES[task]
    curves = ["val/loss", *(name for name in family.monitors if name != "val/loss"), "train/loss"]
    bars = [
        *(_bar("which", f"test/{name}") for name in scores),
        _bar("which", "seconds/train"),
    ]
    parallel = {
        **_chart("which", "PARALLEL", "settings", "Settings and score"),
        "selectedParams": ["training.epochs", "training.learning_rate", "training.batch_size"],
        "selectedMetrics": [f"test/{family.metric}"],
        "showAllRuns": False,
    }
    return {
        "compareRunSections": [
            _section("which", "Which run was best"),
            _section("why", "How they learned, by epoch"),
        ],
        "compareRunCharts": [*bars, parallel, *(_line("why", name) for name in curves)],
    }


def _section(key: str, name: str) -> dict[str, Any]:
    return {"uuid": key, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}


def _chart(section: str, kind: str, key: str, title: str) -> dict[str, Any]:
    return {
        "uuid": f"{section}-{kind}-{key}",
        "type": kind,
        "runsCountToCompare": MOST_RUNS,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "displayName": title,
    }


def _bar(section: str, metric: str) -> dict[str, Any]:
    return {**_chart(section, "BAR", metric, metric), "metricKey": metric}


def _line(section: str, metric: str) -> dict[str, Any]:
    return {
        **_chart(section, "LINE", metric, metric),
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def settings_text(experiment: Experiment) -> str:
    """What differs from the defaults, as it is typed: ``training.epochs=5 model.network=vit``; at most 500 characters.

    The name is left out: it is the run's.
    """
    defaults = Experiment().flattened()
    differing = [
        f"{name}={value}"
        for name, value in experiment.flattened().items()
        if name != "name" and value != defaults.get(name)
    ]
    text = " ".join(differing) or "defaults"
    return text if len(text) <= LONGEST_SETTINGS else f"{text[: LONGEST_SETTINGS - 1]}…"


def tasks_with_views(tags: Mapping[str, str]) -> tuple[Task, ...]:
    """The tasks whose views an experiment has, by its tags."""
    return tuple(task for task in FAMILIES if VIEW_PREFIX + view_key(task) in tags)


def experiment_note(experiment_id: str, tasks: Sequence[Task]) -> str:
    """The description of the experiment that runs are filed under, with the views of these tasks."""
    links = ", ".join(f"[{_TITLES[task].lower()}]({view_address(experiment_id, task)})" for task in tasks)
    rows = "\n".join(
        f"| {_TITLES[task]} | {FAMILIES[task].metric} | [charts]({view_address(experiment_id, task, charts=True)}) |"
        for task in tasks
    )
    return f"""**Which run was best?** {links}: the best first.

These tables show scores, what was set otherwise than by default, the registered version, and the data. They are also
behind the button **Views**.

| runs | sorted by | |
| --- | --- | --- |
{rows}

Two runs in every detail, image by image: `recognition compare RUN RUN`.
"""


def run_note(status: str, metrics: Mapping[str, float], tags: Mapping[str, str], parameters: Mapping[str, str]) -> str:
    """The description of a run: what learned what, headline scores, verdict, links, or why it failed.

    Args:
        status: FINISHED, FAILED, KILLED, or RUNNING.
        metrics: of the run.
        tags: of the run.
        parameters: of the run.
    """
    network = parameters.get("resolved.model.network") or parameters.get("model.network", "")
    about = f"{network} on {_code(parameters.get('data.source', ''))}, {_code(tags.get('settings', ''))}"
    if tags.get("evaluated.model"):
        about = f"{_code(tags['evaluated.model'])} scored again on {_code(parameters.get('data.source', ''))}"
    links = []
    model, version = tags.get("model.name", ""), tags.get("model.version", "")
    if model:
        links.append(f"[{_plain(model)} version {version}](#/models/{quote(model)}/versions/{version})")
    if tags.get("prefect.flow_run_url"):
        links.append(f"[the run in Prefect]({tags['prefect.flow_run_url']})")
    # the page folds all but the first lines
    parts = [" · ".join([about, *links])]
    if status != "FINISHED":
        reason = (tags.get("failure") or tags.get("left_behind", "")).partition("\n")[0]
        parts.append(NOT_ENDED if status == "RUNNING" else f"**{status}**{f': {_code(reason)}' if reason else ''}")
    if tags.get("verdict"):
        parts.append(f"Verdict: {_code(tags['verdict'])}")
    family = next((known for name, known in FAMILIES.items() if name == tags.get("task")), None)
    if family is not None:
        shown = [name for name in family.headline if f"test/{name}" in metrics]
        if shown:
            values = " | ".join(f"{metrics[f'test/{name}']:.4f}" for name in shown)
            parts.append(f"| {' | '.join(shown)} |\n|{' --- |' * len(shown)}\n| {values} |")
    return "\n\n".join(parts) + "\n"


def _code(text: str) -> str:
    """Text of a user, on one line, that Markdown shows as it is."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return f"`{plain.replace('`', chr(39))}`" if plain else ""


def _plain(text: str) -> str:
    return "".join(f"\\{character}" if character in r"\`*_[]<>|" else character for character in text)
