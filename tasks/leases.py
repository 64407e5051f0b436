"""Slots of Prefect's global concurrency limit ``gpu``, by a lease that ends by itself when its holder is killed."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.runtime import flow_run

from recognition.errors import ConfigurationError
from tasks.watching import run_logger

LIMIT = "gpu"
LEASE_SECONDS = 60.0
"""The shortest that Prefect's server grants."""
SECONDS_BETWEEN_RENEWALS = 15.0
SECONDS_BETWEEN_ATTEMPTS = 2.0
_TAKEN = 423


@contextmanager
def leased(slots: int, here: int, waiting_for: Callable[[str], None]) -> Iterator[UUID | None]:
    """Hold slots of the limit while the block runs, after waiting for them.

    A limit that is missing is created. Without an answer of the server the block runs all the same, with one warning.

    Args:
        slots: how many are needed.
        here: GPUs of this machine, which a new limit gets as its slots.
        waiting_for: told again and again what is waited for.

    Yields:
        The lease's id, by which anybody can give the slots back; None without a lease.

    Raises:
        ConfigurationError: the limit has fewer slots than are needed.
    """
    with get_client(sync_client=True) as client:
        try:
            lease = _acquire(client, slots, here, waiting_for)
        except httpx.HTTPError as error:
            run_logger().warning(
                f"Prefect's concurrency limit {LIMIT} cannot be asked ({type(error).__name__}): "
                "only the locks of this machine keep runs apart."
            )
            lease = None
        if lease is None:
            yield None
            return
        over = threading.Event()
        renewing = threading.Thread(target=_renew, args=(lease, over, run_logger()), daemon=True)
        renewing.start()
        try:
            yield lease
        finally:
            over.set()
            give_back(lease)


def give_back(lease: UUID) -> None:
    """Give the slots of a lease back; one that has ended already stays as it is."""
    try:
        with get_client(sync_client=True) as client:
            client.release_concurrency_slots_with_lease(lease)
    except httpx.HTTPError as error:
        run_logger().warning(
            f"The slot of {LIMIT} could not be given back ({type(error).__name__}): it ends by itself in "
            f"{LEASE_SECONDS:.0f} seconds."
        )


def _acquire(client: SyncPrefectClient, slots: int, here: int, waiting_for: Callable[[str], None]) -> UUID | None:
    limit = limit_of(client, max(here, slots))
    if limit < slots:
        raise ConfigurationError(
            f"training.devices: {slots} GPUs are asked for, and Prefect's concurrency limit {LIMIT} has {limit}. "
            f"Ask for fewer, or raise it: prefect gcl update {LIMIT} --limit {slots}"
        )
    holder = ConcurrencyLeaseHolder(type="flow_run", id=UUID(flow_run.id)) if flow_run.id else None
    while True:
        try:
            answer = client.increment_concurrency_slots_with_lease(
                [LIMIT], slots, "concurrency", LEASE_SECONDS, holder=holder
            )
            return UUID(answer.json()["lease_id"])
        except httpx.HTTPStatusError as error:
            if error.response.status_code != _TAKEN:
                raise
        waiting_for(f"{_counted(slots, 'slot')} of Prefect's concurrency limit {LIMIT}, whose {limit} are taken")
        time.sleep(SECONDS_BETWEEN_ATTEMPTS * random.uniform(0.5, 1.5))


def limit_of(client: SyncPrefectClient, slots: int) -> int:
    """How many slots the limit has; one that is missing is created with ``slots``.

    What a person has set is kept: servers are shared by machines, and only people know how many.
    """
    try:
        return client.read_global_concurrency_limit_by_name(LIMIT).limit
    except ObjectNotFound:
        try:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=slots))
        except ObjectAlreadyExists:
            return client.read_global_concurrency_limit_by_name(LIMIT).limit
    run_logger().info(
        f"Prefect's concurrency limit {LIMIT} was made, with {_counted(slots, 'slot')}, as many as this machine has "
        f"GPUs. With workers on other machines raise it: prefect gcl update {LIMIT} --limit N"
    )
    return slots


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _renew(lease: UUID, over: threading.Event, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
    """Keep a lease until ``over``; a server that is away for a while may still know it when it is back."""
    warned = False
    with get_client(sync_client=True) as client:
        while not over.wait(SECONDS_BETWEEN_RENEWALS):
            try:
                client.renew_concurrency_lease(lease, LEASE_SECONDS)
            except httpx.HTTPError as error:
                if not warned and not over.is_set():
                    logger.warning(
                        f"The slot of {LIMIT} could not be kept ({type(error).__name__}): the run goes on, and only "
                        "the locks of this machine keep other runs from its GPUs."
                    )
                warned = True
