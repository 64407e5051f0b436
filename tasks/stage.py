"""What all stages share: a Prefect task that is never cached, timed, and whose time is a metric of the run."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from recognition import tracking

P = ParamSpec("P")
R = TypeVar("R")


def stage(name: str) -> Callable[[Callable[Concatenate[str, P], R]], Task[Concatenate[str, P], R]]:
    """Make a function whose first argument is the MLflow run's id a stage of that name.

    Its wall time is logged as ``seconds/<name>``, also when it fails.
    """

    def decorate(function: Callable[Concatenate[str, P], R]) -> Task[Concatenate[str, P], R]:
        @functools.wraps(function)
        def timed(run_id: str, *args: P.args, **kwargs: P.kwargs) -> R:
            began = time.perf_counter()
            try:
                return function(run_id, *args, **kwargs)
            finally:
                tracking.log_metrics(run_id, {f"seconds/{name}": time.perf_counter() - began})

        return task(name=name, task_run_name=name, cache_policy=NO_CACHE)(timed)

    return decorate
