"""What a command says at its end, for people."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from flows.house.addresses import Addresses
from recognition.estimates import told
from recognition.families import KINDS, Task, headline
from recognition.records import AuditedData, EvaluationResult, Preflight, TrainingResult
from recognition.settings import home, tracking_uri

if TYPE_CHECKING:
    from flows.deployments.scheduling import Planned
    from flows.deployments.triggering import Triggered

SHOWN_FILES = 10


def print_training(result: TrainingResult) -> None:
    """Scores, the registered version, the time of each stage, and where to look."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(_scores_table(result.metrics, result.task))
    if result.model:
        console.print(f"model    {result.model.uri}  {', '.join(result.model.aliases)}  ({result.model.verdict})")
    seconds = "  ".join(f"{name} {value:.1f}" for name, value in result.seconds.items())
    console.print(f"seconds  {seconds}")
    console.print(f"run      {result.run_id}")
    _where_to_look(console)


def print_house(house: Addresses) -> None:
    """Where a house answers, and what to do with it."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"prefect  {house.prefect}   start runs (Deployments, train, Run), watch them, set schedules")
    console.print(f"mlflow   {house.mlflow}   results, figures, registered models")
    console.print(f"logs     {home() / 'logs'}")
    console.print("Commands in another terminal find both: `recognition up --check`, `recognition train`.")
    console.print("Ctrl-C here stops everything.")


def print_preflight(found: Preflight) -> None:
    """What a run would be, and what may be wrong with it."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    table = Table("preflight", "")
    for name, text in told(found):
        table.add_row(name, visible(text))
    console.print(table)
    for warning in found.warnings:
        console.print(f"warning  {visible(warning)}")
    console.print("Nothing was fetched, trained or recorded." if found.warnings else "Nothing speaks against it.")


def print_audit(audited: AuditedData) -> None:
    """What was found, what is done about it, and where the whole report lies."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for finding in audited.findings:
        console.print(f"{finding.policy:<10} {visible(finding.message)}")
        for group in finding.groups:
            # images of one group are different ones, all others are copies
            between = ", " if finding.kind == "parted_groups" else "  =  "
            console.print(f"{'':<12} {visible(between.join(group))}")
        if not finding.groups:
            for name in finding.files[:SHOWN_FILES]:
                console.print(f"{'':<12} {visible(name)}")
            if finding.count > SHOWN_FILES < len(finding.files):
                console.print(f"{'':<12} and more, see the report")
    if not audited.findings:
        console.print("nothing wrong was found")
    classes = f"{len(audited.class_names)} class{'es' if len(audited.class_names) > 1 else ''}"
    what = f"in {classes}" if audited.kind == "classes" else f"with {KINDS[audited.kind]} of {classes}"
    console.print(f"{audited.images} images {what}, {audited.left_out} left out")
    if audited.failed:
        console.print(f"not usable {visible_lines(audited.failed)}")
    console.print(f"report   {audited.path / 'report.html'}")


def visible_lines(text: str) -> str:
    """Several lines, each made visible."""
    return "\n".join(visible(line) for line in text.split("\n"))


def visible(text: str) -> str:
    """Text with control characters written out, so that a file's name can neither move the cursor nor break a line."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def told_answer(answer: dict[str, Any]) -> str:
    """A model's answer about one image in a line."""
    if "label" in answer:
        return f"{answer['label']} ({answer['confidence']:.4f})"
    if "restored" in answer:
        return f"{len(answer['code'])} numbers, mean squared error {answer['error']:.5f}"
    if "shares" in answer:
        return ", ".join(f"{name} {share:.1%}" for name, share in answer["shares"].items())
    counts = Counter(found["label"] for found in answer["objects"])
    return (
        ", ".join(f"{count} {name}" for name, count in counts.most_common())
        or "nothing found: a lower --threshold finds more"
    )


def print_evaluation(result: EvaluationResult) -> None:
    """Scores, how far they are from the recorded ones, and where to look."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(_scores_table(result.metrics, result.task))
    console.print(f"model    {result.model}, made by run {result.evaluated_run_id}")
    console.print(f"         largest difference to that run's scores: {result.largest_difference:.2g}")
    console.print(f"run      {result.run_id}")
    _where_to_look(console)


def print_triggered(run: Triggered, on_standard_error: bool) -> None:
    """A run that was created, and where to see it."""
    console = Console(soft_wrap=True, highlight=False, markup=False, stderr=on_standard_error)
    console.print(f"run      {run.name}")
    console.print(f"look     {run.url}")
    if run.warning:
        console.print(f"warning  {run.warning}")


def print_schedules(schedules: list[Planned]) -> None:
    """Schedules and their next runs."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if not schedules:
        console.print("no schedule: `recognition schedule set DEPLOYMENT --cron '0 2 * * *'` makes one")
    for schedule in schedules:
        name = schedule.deployment + (f" {schedule.slug}" if schedule.slug else "")
        following = ", ".join(f"{moment:%a %d %b %H:%M}" for moment in schedule.next_runs)
        console.print(
            f"{name:<24} {'on ' if schedule.active else 'off'}  {schedule.when}  {schedule.timezone}"
            + (f"  next {following}" if following else "")
        )
        if schedule.parameters:
            console.print(f"{'':<24} {json.dumps(schedule.parameters, ensure_ascii=False)}")


def _scores_table(metrics: dict[str, float], task: Task) -> Table:
    table = Table("test score", "value")
    for row in headline(metrics, task):
        table.add_row(*row)
    return table


def _where_to_look(console: Console) -> None:
    uri = tracking_uri()
    if uri.startswith("http"):
        console.print(f"look     {uri}")
    else:
        bin_folder = Path(sys.executable).parent
        prefect_home = f"PREFECT_HOME={quote(os.environ['PREFECT_HOME'])} " if os.environ.get("PREFECT_HOME") else ""
        mlflow = f"{quote(str(bin_folder / 'mlflow'))} ui --backend-store-uri {quote(uri)}"
        console.print(f"look     {mlflow}    then http://127.0.0.1:5000")
        console.print(
            f"         {prefect_home}{quote(str(bin_folder / 'prefect'))} server start    then http://127.0.0.1:4200"
        )
    console.print(f"state    {home()}")
