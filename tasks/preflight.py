"""Before all stages, preflight: what a run will be, shown on its page, and refused here if it cannot work."""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from recognition import bundle, tracking
from recognition.access import Access, redacted
from recognition.data_settings import Data
from recognition.estimates import as_duration, told
from recognition.expectations import expect, of_prepared
from recognition.experiment import Experiment
from recognition.records import Expected, Preflight, PreparedData
from tasks.examining import examine
from tasks.isolation import run_isolated
from tasks.stage import stage
from tasks.watching import in_a_run, run_logger


@stage("preflight")
def preflight(run_id: str, experiment: Experiment, access: Access) -> Preflight:
    """Check a training's settings against each other and its images, and estimate what it takes."""
    return _shown(run_id, examine(experiment, access))


@stage("preflight")
def preflight_of_model(
    run_id: str, experiment: Experiment, model: Path, data: PreparedData | None, access: Access
) -> Preflight:
    """Check that a model can be scored again: it is whole, its images can be had, and the settings fit its task."""
    expected = of_prepared(data) if data else expect(experiment.data, access)
    bundle.describe(model)
    found: Preflight = run_isolated("lightning_modules.preflight:examine_model", experiment, model, expected)
    return _shown(run_id, found)


@stage("preflight")
def preflight_of_source(run_id: str, data: Data, access: Access) -> Expected:
    """Check that a source may be read, and say what is known of its images."""
    expected = expect(data, access)
    images = f"{expected.images:,} images in {expected.classes} classes"
    run_logger().info(f"preflight: {redacted(expected.source)}: {images} ({expected.known})")
    return expected


def _shown(run_id: str, found: Preflight) -> Preflight:
    measured = {
        "parameters": found.parameters,
        "flops": found.flops,
        "memory_mb": found.needed_mb,
        "store_mb": found.store_mb,
        "seconds": found.seconds,
    }
    tracking.log_metrics(run_id, {f"preflight/{name}": float(value) for name, value in measured.items() if value})
    tracking.log_tags(run_id, {"preflight.data": found.data.known, "preflight.warnings": str(len(found.warnings))})
    if in_a_run():
        create_markdown_artifact(as_markdown(found), key="preflight", description="What the run will be")
    took = f", about {as_duration(found.seconds)} of training" if found.seconds else ""
    run_logger().info(
        f"preflight: {found.network} with {found.parameters:,} parameters on {found.devices} x {found.device}, about "
        f"{found.needed_mb:,.0f} MB{took}"
    )
    for warning in found.warnings:
        run_logger().warning(f"preflight: {warning}")
    return found


def as_markdown(found: Preflight) -> str:
    """A page about a run that is yet to come."""
    rows = "\n".join(f"| {name} | {_in_a_cell(text)} |" for name, text in told(found))
    warnings = "\n".join(f"- {warning}" for warning in found.warnings)
    below = f"\n\n## Warnings\n\n{warnings}" if warnings else "\n\nNothing speaks against it."
    return f"# Preflight\n\n| | |\n| --- | --- |\n{rows}{below}\n"


def _in_a_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
