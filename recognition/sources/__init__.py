"""Where images come from: a named data set, a folder, an archive, a manifest or the Hugging Face hub, by path or
address."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from recognition.access import UNRESTRICTED, Access, local_path, redacted
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DataError
from recognition.fetching.downloads import fetch_archive, fetch_folder, fetch_objects, validators
from recognition.progress import Progress, silent
from recognition.sources import archives, folders, huggingface, manifests, tables
from recognition.sources.cifar import cifar10, cifar100
from recognition.sources.columns import refuse_columns, refuse_columns_of_hub
from recognition.sources.digits import digits
from recognition.sources.groups import with_groups
from recognition.sources.idx import fashion_mnist, mnist
from recognition.sources.labelled import Images

__all__ = ["SOURCES", "Images", "Progress", "check_source", "open_source", "signature", "silent"]

SOURCES: dict[str, Callable[[Data, Path, Progress, Access, bool], Images]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
}
"""The named data sets. A new one is a function that answers with `Images`, and an entry here."""

_BUCKETS = ("s3", "gs", "az")


def check_source(data: Data, access: Access = UNRESTRICTED) -> None:
    """Refuse, without fetching anything, a source that cannot be one, or may not be read.

    Raises:
        ConfigurationError: an unknown data set, an address of an unknown kind, a checksum where none is compared, a
            column where there is none, or what ``access`` does not allow.
        DataError: a path that does not exist, or a file that is neither an archive nor a manifest.
    """
    if data.source in SOURCES:
        _no_checksum(data, f"{data.source} is checked against checksums that are known")
        refuse_columns(data, f"{data.source} is a named data set", grouped_by_path=False)
        if data.mirror:
            _check_place(data.mirror, access)
        return
    if data.source.startswith(huggingface.PREFIX):
        _no_checksum(data, "the Hugging Face library checks what it fetches")
        refuse_columns_of_hub(data, f"{data.source} is a Hugging Face data set")
        _check_hub(data.source, access)
        return
    _check_place(data.source, access)
    if _is_address(data.source):
        if _is_remote_folder(data.source):
            _no_checksum(data, f"{redacted(data.source)} is a folder")
        elif _is_named(data.source, archives.SUFFIXES):
            refuse_columns(data, f"{redacted(data.source)} is an archive")
        return
    path = _local_path(data.source)
    if path.is_dir():
        _no_checksum(data, f"{path} is a folder")
        if huggingface.is_saved(path):
            huggingface.require_library()
        _check_columns_of_folder(data, path, str(path))
    elif not path.exists():
        raise _unknown(data.source, path)
    elif not tables.is_table(path):
        if not archives.is_archive(path, data.limits):
            if begins := archives.how_it_begins(path, data.limits):
                raise DataError(f"{path} {begins}: fetch or make it again.")
            raise DataError(f"{path} is neither a zip nor a tar, nor a folder or a manifest (.csv, .parquet). {_KINDS}")
        refuse_columns(data, f"{path} is an archive")


def open_source(
    data: Data,
    downloads: Path,
    on_progress: Progress = silent,
    *,
    access: Access = UNRESTRICTED,
    fresh: bool = False,
    fingerprint: str = "",
) -> Images:
    """Fetch what is missing, and list the images of a source.

    Args:
        data: the settings; those of the audit, of splits and sizes are not looked at.
        downloads: the folder that fetched files are kept in.
        on_progress: told (done, total, what).
        access: what may be read.
        fresh: fetch again what is there already.
        fingerprint: that of an earlier call for the same content, which then need not be read for it.

    Raises:
        ConfigurationError, DataError: as `check_source` says, or the content is not as expected.
        DownloadError: a file cannot be fetched whole.
        StorageError: ``downloads`` cannot be written.
    """
    check_source(data, access)
    images = _open(data, downloads, on_progress, access, fresh, fingerprint)
    try:
        return with_groups(images, data)
    except BaseException:
        images.close()
        raise


def signature(data: Data, access: Access = UNRESTRICTED) -> str:
    """A cheap mark of a source's present state, for the key of a cache; nothing is fetched, no content is read.

    Names, sizes and times of local files; for addresses what the server says of them.
    """
    whole = hashlib.sha256()
    for part in _marks(data, access):
        whole.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return whole.hexdigest()


def _marks(data: Data, access: Access) -> Iterator[str]:
    yield data.source
    if data.source in SOURCES:
        yield data.mirror
        return
    path = _local_path(data.source)
    if data.source.startswith(huggingface.PREFIX):
        _, _, folder = huggingface.parse(data.source)
        if folder is None:
            yield huggingface.revision(data.source)
            return
        path = folder
    elif _is_address(data.source):
        yield data.checksum
        yield validators(data.source, access)
        return
    yield str(path)
    if path.is_dir():
        files, _, special = folders.walk(path, data.limits, access)
        for name in sorted(files):
            yield f"{name}\0{manifests.stamp(path / name)}"
        yield from sorted(special)
        return
    yield manifests.stamp(path)
    if path.is_file() and tables.is_table(path):
        yield from manifests.signature_of(path, data)


def _open(data: Data, downloads: Path, on_progress: Progress, access: Access, fresh: bool, fingerprint: str) -> Images:
    if data.source in SOURCES:
        return SOURCES[data.source](data, downloads, on_progress, access, fresh)
    if data.source.startswith(huggingface.PREFIX):
        return huggingface.named(data, downloads, on_progress, access=access, fresh=fresh, fingerprint=fingerprint)
    if _is_address(data.source):
        return _open_address(data, downloads, on_progress, access, fresh, fingerprint)
    path = _local_path(data.source)
    if path.is_dir():
        if huggingface.is_saved(path):
            return huggingface.saved(path, data, on_progress, access=access, fingerprint=fingerprint)
        return folders.folder(path, data.limits, on_progress, access, fingerprint)
    _check_hash(path, data.checksum)
    return _open_file(path, "", data, downloads, on_progress, access, fresh, fingerprint)


def _open_address(
    data: Data, downloads: Path, on_progress: Progress, access: Access, fresh: bool, fingerprint: str
) -> Images:
    if _is_remote_folder(data.source):
        path = fetch_folder(data.source, downloads, on_progress, access=access, limits=data.limits, fresh=fresh)
        _check_columns_of_folder(data, path, redacted(data.source))
        if huggingface.is_saved(path):
            return huggingface.saved(path, data, on_progress, access=access, fingerprint=fingerprint)
        return folders.folder(path, data.limits, on_progress, UNRESTRICTED, fingerprint)
    path = fetch_archive(
        data.source,
        data.checksum,
        downloads,
        on_progress,
        access=access,
        fresh=fresh,
        limit_bytes=int(data.limits.gigabytes * 1e9),
        is_told=bool(fingerprint),
    )
    if not tables.is_table(path):
        _require_archive(path, data)
        refuse_columns(data, f"{redacted(data.source)} is an archive")
    return _open_file(path, data.source, data, downloads, on_progress, access, fresh, fingerprint)


def _require_archive(path: Path, data: Data) -> None:
    if archives.is_archive(path, data.limits):
        return
    begins = archives.how_it_begins(path, data.limits)
    path.unlink()
    if begins:
        raise DataError(f"What {redacted(data.source)} gives {begins}: fetch or make it again. It was removed.")
    raise DataError(
        f"What {redacted(data.source)} gives is neither a zip nor a tar, and not named as a manifest (.csv, .parquet)."
        " It was removed. Check the address."
    )


def _check_columns_of_folder(data: Data, path: Path, name: str) -> None:
    if huggingface.is_saved(path):
        refuse_columns_of_hub(data, f"{name} is a Hugging Face data set")
    else:
        refuse_columns(data, f"{name} is a folder")


def _open_file(
    path: Path,
    address: str,
    data: Data,
    downloads: Path,
    on_progress: Progress,
    access: Access,
    fresh: bool,
    fingerprint: str,
) -> Images:
    if not tables.is_table(path):
        return archives.archive(path, data.limits, fingerprint)

    def fetch(addresses: Sequence[str]) -> Sequence[Path | str]:
        return fetch_objects(addresses, downloads, on_progress, access=access, limits=data.limits, fresh=fresh)

    return manifests.manifest(path, data, fetch, on_progress, access=access, address=address, fingerprint=fingerprint)


def _check_hub(source: str, access: Access) -> None:
    _, _, folder = huggingface.parse(source)
    if folder is not None:
        access.check_path(folder)
    else:
        access.check_address(source)
    huggingface.check_name(source)


def _check_place(source: str, access: Access) -> None:
    if _is_address(source):
        access.check_address(source)
    else:
        access.check_path(_local_path(source))


def _no_checksum(data: Data, reason: str) -> None:
    if data.checksum:
        raise ConfigurationError(f"data.checksum is for archives and manifests, and {reason}. Remove it.")


def _is_address(source: str) -> bool:
    scheme, separator, _ = source.partition("://")
    if not separator or scheme.lower() == "file":
        return False
    if scheme.lower() not in manifests.SCHEMES:
        raise ConfigurationError(f"data.source {redacted(source)!r}: {scheme}:// cannot be fetched from. {_KINDS}")
    return True


def _is_remote_folder(address: str) -> bool:
    """Whether an address names all objects below it; what is no archive or manifest by its name."""
    named = _is_named(address, (*archives.SUFFIXES, *tables.SUFFIXES))
    return address.partition("://")[0].lower() in _BUCKETS and not named


def _is_named(address: str, suffixes: tuple[str, ...]) -> bool:
    return urlsplit(address).path.lower().endswith(suffixes)


def _local_path(source: str) -> Path:
    return local_path(source).absolute()


def _check_hash(path: Path, checksum: str) -> None:
    kind, _, expected = checksum.partition(":")
    if checksum and (found := archives.hash_of(path, kind)) != expected:
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
    return DataError(f"data.source {redacted(source)!r}: {path} does not exist. {_KINDS}")


_KINDS = (
    "Give a data set's name, hf:<name>, a folder, or a zip, tar or manifest (.csv, .parquet), by path or by http(s),"
    " s3, gs or az address."
)
