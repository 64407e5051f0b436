"""How long each stage may take, and the end of one that takes longer."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.utilities.timeout import timeout

from recognition.errors import ConfigurationError, TimeLimitError

SETTING = "RECOGNITION_TIME_LIMITS"
"""What the operator of a worker changes, such as train=8h,download=30m."""
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LIMITS = {
    "preflight": 5 * 60.0,
    "download": 12 * 3600.0,
    "audit": 6 * 3600.0,
    "prepare": 3600.0,
    "augment": 15 * 60.0,
    "train": 7 * 86400.0,
    "evaluate": 12 * 3600.0,
    "register": 3600.0,
}
"""Seconds by stage: so long that only a stage that hangs meets them."""


class _OverError(TimeoutError):
    """The time is over; not to be taken for a connection's own."""


@contextmanager
def within_limit(stage: str) -> Iterator[None]:
    """End the block, and the process it waits for, when the stage's time is over.

    In the main thread, where stages run, this interrupts whatever it waits for.

    Raises:
        TimeLimitError: with the stage, its limit and how to change it.
        ConfigurationError: RECOGNITION_TIME_LIMITS cannot be read.
    """
    seconds = limits().get(stage)
    try:
        with timeout(seconds, _OverError):
            yield
    except _OverError:
        assert seconds is not None
        raise TimeLimitError(
            f"The stage {stage} was ended after {in_units(seconds)}, its time limit. If it needs longer, start the "
            f"worker (or the command) with {SETTING}={stage}={in_units(2 * seconds)}."
        ) from None


def limits() -> dict[str, float]:
    """Seconds that each stage may take: what is set, over the defaults.

    Raises:
        ConfigurationError: an unknown stage, or no duration.
    """
    found = dict(LIMITS)
    for word in filter(None, (part.strip() for part in os.environ.get(SETTING, "").split(","))):
        stage, _, text = (part.strip() for part in word.partition("="))
        if stage not in LIMITS:
            close = difflib.get_close_matches(stage, LIMITS, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(LIMITS)}."
            raise ConfigurationError(f"{SETTING}: there is no stage {stage!r}; {hint}")
        number = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
        if number is None or not float(number[1]):
            raise ConfigurationError(
                f"{SETTING}: {word!r} gives no duration. Write a number and s, m, h or d, such as {stage}=8h."
            )
        found[stage] = float(number[1]) * UNITS[number[2]]
    return found


def in_units(seconds: float) -> str:
    """A duration as ``RECOGNITION_TIME_LIMITS`` takes it, in the largest unit that divides it."""
    for unit in reversed(UNITS):
        if seconds >= UNITS[unit] and not seconds % UNITS[unit]:
            return f"{seconds / UNITS[unit]:.0f}{unit}"
    return f"{seconds:g}s"
