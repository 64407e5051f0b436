"""Where a stage's events go: MLflow, the Prefect run's log and progress artifact, a bar on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from rich import progress as rich_progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.theme import Theme

from recognition import events, tracking
from recognition.progress import Progress
from tasks.remaining import Pace, described, duration, left_in_words

SECONDS_BETWEEN_UPDATES = 3.0
SECONDS_BEFORE_THE_FIRST = 1.0
"""What is over sooner needs no watching."""
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
        epochs = _Epochs()

        def emit(event: events.Event) -> None:
            if isinstance(event, events.Progress):
                bar.update(event)
                artifact.update(event)
            elif isinstance(event, events.EpochEnd):
                tracking.log_metrics(run_id, event.metrics, step=event.epoch + 1)
                logger.info(epochs.line(event))
            elif isinstance(event, events.Picture):
                tracking.log_picture(run_id, event.path, event.name, event.step)
            else:
                logger.log(event.level, event.text)

        try:
            yield emit
        except Exception:
            artifact.end("stopped")
            raise
        artifact.end("done")


def progress_of(emit: events.Emit, stage: str) -> Progress:
    """Tell an ``emit`` of the domain's (done, total, what)."""

    def on_progress(done: int, total: int, what: str) -> None:
        # single images are counted, all else that is fetched is measured
        unit = "bytes" if what.startswith("fetching ") and what != "fetching images" else "images"
        emit(events.Progress(stage, done, total, unit, what))

    return on_progress


class _Epochs:
    """The line of each epoch: its scores, how long it took, and what is left of a training that is not ended early."""

    def __init__(self) -> None:
        self._pace = Pace()

    def line(self, event: events.EpochEnd) -> str:
        now, seconds = time.monotonic(), event.metrics.get("epoch/seconds", 0.0)
        if event.epoch == 0:
            self._pace.see(now - seconds, 0, event.epochs)
        self._pace.see(now, event.epoch + 1, event.epochs)
        shown = [name for name in event.metrics if name.startswith(("train/", "val/"))][:MOST_SHOWN]
        scores = "  ".join(f"{name} {event.metrics[name]:.4f}" for name in shown)
        left = f", {left_in_words(self._pace.left)}" if self._pace.left else ""
        return f"epoch {event.epoch + 1}/{event.epochs}  {scores}  ({seconds:.1f} s{left})"


class _Artifact:
    """The stage's progress artifact in Prefect, updated every few seconds.

    A server that does not answer for a while is no reason to end a training: an update may get lost.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._id: UUID | None = None
        self._began = time.monotonic()
        self._next = self._began + SECONDS_BEFORE_THE_FIRST
        self._percent = 0.0
        self._pace = Pace()

    def update(self, event: events.Progress) -> None:
        if not in_a_run() or not event.total:
            return
        now = time.monotonic()
        self._pace.see(now, event.done, event.total)
        self._percent = 100 * min(event.done / event.total, 1.0)
        if now < self._next:
            return
        self._next = now + SECONDS_BETWEEN_UPDATES
        self._show(described(event, self._pace))

    def end(self, how: str) -> None:
        """Say how the stage ended, and after what time."""
        if self._id is not None:
            self._percent = 100.0 if how == "done" else self._percent
            self._show(f"{self._stage}: {how} after {duration(time.monotonic() - self._began)}")

    def _show(self, text: str) -> None:
        with suppress(httpx.HTTPError):
            if self._id is None:
                made = create_progress_artifact(self._percent, key=f"{self._stage}-progress", description=text)
                assert isinstance(made, UUID)
                self._id = made
            else:
                update_progress_artifact(self._id, self._percent, text)


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
