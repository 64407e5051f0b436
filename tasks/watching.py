"""Where a stage's events go: MLflow, the Prefect run's log and progress artifact, a bar on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from rich import progress as rich_progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.theme import Theme

from recognition import events, tracking
from recognition.progress import Progress

SECONDS_BETWEEN_UPDATES = 3.0
MOST_SHOWN = 6


def run_logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The Prefect run's logger, or an ordinary one outside a run."""
    return get_run_logger() if in_a_run() else logging.getLogger("recognition")


def in_a_run() -> bool:
    """Whether this code runs inside a Prefect flow or task run."""
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


@contextmanager
def watching(run_id: str, stage: str) -> Iterator[events.Emit]:
    """Give a stage an ``emit`` whose events are shown and kept while the block runs."""
    logger = run_logger()
    with _Bar(stage) as bar:
        artifact = _Artifact(stage)

        def emit(event: events.Event) -> None:
            if isinstance(event, events.Progress):
                bar.update(event)
                artifact.update(event)
            elif isinstance(event, events.EpochEnd):
                tracking.log_metrics(run_id, event.metrics, step=event.epoch + 1)
                logger.info(_line(event))
            elif isinstance(event, events.Picture):
                tracking.log_picture(run_id, event.path, event.name, event.step)
            else:
                logger.log(event.level, event.text)

        yield emit
        artifact.finish()


def progress_of(emit: events.Emit, stage: str) -> Progress:
    """Tell an ``emit`` of the domain's (done, total, what)."""
    return lambda done, total, what: emit(events.Progress(stage, done, total, "", what))


def _line(event: events.EpochEnd) -> str:
    shown = [name for name in event.metrics if name.startswith(("train/", "val/"))][:MOST_SHOWN]
    scores = "  ".join(f"{name} {event.metrics[name]:.4f}" for name in shown)
    seconds = event.metrics.get("epoch/seconds", 0.0)
    return f"epoch {event.epoch + 1}/{event.epochs}  {scores}  ({seconds:.1f} s)"


class _Artifact:
    """The stage's progress artifact in Prefect, updated every few seconds."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._id: UUID | None = None
        self._updated = time.monotonic()

    def update(self, event: events.Progress) -> None:
        now = time.monotonic()
        if not in_a_run() or not event.total or now - self._updated < SECONDS_BETWEEN_UPDATES:
            return
        self._updated = now
        percent = 100 * event.done / event.total
        if self._id is None:
            made = create_progress_artifact(
                percent, key=f"{self._stage}-progress", description=f"{self._stage} {event.text}".strip()
            )
            assert isinstance(made, UUID)
            self._id = made
        else:
            update_progress_artifact(self._id, percent)

    def finish(self) -> None:
        if self._id is not None:
            update_progress_artifact(self._id, 100.0)


def _console() -> Console:
    """The console that Prefect logs to, so that log lines stand above the bar and not in it."""
    for handler in logging.getLogger().handlers:
        console = getattr(handler, "console", None)
        if isinstance(console, Console):
            return console
    return Console(stderr=True)


class _Bar:
    """A progress bar, where standard error is a terminal."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._task: TaskID | None = None
        self._console = _console()
        self._progress = rich_progress.Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Self:
        # Prefect's console knows its own styles only
        self._console.push_theme(Theme())
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._console.pop_theme()

    def update(self, event: events.Progress) -> None:
        text = f"{event.stage} {event.text}".strip()
        if self._task is None:
            self._task = self._progress.add_task(text, total=event.total or None, unit=event.unit)
        self._progress.update(self._task, completed=event.done, total=event.total or None, description=text)
