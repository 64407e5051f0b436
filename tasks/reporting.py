"""What a Prefect run shows of its work: pictures, scores and links to MLflow, as artifacts."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact

from recognition.families import FAMILIES, headline
from recognition.records import AuditedData, Scores, Version
from tasks.watching import in_a_run

LARGEST_PICTURE = 600_000
"""Bytes; Prefect drops events above 1.5 MB."""
LONGEST_SIDE = 1400


def _data_url(path: Path) -> str:
    """A picture as an address that holds it; one that is too large for Prefect's events is sent as a smaller JPEG."""
    content, kind = path.read_bytes(), "png"
    if len(content) > LARGEST_PICTURE:
        buffer = io.BytesIO()
        with Image.open(path) as image:
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            image.convert("RGB").save(buffer, "JPEG", quality=85)
        content, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def image_artifact(key: str, path: Path, description: str) -> None:
    """Show a PNG on the run's page; outside a run, nothing."""
    if in_a_run():
        create_image_artifact(_data_url(path), key=key, description=description)


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


def report(title: str, scores: Scores, version: Version | None, run_url: str) -> None:
    """The run's result in a page of Markdown: scores, verdict, the main figure, link."""
    if not in_a_run():
        return
    family = FAMILIES[scores.task]
    rows = "\n".join(f"| {name} | {value} |" for name, value in headline(scores.metrics, scores.task))
    verdict = f"{version.uri} is **{' and '.join(version.aliases)}** ({version.verdict})." if version else ""
    picture = _data_url(scores.path / "figures" / family.picture)
    title_of_picture = Path(family.picture).stem.replace("_", " ")
    create_markdown_artifact(
        f"# {title}\n\n| test score | |\n| --- | --- |\n{rows}\n\n{verdict}\n\n[The run in MLflow]({run_url})\n\n"
        f"![{title_of_picture}]({picture})\n",
        key="report",
        description=f"Scores of {title}",
    )
