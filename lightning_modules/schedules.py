"""Learning-rate schedules as pure functions of the step, as factors of the highest rate."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "cosine", "one_cycle", "step")
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1 / 250_000


def factor(
    schedule: str, step: int, total: int, warmup: int = 0, step_every: int = 1, step_factor: float = 0.1
) -> float:
    """What the highest learning rate is multiplied by at a step.

    Args:
        schedule: ``constant``, ``cosine`` (Loshchilov and Hutter 2017, without restarts), ``one_cycle`` (Smith and
            Topin 2018; shape and defaults of torch's OneCycleLR with cosine annealing) or ``step``.
        step: 0 <= step; steps past ``total`` stay at its last value.
        total: steps of the whole training.
        warmup: steps of linear warm-up, from 1/(warmup + 1); not for ``one_cycle``, which has its own.
        step_every: ``step``: steps between two drops.
        step_factor: ``step``: the factor of a drop.

    Raises:
        ValueError: the schedule is unknown.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"{schedule!r} is none of {', '.join(SCHEDULES)}")
    step = min(step, total)
    if schedule == "one_cycle":
        rise = max(1.0, ONE_CYCLE_RISE * total - 1)
        fall = max(1.0, total - 1 - rise)
        if step <= rise:
            return _anneal(ONE_CYCLE_START, 1.0, step / rise)
        return _anneal(1.0, ONE_CYCLE_END, min(1.0, (step - rise) / fall))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return _anneal(1.0, 0.0, (step - warmup) / max(1, total - warmup))
    return float(step_factor ** (step // max(1, step_every)))


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
