"""Sets of shards in object storage: put there, and fetched shard by shard into a folder of this machine."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import ValidationError

from recognition.errors import ConfigurationError, DataError, DownloadError
from recognition.settings import home, install_command
from recognition.storage import writing_to
from recognition.store.shard_files import INDEX, Shard, ShardIndex, digest_of_file, read_index, write_index

_AT_ONCE = 4
_EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def upload(folder: Path, address: str) -> None:
    """Copy a set to an address that fsspec knows (``s3://bucket/prefix``); its index last, so that it is whole or none.

    Shards that are there already are not sent again.

    Raises:
        DataError: the folder holds no whole set.
        ConfigurationError: the library for such addresses is not installed.
        DownloadError: the address cannot be written.
    """
    index = read_index(folder)
    files, root = open_address(address)
    with naming(address, "be written"):
        if address.partition("://")[0] not in _EXTRAS:  # there a missing bucket would be made, for a slip of the pen
            files.makedirs(root, exist_ok=True)

        def send(shard: Shard) -> None:
            target = f"{root}/{shard.name}"
            if not (files.exists(target) and files.size(target) == shard.bytes):
                files.put_file(str(folder / shard.name), target)

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="upload") as pool:
            list(pool.map(send, index.shards))
        content = index.model_copy(update={"address": ""}).model_dump_json(indent=1)
        files.pipe_file(f"{root}/{INDEX}", content.encode())


def mirror(address: str, cache: Path | None = None) -> Path:
    """Make a folder for the set at an address; its index is fetched now, its shards when they are read.

    Raises:
        ConfigurationError: the library for such addresses is not installed.
        DownloadError: the address does not answer, or holds no set.
        DataError: what it holds is no index.
    """
    folder = (cache or home() / "shards") / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]
    mirror_into(folder, address)
    return folder


def mirror_into(folder: Path, address: str) -> None:
    """Make a folder one for the set at an address, as `mirror` does."""
    files, root = open_address(address)
    with naming(f"{address.rstrip('/')}/{INDEX}", "be fetched"):
        content = files.cat_file(f"{root}/{INDEX}")
    try:
        index = ShardIndex.model_validate_json(content)
    except ValidationError as error:
        raise DataError(f"{_shown(address)} holds no set of shards: its {INDEX} is damaged.") from error
    with writing_to(folder.parent):
        folder.mkdir(parents=True, exist_ok=True)
        write_index(index.model_copy(update={"address": address.rstrip("/")}), folder)


def fetch_all(folder: Path, index: ShardIndex, numbers: list[int], cap_bytes: int) -> None:
    """Fetch those of some shards that are not here; of a set that lies here whole, none.

    Raises:
        DownloadError: a shard cannot be fetched whole.
        StorageError: the folder cannot be written.
    """
    if not index.address:
        return
    missing = [index.shards[number] for number in numbers if not (folder / index.shards[number].name).exists()]
    if missing:
        with ThreadPoolExecutor(min(_AT_ONCE, len(missing)), thread_name_prefix="fetch") as pool:
            list(pool.map(lambda shard: _fetch(folder, index.address, shard), missing))
    if cap_bytes:
        used = {index.shards[number].name for number in numbers}
        for name in used:
            with contextlib.suppress(FileNotFoundError):
                os.utime(folder / name)
        if missing:
            _make_room(folder, used, cap_bytes)


def _fetch(folder: Path, address: str, shard: Shard) -> None:
    path = folder / shard.name
    part = folder / f".{shard.name}.part"
    with writing_to(folder), FileLock(folder / f".{shard.name}.lock"):
        if path.exists():  # by another process
            return
        files, root = open_address(address)
        with naming(f"{address}/{shard.name}", "be fetched"):
            files.get_file(f"{root}/{shard.name}", str(part))
        if digest_of_file(part) != shard.sha256:
            size = part.stat().st_size
            part.unlink()
            raise DownloadError(
                f"{_shown(address)}/{shard.name} is not the shard that {INDEX} names ({size:,} of {shard.bytes:,} "
                "bytes came): upload the set again."
            )
        part.replace(path)


def _make_room(folder: Path, used: set[str], cap_bytes: int) -> None:
    """Remove the shards that were not used for longest, but none of those in use here."""
    with FileLock(folder / ".room.lock"):
        found = []
        for path in folder.glob("*.arrow"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= cap_bytes:
                return
            if path.name not in used:
                path.unlink(missing_ok=True)
                total -= size


def open_address(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        ConfigurationError: the library for such addresses is not installed.
    """
    import fsspec

    try:
        files, root = fsspec.url_to_fs(address)
    except (ImportError, ValueError) as error:
        scheme = address.partition("://")[0]
        fix = install_command(_EXTRAS[scheme]) if scheme in _EXTRAS else "use s3, gs or az"
        raise ConfigurationError(
            f"{_shown(address)}: addresses with {scheme}:// cannot be used here: {fix}."
        ) from error
    return files, str(root).rstrip("/")


@contextlib.contextmanager
def naming(address: str, what: str) -> Iterator[None]:
    """Turn what the libraries of object storage raise into a `DownloadError` that names the address."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise DownloadError(f"{_shown(address)} cannot {what} ({_reason(error)}). {_FIX}") from error
    except Exception as error:  # each library has types of its own
        raise DownloadError(f"{_shown(address)} cannot {what} ({_reason(error)}). {_FIX}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such object"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _shown(address: str) -> str:
    return re.sub(r"://[^/@]*@", "://", address)


_FIX = "Check the address, the connection, and the credentials in the environment."
