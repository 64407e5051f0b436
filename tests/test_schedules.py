"""Schedules equal torch's own, step by step."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from lightning_modules.schedules import factor

RATE = 0.5


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], RATE)


def rates(scheduler: LRScheduler, steps: int) -> list[float]:
    """The rate each step is made with, as a factor of the highest."""
    result = []
    for _ in range(steps):
        result.append(scheduler.get_last_lr()[0] / RATE)
        scheduler.optimizer.step()
        scheduler.step()
    return result


@pytest.mark.parametrize("total", [10, 37, 300, 1000])
def test_one_cycle_is_torchs(total: int) -> None:
    theirs = OneCycleLR(optimizer(), RATE, total_steps=total + 1)
    ours = [factor("one_cycle", step, total + 1) for step in range(total)]
    assert ours == pytest.approx(rates(theirs, total), rel=1e-9, abs=1e-12)


def test_one_cycle_rises_over_a_third_and_falls_to_almost_nothing() -> None:
    ours = [factor("one_cycle", step, 100) for step in range(100)]
    assert ours[0] == pytest.approx(1 / 25)
    assert ours[29] == pytest.approx(1.0)
    assert ours[99] == pytest.approx(1 / 250_000)
    assert ours[:30] == sorted(ours[:30])
    assert ours[29:] == sorted(ours[29:], reverse=True)


@pytest.mark.parametrize("total", [1, 2, 3, 5])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "step"])
def test_the_shortest_trainings_have_rates_above_0(schedule: str, total: int) -> None:
    for step in range(total):
        assert 0 < factor(schedule, step, total) <= 1


@pytest.mark.parametrize("total", [2, 10, 300])
def test_cosine_is_torchs(total: int) -> None:
    ours = [factor("cosine", step, total) for step in range(total)]
    assert ours == pytest.approx(rates(CosineAnnealingLR(optimizer(), total), total), rel=1e-6, abs=1e-9)


def test_step_is_torchs() -> None:
    ours = [factor("step", step, 50, step_every=12, step_factor=0.3) for step in range(50)]
    assert ours == pytest.approx(rates(StepLR(optimizer(), 12, gamma=0.3), 50))


def test_constant_stays() -> None:
    assert {factor("constant", step, 10) for step in range(12)} == {1.0}


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_warm_up_rises_in_equal_steps_to_the_highest_rate(schedule: str) -> None:
    ours = [factor(schedule, step, 100, warmup=4, step_every=50) for step in range(5)]
    assert ours == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_cosine_falls_over_what_the_warm_up_leaves() -> None:
    ours = [factor("cosine", step, 100, warmup=20) for step in range(20, 100)]
    assert ours == pytest.approx([factor("cosine", step, 80) for step in range(80)])


def test_a_warm_up_as_long_as_the_training_is_only_warm_up() -> None:
    assert [factor("cosine", step, 4, warmup=9) for step in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "step"])
def test_after_the_end_the_last_value_stays(schedule: str) -> None:
    assert factor(schedule, 500, 100) == factor(schedule, 100, 100)


@pytest.mark.parametrize("warmup", [0, 5])
def test_an_unknown_schedule_is_refused(warmup: int) -> None:
    with pytest.raises(ValueError, match="'linear' is none of constant, cosine, one_cycle, step"):
        factor("linear", 0, 10, warmup=warmup)
