"""GPUs as slots: a run that needs GPUs waits until they are free, and no two runs of a machine ever share one.

Two things say that a GPU is taken. A lock on a file for each GPU, which the kernel releases with its holder, keeps the
runs of one machine apart, whatever server they belong to. Slots of Prefect's limit (``tasks/leases.py``) let a team say
how many GPUs are used at all. The locks come first: only who has a GPU at hand asks for a slot, so nobody waits with
one.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Running

from recognition import tracking
from recognition.errors import ConfigurationError, StorageError
from tasks.leases import give_back, leased
from tasks.watching import run_logger

ALLOWED = "RECOGNITION_GPUS"
"""Which GPUs this worker may use, by their numbers in ``nvidia-smi``, such as 0,1; all when it is not set."""
LOCKS = "RECOGNITION_GPU_LOCKS"
"""Where the locks lie: one folder a machine. Containers that share GPUs must share it."""
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_LINES = 60.0


@dataclass(frozen=True)
class Gpu:
    """A GPU: what CUDA calls it, and the name of its lock."""

    word: str
    name: str


@contextmanager
def gpu_slot(run_id: str, device: str, devices: int) -> Iterator[tuple[str, ...]]:
    """Take GPUs while the block runs, after waiting for them; ``seconds/waiting`` is logged.

    Args:
        run_id: the MLflow run.
        device: "cuda" takes GPUs, anything else none.
        devices: how many.

    Yields:
        What CUDA_VISIBLE_DEVICES of the stages is to say, a word a GPU; empty where that is left alone.

    Raises:
        ConfigurationError: there are not as many; by the setting's name.
    """
    if device != "cuda":
        yield ()
        return
    began = time.perf_counter()
    with taken(devices) as gpus:
        tracking.log_metrics(run_id, {"seconds/waiting": time.perf_counter() - began})
        yield gpus


@contextmanager
def taken(devices: int) -> Iterator[tuple[str, ...]]:
    """As ``gpu_slot``, without a run that says how long it took."""
    gpus = own_gpus()
    if not gpus:
        run_logger().warning("NVML lists no GPU: on this machine only Prefect's limit keeps runs apart.")
    elif devices > len(gpus):
        shown = ", ".join(gpu.word for gpu in gpus)
        raise ConfigurationError(
            f"training.devices: {devices} GPUs are asked for, and this worker may use {len(gpus)} ({shown}). "
            f"Ask for fewer, or let it use more by {ALLOWED} or CUDA_VISIBLE_DEVICES."
        )
    with ExitStack() as stack:
        waiting = _Waiting()
        locks = stack.enter_context(_locked(gpus, devices, waiting.say)) if gpus else []
        lease = stack.enter_context(leased(devices, len(gpus), waiting.say))
        for lock in locks:
            lock.note(lease)
        waiting.end()
        if locks:
            run_logger().info(f"GPU {', '.join(lock.gpu.word for lock in locks)}")
        yield tuple(lock.gpu.word for lock in locks)


def cuda_environment(gpus: tuple[str, ...]) -> dict[str, str]:
    """What lets a stage's process see these GPUs and no others."""
    # numbers are those of nvidia-smi, which CUDA by itself does not keep
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if gpus else {}


def own_gpus() -> list[Gpu]:
    """The GPUs that this worker may use; none where nobody can tell them apart.

    Raises:
        ConfigurationError: RECOGNITION_GPUS names something else.
    """
    found = _listed_by_nvml()
    asked = os.environ.get(ALLOWED, "")
    if asked:
        words = [word.strip() for word in asked.split(",")]
        known = ", ".join(gpu.word for gpu in found)
        for word in words:
            if not word.isdecimal() or (found and int(word) >= len(found)):
                raise ConfigurationError(
                    f"{ALLOWED}={asked!r}: {word!r} is no GPU of this machine. Give numbers, such as 0,1"
                    + (f"; there are {known}." if found else ".")
                )
        numbers = sorted({int(word) for word in words})
        # the operator's word counts where NVML says nothing
        return [found[number] if found else Gpu(str(number), f"gpu-{number}") for number in numbers]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    return [_named(word.strip(), found) for word in visible.split(",") if word.strip()]


def _named(word: str, found: list[Gpu]) -> Gpu:
    """A GPU by its number or its UUID; another word is a part of one (MIG), with a lock of its own."""
    by_name = [gpu for gpu in found if gpu.name.startswith(word)]
    if word.isdecimal() and int(word) < len(found):
        return found[int(word)]
    return by_name[0] if len(by_name) == 1 else Gpu(word, word)


def _listed_by_nvml() -> list[Gpu]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [Gpu(str(index), str(pynvml.nvmlDeviceGetUUID(handle))) for index, handle in enumerate(handles)]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


class _Lock:
    """The lock of one GPU: a file that says, while it is locked, which lease goes with it."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self._file = -1

    def take(self) -> bool:
        """Lock it, unless somebody has; what a killed holder has left at Prefect's server is given back."""
        path = _lock_folder() / f"{''.join(c if c.isalnum() or c == '-' else '_' for c in self.gpu.name)}.lock"
        try:
            # not emptied by opening it, and no way to have another file written to by a link
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise StorageError(f"{path} cannot be opened ({error.strerror}): give another folder in {LOCKS}.") from None
        with suppress(PermissionError):
            os.fchmod(file, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        _give_back_what_is_left(os.pread(file, 4096, 0))
        self._write(b"")
        return True

    def note(self, lease: UUID | None) -> None:
        """Write down which lease goes with the lock."""
        if lease is not None:
            content = {"api": PREFECT_API_URL.value(), "lease": str(lease), "pid": os.getpid()}
            self._write(json.dumps(content).encode())

    def give_back(self) -> None:
        self._write(b"")
        os.close(self._file)

    def _write(self, content: bytes) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, content, 0)


def _give_back_what_is_left(note: bytes) -> None:
    """A holder that was killed could not give its slots back; that its lock is free tells that it is gone."""
    try:
        content = json.loads(note)
        if content["api"] == PREFECT_API_URL.value():
            give_back(UUID(content["lease"]))
    except (ValueError, KeyError, TypeError):
        return


def _lock_folder() -> Path:
    folder = Path(os.environ.get(LOCKS) or Path(tempfile.gettempdir()) / "recognition-gpus")
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            # for the workers of all users of this machine
            folder.chmod(0o777)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made ({error.strerror}): give another folder in {LOCKS}.") from None
    return folder


@contextmanager
def _locked(gpus: list[Gpu], devices: int, waiting_for: Callable[[str], None]) -> Iterator[list[_Lock]]:
    """Lock so many of the GPUs, all at once or none."""
    while True:
        locks: list[_Lock] = []
        try:
            for gpu in gpus:
                lock = _Lock(gpu)
                if len(locks) < devices and lock.take():
                    locks.append(lock)
            if len(locks) == devices:
                yield locks
                return
        finally:
            for lock in locks:
                lock.give_back()
        shown = ", ".join(gpu.word for gpu in gpus)
        some = "a GPU" if devices == 1 else f"{devices} GPUs"
        waiting_for(f"{some} of this machine ({shown}), taken by other runs")
        time.sleep(SECONDS_BETWEEN_LOOKS * random.uniform(0.5, 1.5))


class _Waiting:
    """Says what a run waits for: in its log once a minute, and as the name of its state."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._said = 0.0

    def say(self, what: str) -> None:
        now = time.monotonic()
        if self._said and now - self._said < SECONDS_BETWEEN_LINES:
            return
        if not self._said:
            _show("WaitingForGPU", f"Waits for {what}.")
        self._said = now
        run_logger().info(f"waits for {what} ({now - self._began:.0f} s so far)")

    def end(self) -> None:
        if self._said:
            run_logger().info(f"waited {time.monotonic() - self._began:.0f} s for a GPU")
            _show("Running", "")


def _show(name: str, message: str) -> None:
    """Name the flow run's state, which stays RUNNING; Prefect's rules leave a run that is being cancelled as it is."""
    if flow_run.id:
        with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(flow_run.id), Running(name=name, message=message or None))
