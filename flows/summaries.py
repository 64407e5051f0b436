"""What a command says at its end, for people."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shlex import quote

from rich.console import Console
from rich.table import Table

from recognition.records import AuditedData, EvaluationResult, TrainingResult
from recognition.settings import home, tracking_uri

SHOWN_FILES = 10
MAIN_SCORES = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "roc_auc_macro", "average_precision_macro")


def print_training(result: TrainingResult) -> None:
    """Scores, the registered version, the time of each stage, and where to look."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(_scores_table(result.metrics))
    if result.model:
        console.print(f"model    {result.model.uri}  {', '.join(result.model.aliases)}  ({result.model.verdict})")
    seconds = "  ".join(f"{name} {value:.1f}" for name, value in result.seconds.items())
    console.print(f"seconds  {seconds}")
    console.print(f"run      {result.run_id}")
    _where_to_look(console)


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
    console.print(f"{audited.images} images in {len(audited.class_names)} classes, {audited.left_out} left out")
    if audited.failed:
        console.print(f"not usable {visible_lines(audited.failed)}")
    console.print(f"report   {audited.path / 'report.html'}")


def visible_lines(text: str) -> str:
    """Several lines, each made visible."""
    return "\n".join(visible(line) for line in text.split("\n"))


def visible(text: str) -> str:
    """Text with control characters written out, so that a file's name can neither move the cursor nor break a line."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def print_evaluation(result: EvaluationResult) -> None:
    """Scores, how far they are from the recorded ones, and where to look."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(_scores_table(result.metrics))
    console.print(f"model    {result.model}, made by run {result.evaluated_run_id}")
    console.print(f"         largest difference to that run's scores: {result.largest_difference:.2g}")
    console.print(f"run      {result.run_id}")
    _where_to_look(console)


def _scores_table(metrics: dict[str, float]) -> Table:
    table = Table("test score", "value")
    for name in MAIN_SCORES:
        if f"test/{name}" in metrics:
            table.add_row(name, f"{metrics[f'test/{name}']:.4f}")
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
