"""What a stage reports while it works; whoever started it decides where that is shown or kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """So much of a stage's work is done."""

    stage: str
    done: int
    total: int
    unit: str
    text: str = ""


@dataclass(frozen=True)
class EpochEnd:
    """An epoch's metrics; ``epoch`` counts from 0."""

    epoch: int
    epochs: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Picture:
    """A PNG that shows how far a stage has come; ``step`` is the x of the metrics beside it."""

    name: str
    step: int
    path: Path


@dataclass(frozen=True)
class Message:
    """A log line; ``level`` as in the standard library's ``logging``."""

    level: int
    text: str


Event = Progress | EpochEnd | Picture | Message
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """An ``Emit`` for callers who do not watch."""
