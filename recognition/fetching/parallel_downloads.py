"""Fetching many files at once, such as the images that a manifest names."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock

from recognition.access import UNRESTRICTED, Access, check_form, refuse_credentials
from recognition.data_settings import Limits
from recognition.errors import ConfigurationError, DataError, DownloadError
from recognition.fetching.object_storage import is_object_address, open_storage
from recognition.fetching.remote import Limit, TransferError, UnreachableError, forget, size_of
from recognition.fetching.transfer import Connections, is_http, transfer
from recognition.progress import Progress
from recognition.storage import writing_to

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

AT_ONCE = 8
"""Files fetched side by side."""
DEAD_AFTER = 8
"""Files in a row that a host did not give, after the usual attempts at each, before it is asked no more."""

Job = TypeVar("Job")
Result = TypeVar("Result")


class _StoppedError(Exception):
    """Another file has ended the work."""


def go_on(stop: threading.Event) -> None:
    """Leave a transfer in the middle when the work is over."""
    if stop.is_set():
        raise _StoppedError


def fetch_objects(
    addresses: Sequence[str],
    downloads: Path,
    on_progress: Progress,
    access: Access = UNRESTRICTED,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    fresh: bool = False,
) -> list[Path | str]:
    """Fetch single files, each to a place of its own below <downloads>/images.

    What is there is whole, and is not asked for again unless ``fresh``.

    Args:
        addresses: http, https, s3, gs or az addresses; the same one may come more than once.
        access: what may be read.
        limits: files, bytes of one and of all.

    Returns:
        For each address the file, or the reason why there is none.

    Raises:
        DataError: more addresses than data.limits.files.
        DownloadError: more bytes than data.limits.gigabytes.
        StorageError: they cannot be written.
    """
    folder = downloads / "images"
    unique = list(dict.fromkeys(addresses))
    if len(unique) > limits.files:
        raise DataError(f"{len(unique):,} addresses are more than the {limits.files:,} that data.limits.files allows.")
    each, all_of_them = (
        Limit(int(limits.file_megabytes * 1e6), "data.limits.file_megabytes"),
        Limit(int(limits.gigabytes * 1e9), "data.limits.gigabytes"),
    )
    origins = _Origins(access)
    storages = origins.storages(unique)
    stop = threading.Event()

    def bring(address: str, connections: Connections) -> Path | str:
        if reason := origins.refuses(address):
            return reason
        target = _place(address, folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock"):
            if target.exists() and not fresh:
                return target
            part = target.with_name(f"{target.name}.part")
            forget(part)  # a single image is small: not worth telling whether it may go on
            try:
                transfer(address, part, lambda *_: go_on(stop), access, each, connections)
                part.replace(target)
            except (TransferError, ConfigurationError) as error:
                origins.failed(address, error)
                return str(error)
            finally:
                forget(part)
        origins.succeeded(address)
        return target

    outcome: dict[str, Path | str] = {}
    total = 0
    with (
        writing_to(folder),
        closing(in_parallel(unique, bring, lambda: Connections(access, storages), stop)) as results,
    ):
        for address, found in results:
            outcome[address] = found
            total += size_of(found) if isinstance(found, Path) else 0
            try:
                all_of_them.check(total)
            except TransferError as error:
                raise DownloadError(f"The files of the manifest cannot be fetched: {error}.") from None
            on_progress(len(outcome), len(unique), "fetching images")
    return [outcome[address] for address in addresses]


def in_parallel(
    jobs: Iterable[Job],
    work: Callable[[Job, Connections], Result],
    connect: Callable[[], Connections],
    stop: threading.Event,
) -> Generator[tuple[Job, Result], None, None]:
    """Results in the order they come. When the caller stops early, so does the work."""
    own = threading.local()
    opened: list[Connections] = []

    def run(job: Job) -> Result:
        go_on(stop)
        if not hasattr(own, "connections"):
            own.connections = connect()
            opened.append(own.connections)
        return work(job, own.connections)

    rest = iter(jobs)
    pending: dict[Future[Result], Job] = {}
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch")
    try:
        while True:
            for job in islice(rest, 4 * AT_ONCE - len(pending)):
                pending[pool.submit(run, job)] = job
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        for connections in opened:
            connections.close()


class _Origins:
    """What is known of each host: whether it may be read, and whether it still answers."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._refused: dict[str, str] = {}
        self._failures: Counter[str] = Counter()

    def refuses(self, address: str) -> str:
        """Why an address is not asked; empty when it is."""
        origin = _origin(address)
        if self._failures[origin] >= DEAD_AFTER:
            return f"its host did not answer for {DEAD_AFTER} other files, and was asked no more"
        try:
            if not is_http(address):
                self._access.check_address(address)
                return ""
            check_form(address)
            refuse_credentials(address)
        except ConfigurationError as error:
            return str(error)
        if origin not in self._refused:  # names are resolved once, not for each file
            try:
                self._access.check_address(f"{origin}/")
                self._refused[origin] = ""
            except ConfigurationError as error:
                self._refused[origin] = str(error)
        return self._refused[origin]

    def failed(self, address: str, error: Exception) -> None:
        if isinstance(error, UnreachableError):
            self._failures[_origin(address)] += 1

    def succeeded(self, address: str) -> None:
        self._failures[_origin(address)] = 0

    def storages(self, addresses: Iterable[str]) -> dict[str, AbstractFileSystem]:
        """The object storage that addresses lie in, opened once for all threads."""
        first = {a.partition("://")[0].lower(): a for a in addresses if is_object_address(a) and not self.refuses(a)}
        return {scheme: open_storage(address)[0] for scheme, address in first.items()}


def _origin(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme.lower()}://{re.split(r'[/?#]', rest, maxsplit=1)[0]}"


def _place(address: str, folder: Path) -> Path:
    digest = hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()
    ending = re.search(r"\.\w{1,8}$", re.split(r"[?#]", address, maxsplit=1)[0], re.ASCII)
    return folder / digest[:2] / f"{digest[2:]}{ending[0].lower() if ending else ''}"
