"""What a Prefect run shows of its work: pictures, scores and links to MLflow, as artifacts."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact

from recognition import tracking
from recognition.errors import RecognitionError
from recognition.experiment import Experiment
from recognition.families import FAMILIES, headline
from recognition.records import AuditedData, Scores, Version
from tasks.remaining import duration
from tasks.watching import in_a_run

LARGEST_IN_ALL = 900_000
"""Bytes of the pictures of one artifact; Prefect drops events above 1.5 MB, and pictures grow by a third in text."""
LONGEST_SIDES = (1400, 1000, 700, 400)
CURVES = "learning_curves.png"


def data_url(path: Path, largest: int = LARGEST_IN_ALL) -> str:
    """A picture as an address that holds it; one of more than ``largest`` bytes is sent as a smaller JPEG."""
    content, kind = path.read_bytes(), "png"
    for side in LONGEST_SIDES:
        if len(content) <= largest:
            break
        buffer = io.BytesIO()
        with Image.open(path) as image:
            image.thumbnail((side, side))
            image.convert("RGB").save(buffer, "JPEG", quality=85)
        content, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def image_artifact(key: str, path: Path, description: str) -> None:
    """Show a PNG on the run's page; outside a run, nothing."""
    if in_a_run():
        create_image_artifact(data_url(path), key=key, description=description)


def link_to_mlflow(run_url: str) -> None:
    """Link the MLflow run from the Prefect run."""
    if in_a_run():
        create_link_artifact(run_url, link_text="The run in MLflow", key="mlflow-run", description="Metrics and model")


def audit_artifact(audited: AuditedData) -> None:
    """Show what the audit found on the run's page."""
    if in_a_run():
        create_markdown_artifact(
            (audited.path / "report.md").read_text(encoding="utf-8"),
            key="audit",
            description=f"What is wrong with the images of {audited.source}",
        )


def report(experiment: Experiment, scores: Scores, version: Version | None, run_id: str) -> None:
    """The run's result in a page of Markdown: scores, verdict, pictures, what was set, times, links."""
    if not in_a_run():
        return
    metrics: Mapping[str, float] = tracking.find_run(run_id).data.metrics
    prefix = "seconds/"
    figures = [scores.path / "figures" / name for name in (FAMILIES[scores.task].picture, CURVES)]
    there = [path for path in figures if path.is_file()]
    create_markdown_artifact(
        result_page(
            experiment,
            scores,
            version,
            {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)},
            tracking.run_url(run_id),
            tracking.version_url(version) if version else "",
            tracking.best_runs_url(run_id, scores.task),
            [(path.stem.replace("_", " "), data_url(path, LARGEST_IN_ALL // len(there))) for path in there],
        ),
        key="report",
        description=f"Scores of {experiment.run_name}" + (f"; {_verdict(version)}" if version else ""),
    )


def result_page(
    experiment: Experiment,
    scores: Scores,
    version: Version | None,
    seconds: Mapping[str, float],
    run_url: str,
    version_url: str,
    best_runs_url: str,
    pictures: Sequence[tuple[str, str]],
) -> str:
    """The page of a finished run.

    Args:
        seconds: by stage.
        version_url: of the registered version's page; empty without one.
        best_runs_url: of the page with all runs of this task.
        pictures: their captions and addresses.
    """
    links = [f"[The run in MLflow]({run_url})"]
    if version:
        links.append(f"[{version.uri} in the registry]({version_url})")
    links.append(f"[All runs of this kind, best first]({best_runs_url})")
    parts = [
        f"# {experiment.run_name}",
        *([f"{_verdict(version)}."] if version else []),
        _table(("test score", ""), headline(scores.metrics, scores.task)),
        " · ".join(links),
        *(f"![{caption}]({address})" for caption, address in pictures),
        "## Set otherwise than by default",
        _settings_table(experiment),
        "## Where the time went",
        _table(("stage", ""), [(name, duration(value)) for name, value in seconds.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(version: Version) -> str:
    return f"{version.uri} is {' and '.join(version.aliases)} ({version.verdict})"


def _settings_table(experiment: Experiment) -> str:
    usual = Experiment().flattened()
    changed = [
        (f"`{name}`", _cell(value), _cell(usual[name]))
        for name, value in experiment.flattened().items()
        if value != usual[name]
    ]
    return _table(("setting", "value", "default"), changed) if changed else "Nothing."


def _cell(value: str) -> str:
    """A value that nothing of Markdown can be made of."""
    return f"`{' '.join(value.split()).replace('|', '/').replace('`', '')}`" if value else "empty"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@contextmanager
def failure_shown(title: str) -> Iterator[None]:
    """Say on the run's page what went wrong and what to do, where the block fails."""
    try:
        yield
    except Exception as error:
        if in_a_run():
            create_markdown_artifact(
                failure_page(title, error), key="what-went-wrong", description=f"Why {title} did not finish"
            )
        raise


def failure_page(title: str, error: Exception) -> str:
    """The page of a run that failed: the reason first; a mistake says what to do, a defect shows its traceback."""
    first, _, rest = str(error).strip().partition("\n")
    parts = [f"# {title} did not finish", _verbatim(first or type(error).__name__)]
    if isinstance(error, RecognitionError):
        if rest:
            parts.append(_verbatim(rest))
        parts.append("Change what it names, and run again: what is downloaded, audited and prepared is kept.")
    else:
        parts.append(
            f"This is no mistake in the settings: {type(error).__name__} is a defect, or trouble of the machine. Run "
            "it again if something outside was in the way; if it comes again, report it with this page and the log."
        )
        if rest:
            parts.append(_verbatim(rest))
    return "\n\n".join(parts) + "\n"


def _verbatim(text: str) -> str:
    fence = "````"
    return f"{fence}text\n{text.replace(fence, '')}\n{fence}"
