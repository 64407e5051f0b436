"""Run a stage in a process of its own that has torch and Lightning loaded and never saw Prefect.

The processes are forked from a server that pays the imports once (``start_host``). Training there keeps data loader
workers and several devices away from Prefect, and a process that dies does not take the flow with it.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from recognition.errors import ConfigurationError, RecognitionError, StageError
from recognition.events import Emit, Event, Message, ignore
from recognition.settings import home
from recognition.storage import writing_to

PRELOAD = ["lightning_modules.preload"]
SECONDS_TO_END = 5.0


def start_host() -> None:
    """Begin to load torch and Lightning in the background; call it early, it returns at once."""
    multiprocessing.set_forkserver_preload(PRELOAD)
    forkserver.ensure_running()


def run_isolated(
    target: str,
    *arguments: Any,
    on_event: Emit = ignore,
    processes: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Call ``module:function`` with the arguments and an ``emit`` keyword in another process and return its result.

    Args:
        target: the function by name, so that this process need not import its module.
        arguments: small, picklable records.
        on_event: called in this process with each event the stage emits.
        processes: with more than one, so many ranks of one distributed job; the result is rank 0's.
        environment: variables that the other process has on top of this one's.

    Raises:
        RecognitionError: the same mistake of the user that the stage raised.
        StageError: the stage failed otherwise, with its traceback, or its process died.
    """
    start_host()
    context = multiprocessing.get_context("forkserver")
    children: dict[Connection, BaseProcess] = {}
    port = _free_port() if processes > 1 else 0
    try:
        for rank in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            ranks = _rank_variables(rank, processes, port) if processes > 1 else {}
            variables = dict(os.environ) | dict(environment or {}) | ranks
            child: BaseProcess = context.Process(target=_work, args=(target, arguments, sender, variables), name=target)
            with _main_not_imported_again():
                child.start()
            sender.close()
            children[receiver] = child
        return _collect(children, target, on_event)
    except BaseException:
        for child in children.values():
            _signal_group(child, signal.SIGTERM)
        raise
    finally:
        deadline = time.monotonic() + SECONDS_TO_END
        for child in children.values():
            _end(child, deadline)


def _collect(children: dict[Connection, BaseProcess], target: str, on_event: Emit) -> Any:
    results: list[Any] = [None] * len(children)
    ranks = {channel: rank for rank, channel in enumerate(children)}
    waiting = set(children)
    while waiting:
        for ready in wait(list(waiting)):
            assert isinstance(ready, Connection)
            try:
                kind, content = ready.recv()
            except EOFError:
                child = children[ready]
                child.join(SECONDS_TO_END)
                raise StageError(_why_it_died(target, child.exitcode)) from None
            if kind == "event":
                on_event(content)
            elif kind == "result":
                results[ranks[ready]] = content
                waiting.discard(ready)
            elif kind == "mistake":
                raise content
            else:
                reason, trace = content
                raise StageError(f"{target} failed in its own process: {reason}\n{trace}")
    return results[0]


def _why_it_died(target: str, exitcode: int | None) -> str:
    if exitcode == -signal.SIGKILL:
        return (
            f"The process of {target} was killed (signal 9): most often the machine ran out of memory. "
            "Try a smaller training.batch_size, data.image_size or training.loader_workers."
        )
    if exitcode is not None and exitcode < 0:
        return f"The process of {target} was ended by signal {-exitcode} ({signal.Signals(-exitcode).name})."
    return f"The process of {target} ended with code {exitcode} and no result."


def _signal_group(child: BaseProcess, number: int) -> None:
    """Signal the child and the processes it started (loader workers)."""
    if child.pid is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)


def _end(child: BaseProcess, deadline: float) -> None:
    """Let the child end; after a grace time, kill it with all it started."""
    if child.pid is None:
        return
    child.join(max(0.0, deadline - time.monotonic()))
    _signal_group(child, signal.SIGKILL)
    child.join()
    child.close()


def _work(target: str, arguments: tuple[Any, ...], channel: Connection, environment: dict[str, str]) -> None:
    """The body of a child process."""
    os.setsid()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    sending = threading.Lock()

    def emit(event: Event) -> None:
        with sending:
            channel.send(("event", event))

    logger = logging.getLogger("recognition")
    logger.setLevel(logging.INFO)
    logger.addHandler(_ToEvents(emit))
    try:
        with writing_to(home()):
            outcome = ("result", resolve(target)(*arguments, emit=emit))
    except RecognitionError as mistake:
        outcome = ("mistake", mistake)
    except Exception as error:
        shortage = _shortage_of_memory(error)
        # the reason first: it is what a run's page shows
        outcome = ("mistake", shortage) if shortage else ("failure", (_in_a_line(error), traceback.format_exc()))
    with sending:
        channel.send(outcome)


def _in_a_line(error: Exception) -> str:
    return ": ".join(filter(None, [type(error).__name__, *str(error).strip().splitlines()[:1]]))


def _shortage_of_memory(error: Exception) -> ConfigurationError | None:
    """What to do, where an error says that memory was not enough; torch has no type of its own for the CPU's."""
    on_gpu = type(error).__name__ == "OutOfMemoryError" or "CUDA out of memory" in str(error)
    if not (on_gpu or isinstance(error, MemoryError) or "can't allocate memory" in str(error)):
        return None
    whose, last = ("the GPU", ", or set training.precision=bf16") if on_gpu else ("this machine", "")
    return ConfigurationError(
        f"training.batch_size: the memory of {whose} was not enough ({_in_a_line(error)}). Try a smaller "
        f"training.batch_size, data.image_size or model.network{last}."
    )


def resolve(target: str) -> Callable[..., Any]:
    """The function that ``module:function`` names."""
    module, _, function = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


class _ToEvents(logging.Handler):
    """Send log records to the process that started the stage."""

    def __init__(self, emit: Emit) -> None:
        super().__init__()
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        self._emit(Message(record.levelno, record.getMessage()))


@contextmanager
def _main_not_imported_again() -> Iterator[None]:
    """Keep multiprocessing from importing this program's main module (Prefect's engine, say) in the child."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _rank_variables(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What torch.distributed and Lightning read to join a job whose processes somebody else started."""
    return {
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
