"""Stages whose results are kept: a later run with the same inputs and code finds them done, and says so."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.runtime import deployment
from prefect.tasks import exponential_backoff

import recognition
from recognition.errors import OutOfReachError
from recognition.experiment import digest_of
from recognition.settings import home
from tasks.limits import within_limit
from tasks.stage import timed
from tasks.watching import run_logger

P = ParamSpec("P")
RETRIES = 3
FIRST_WAIT = 10
"""Seconds before the first of them; doubled each time, and varied by half."""


class Kept(Protocol):
    """A result that lies on disk."""

    def is_whole(self) -> bool:
        """Whether it is still there."""
        ...


K = TypeVar("K", bound=Kept)


def kept_stage(
    name: str, key: Callable[P, str], talks_to_hosts: bool = False
) -> Callable[[Callable[Concatenate[str, bool, P], K]], Callable[Concatenate[str, bool, P], K]]:
    """Make a function of (run_id, fresh, inputs ...) a stage that Prefect caches.

    Args:
        name: of the stage and its task.
        key: says what the result depends on, from the inputs; the code and the state folder are added.
        talks_to_hosts: on a worker, where nobody watches, it is tried again when a host was out of reach. That is for
            minutes without a network: shorter trouble is met inside, by `recognition.fetching.transfer`.

    The task itself is not run when Prefect holds a result of the same key and the result's files are still there;
    with ``fresh`` it always is. The wall time is logged as ``seconds/<name>`` either way.
    """

    def decorate(function: Callable[Concatenate[str, bool, P], K]) -> Callable[Concatenate[str, bool, P], K]:
        def cache_key(run: TaskRunContext, parameters: dict[str, object]) -> str:
            inputs = {name: value for name, value in parameters.items() if name not in ("run_id", "fresh")}
            said = key(**inputs)  # type: ignore[arg-type, call-arg]  # Prefect hands the arguments over by name
            return f"{name}-{digest_of([said, code_digest(), str(home())])}"

        @functools.wraps(function)
        def limited(run_id: str, fresh: bool, /, *args: P.args, **kwargs: P.kwargs) -> K:
            with within_limit(name):
                return function(run_id, fresh, *args, **kwargs)

        work = task(
            name=name,
            task_run_name=name,
            cache_key_fn=cache_key,
            persist_result=True,
            result_serializer="json",
            retry_delay_seconds=exponential_backoff(FIRST_WAIT)(RETRIES),
            retry_jitter_factor=0.5,
            retry_condition_fn=_may_pass,
        )(limited)

        def stage(run_id: str, fresh: bool, /, *args: P.args, **kwargs: P.kwargs) -> K:
            with timed(run_id, name):
                retries = RETRIES if talks_to_hosts and deployment.id else 0
                state = work.with_options(refresh_cache=fresh, retries=retries)(
                    run_id, fresh, *args, **kwargs, return_state=True
                )
                result: K = state.result()
                if state.name != "Cached":
                    return result
                if result.is_whole():
                    run_logger().info(f"{name}: nothing to do, an earlier run has done it (--fresh does it again)")
                    return result
                anew: K = work.with_options(refresh_cache=True, retries=retries)(run_id, fresh, *args, **kwargs)
                return anew

        return stage

    return decorate


def _may_pass(work: Task[..., object], run: TaskRun, state: State[object]) -> bool:
    """Whether another attempt can help: what the user or a defect has done wrong stays wrong."""
    return isinstance(state.result(raise_on_failure=False), OutOfReachError)


@cache
def code_digest() -> str:
    """SHA-256 (hex) over the domain's source code."""
    root = Path(recognition.__file__).parent
    whole = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        whole.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()
