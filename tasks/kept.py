"""Stages whose results are kept: a later run with the same inputs and code finds them done, and says so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from prefect import task
from prefect.context import TaskRunContext

import recognition
from recognition.experiment import digest_of
from recognition.settings import home
from tasks.stage import timed
from tasks.watching import run_logger

P = ParamSpec("P")


class Kept(Protocol):
    """A result that lies on disk."""

    def is_whole(self) -> bool:
        """Whether it is still there."""
        ...


K = TypeVar("K", bound=Kept)


def kept_stage(
    name: str, key: Callable[P, str]
) -> Callable[[Callable[Concatenate[str, bool, P], K]], Callable[Concatenate[str, bool, P], K]]:
    """Make a function of (run_id, fresh, inputs ...) a stage that Prefect caches.

    Args:
        name: of the stage and its task.
        key: says what the result depends on, from the inputs; the code and the state folder are added.

    The task itself is not run when Prefect holds a result of the same key and the result's files are still there;
    with ``fresh`` it always is. The wall time is logged as ``seconds/<name>`` either way.
    """

    def decorate(function: Callable[Concatenate[str, bool, P], K]) -> Callable[Concatenate[str, bool, P], K]:
        def cache_key(run: TaskRunContext, parameters: dict[str, object]) -> str:
            inputs = {name: value for name, value in parameters.items() if name not in ("run_id", "fresh")}
            said = key(**inputs)  # type: ignore[arg-type, call-arg]  # Prefect hands the arguments over by name
            return f"{name}-{digest_of([said, code_digest(), str(home())])}"

        work = task(
            name=name,
            task_run_name=name,
            cache_key_fn=cache_key,
            persist_result=True,
            result_serializer="json",
        )(function)

        def stage(run_id: str, fresh: bool, /, *args: P.args, **kwargs: P.kwargs) -> K:
            with timed(run_id, name):
                state = work.with_options(refresh_cache=fresh)(run_id, fresh, *args, **kwargs, return_state=True)
                result: K = state.result()
                if state.name != "Cached":
                    return result
                if result.is_whole():
                    run_logger().info(f"{name}: nothing to do, an earlier run has done it (--fresh does it again)")
                    return result
                anew: K = work.with_options(refresh_cache=True)(run_id, fresh, *args, **kwargs)
                return anew

        return stage

    return decorate


@cache
def code_digest() -> str:
    """SHA-256 (hex) over the domain's source code."""
    root = Path(recognition.__file__).parent
    whole = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        whole.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()
