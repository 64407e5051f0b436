"""What a Prefect run shows of its work: pictures, scores and links to MLflow, as artifacts."""

from __future__ import annotations

import base64
from pathlib import Path

from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact

from recognition.families import FAMILIES, headline
from recognition.records import AuditedData, Scores, Version
from tasks.watching import in_a_run


def image_artifact(key: str, path: Path, description: str) -> None:
    """Show a PNG on the run's page; outside a run, nothing."""
    if in_a_run():
        url = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        create_image_artifact(url, key=key, description=description)


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
    picture = base64.b64encode((scores.path / "figures" / family.picture).read_bytes()).decode()
    title_of_picture = Path(family.picture).stem.replace("_", " ")
    create_markdown_artifact(
        f"# {title}\n\n| test score | |\n| --- | --- |\n{rows}\n\n{verdict}\n\n[The run in MLflow]({run_url})\n\n"
        f"![{title_of_picture}](data:image/png;base64,{picture})\n",
        key="report",
        description=f"Scores of {title}",
    )
