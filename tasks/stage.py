"""What all stages share: a Prefect task, never cached, with a time limit, and whose time is a metric of the run."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from recognition import tracking
from tasks.limits import within_limit

P = ParamSpec("P")
R = TypeVar("R")


def stage(name: str) -> Callable[[Callable[Concatenate[str, P], R]], Task[Concatenate[str, P], R]]:
    """Make a function whose first argument is the MLflow run's id a stage of that name.

    Its wall time is logged as ``seconds/<name>``, also when it fails. It is ended when its time is over, and never
    tried again: a defect stays one, and trainings are dear.
    """

    def decorate(function: Callable[Concatenate[str, P], R]) -> Task[Concatenate[str, P], R]:
        @functools.wraps(function)
        def work(run_id: str, *args: P.args, **kwargs: P.kwargs) -> R:
            with timed(run_id, name), within_limit(name):
                return function(run_id, *args, **kwargs)

        return task(name=name, task_run_name=name, cache_policy=NO_CACHE)(work)

    return decorate


@contextmanager
def timed(run_id: str, name: str) -> Iterator[None]:
    """Log the wall time of the block as ``seconds/<name>``, also when it fails."""
    began = time.perf_counter()
    try:
        yield
    finally:
        tracking.log_metrics(run_id, {f"seconds/{name}": time.perf_counter() - began})
