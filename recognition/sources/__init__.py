"""Where images come from: a named data set, a folder, or an archive of a folder, local or by address."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from recognition.downloads import fetch_archive
from recognition.errors import ConfigurationError, DataError
from recognition.experiment import Data
from recognition.progress import Progress, silent
from recognition.sources import folders
from recognition.sources.cifar import cifar10, cifar100
from recognition.sources.digits import digits
from recognition.sources.idx import fashion_mnist, mnist
from recognition.sources.labelled import Images

__all__ = ["SOURCES", "Images", "Progress", "check_source", "open_source", "silent"]

SOURCES: dict[str, Callable[[Data, Path, Progress], Images]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
}
"""The named data sets. A new one is a function that answers with `Images`, and an entry here."""


def check_source(data: Data) -> None:
    """Refuse, without fetching anything, a source that cannot be one.

    Raises:
        ConfigurationError: an unknown data set, an address of an unknown kind, a checksum where none is compared.
        DataError: a path that does not exist, or a file that is no archive.
    """
    if data.source in SOURCES:
        if data.checksum:
            raise ConfigurationError(
                f"data.checksum is for archives of your own; {data.source} is checked against checksums that are"
                " known. Remove it."
            )
        return
    if _is_address(data.source):
        return
    path = _local_path(data.source)
    if path.is_dir():
        if data.checksum:
            raise ConfigurationError(f"data.checksum is for archives, and {path} is a folder. Remove it.")
    elif not path.exists():
        raise _unknown(data.source, path)
    elif not folders.is_archive(path):
        raise DataError(f"{path} is neither a zip nor a tar, nor a folder. {_KINDS}")


def open_source(data: Data, downloads: Path, on_progress: Progress = silent) -> Images:
    """Fetch what is missing, and list the images of a source.

    Args:
        data: the settings; only source, mirror and checksum are looked at.
        downloads: the folder that fetched files are kept in.
        on_progress: told (done, total, what).

    Raises:
        ConfigurationError, DataError: as `check_source` says, or the content is not as expected.
        DownloadError: a file cannot be fetched whole.
        StorageError: ``downloads`` cannot be written.
    """
    check_source(data)
    if data.source in SOURCES:
        return SOURCES[data.source](data, downloads, on_progress)
    if _is_address(data.source):
        path = fetch_archive(data.source, data.checksum, downloads, on_progress)
        if not folders.is_archive(path):
            path.unlink()
            raise DataError(f"What {data.source} gives is neither a zip nor a tar (removed). Check the address.")
        return folders.archive(path, on_progress)
    path = _local_path(data.source)
    if path.is_dir():
        return folders.folder(path, on_progress)
    _check_hash(path, data.checksum)
    return folders.archive(path, on_progress)


def _is_address(source: str) -> bool:
    scheme, separator, _ = source.partition("://")
    if not separator or scheme.lower() == "file":
        return False
    if scheme.lower() not in ("http", "https"):
        raise ConfigurationError(f"data.source {source!r}: {scheme}:// cannot be fetched from. {_KINDS}")
    return True


def _local_path(source: str) -> Path:
    text = url2pathname(urlsplit(source).path) if source.lower().startswith("file://") else source
    return Path(text).expanduser().absolute()


def _check_hash(path: Path, checksum: str) -> None:
    kind, _, expected = checksum.partition(":")
    if checksum and (found := folders.hash_of(path, kind)) != expected:
        raise DataError(
            f"{path} has the wrong checksum: expected {checksum}, got {kind}:{found}. Fetch the file again, or correct"
            " data.checksum."
        )


def _unknown(source: str, path: Path) -> ConfigurationError | DataError:
    known = ", ".join(SOURCES)
    if "/" not in source and "\\" not in source and "." not in source:
        close = get_close_matches(source.lower(), SOURCES, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        return ConfigurationError(
            f"data.source {source!r} is no known data set ({known}), and no folder or archive of that name exists{hint}"
        )
    return DataError(f"data.source {source!r}: {path} does not exist. {_KINDS}")


_KINDS = "Give a data set's name, a folder, or a zip or tar by path or http(s) address."
