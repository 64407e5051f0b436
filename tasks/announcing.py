"""Events for automations to act upon: another champion, another content of a data set."""

from __future__ import annotations

from typing import Literal

from prefect.events import emit_event
from prefect.events.worker import EventsWorker

from recognition import tracking
from recognition.data_settings import Data
from recognition.last_seen import Content, content_of, keep
from recognition.records import Located, Version
from tasks.watching import in_a_run

CHAMPION_CHANGED = "recognition.champion.changed"
DATASET_CHANGED = "recognition.dataset.changed"
MODEL, DATASET = "recognition.model", "recognition.dataset"
"""Kinds of resources: an event is about ``<kind>.<name>``."""
SOURCE, SEEN_BY = "recognition.dataset.source", "recognition.dataset.seen-by"
"""Labels of a data set, which automations choose by."""

SeenBy = Literal["train", "audit", "announce"]


def announce_champion(run_id: str, version: Version, metric: str, score: float, former: str) -> None:
    """Say that a version became champion; outside a run, nothing.

    Args:
        run_id: the MLflow run that made it.
        version: the new champion.
        metric: the score that decided.
        score: its value.
        former: the number of the version that was champion until now; empty for none.
    """
    if in_a_run():
        emit_event(
            CHAMPION_CHANGED,
            {"prefect.resource.id": f"{MODEL}.{version.name}", "prefect.resource.name": version.name},
            payload={
                "model": version.name,
                "version": version.version,
                "verdict": version.verdict,
                "metric": metric,
                "score": score,
                "former": former,
                "mlflow": tracking.run_url(run_id),
            },
        )


def announce_dataset(data: Data, located: Located, seen_by: SeenBy) -> bool:
    """Keep what a source holds, and say so where it held something else when this state folder last saw it.

    Args:
        data: the settings it was read by.
        located: what it holds.
        seen_by: who looked. A source that was never seen is new to ``announce`` only, by which a person asks for it;
            trainings that automations start for an event leave those of ``train`` alone, which trains on it already.

    Returns:
        Whether it was announced.
    """
    content = content_of(data, located)
    announced = False

    def tell(before: Content | None) -> None:
        nonlocal announced
        if before is not None or seen_by == "announce":
            _emit(content, before, seen_by)
            announced = True
            if seen_by == "announce":
                # a command ends right after, and Prefect would deliver in its last moments, with a warning
                EventsWorker.instance().wait_until_empty()

    keep(data, content, tell)
    return announced


def _emit(content: Content, before: Content | None, seen_by: SeenBy) -> None:
    emit_event(
        DATASET_CHANGED,
        {
            "prefect.resource.id": f"{DATASET}.{content.name}",
            "prefect.resource.name": content.name,
            SOURCE: content.source,
            SEEN_BY: seen_by,
        },
        # once more among the related ones, where an automation can leave several sources out
        related=[
            {
                "prefect.resource.id": f"recognition.source.{content.name}",
                "prefect.resource.role": "source",
                SOURCE: content.source,
            }
        ],
        payload={
            "source": content.source,
            "digest": content.digest,
            "images": content.images,
            "classes": content.classes,
            "former": before.model_dump(include={"digest", "images", "classes"}) if before is not None else None,
        },
    )
