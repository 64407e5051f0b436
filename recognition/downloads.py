"""Fetching files once, checked against their hash: from public mirrors in turn, or from a mirror of one's own."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from recognition.errors import DownloadError, StorageError
from recognition.progress import Progress
from recognition.storage import writing_to
from recognition.transfer import TransferError, transfer


def fetch(
    data_set: str,
    file_name: str,
    checksum: str,
    mirrors: Sequence[str],
    mirror: str,
    downloads: Path,
    on_progress: Progress,
) -> Path:
    """Fetch one original file of a named data set, unless it is there with the right hash.

    Args:
        checksum: md5:<hex> or sha256:<hex>.
        mirrors: public base addresses, tried in turn; the file name is added to them.
        mirror: a base address or folder of the user's own. When given, nothing else is asked, and
            <mirror>/<data set>/<file name> is fetched.
        downloads: the file goes to <downloads>/<data set>/<file name>.

    Raises:
        DownloadError: no address gives the file with that hash; the message names each with its reason.
        StorageError: it cannot be written.
    """
    relative = f"{data_set}/{file_name}"
    addresses = [f"{mirror.rstrip('/')}/{relative}"] if mirror else [f"{base}{file_name}" for base in mirrors]
    fix = (
        f"Check that data.mirror {mirror!r} holds {relative}, unchanged and within reach, or leave data.mirror empty"
        " for the public addresses."
        if mirror
        else "Check the network and the proxy, or fetch the file elsewhere and set data.mirror to a folder or an"
        f" address that holds {relative}."
    )
    return _fetch(addresses, checksum, downloads / data_set / file_name, fix, on_progress)


def fetch_archive(address: str, checksum: str, downloads: Path, on_progress: Progress) -> Path:
    """Fetch an archive by its address to <downloads>/archives/<hash of the address>/<name>.

    An archive that is there already is not fetched again; without a checksum its content is not looked at.

    Raises:
        DownloadError: the address does not give it, or with another checksum.
        StorageError: it cannot be written.
    """
    name = re.sub(r"[^\w.+-]", "_", unquote(PurePosixPath(urlsplit(address).path).name)).lstrip(".") or "archive"
    target = downloads / "archives" / hashlib.sha256(address.encode()).hexdigest()[:12] / name
    fix = "Check the address, or correct data.checksum if the archive was replaced by its owner."
    return _fetch([address], checksum, target, fix, on_progress)


class _Downloader:
    """What pooch calls to fetch an address into a temporary file of its own."""

    def __init__(self, part: Path, what: str, on_progress: Progress) -> None:
        self.part = part
        self.resumed = part.exists()
        self.what = what
        self.on_progress = on_progress

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        transfer(url, self.part, lambda done, total: self.on_progress(done, total, self.what))
        self.part.replace(output_file)


def _fetch(addresses: Sequence[str], checksum: str, target: Path, fix: str, on_progress: Progress) -> Path:
    part = target.with_name(f"{target.name}.part")
    reasons: list[str] = []
    try:
        with writing_to(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(target.parent / ".lock"):
                if not checksum:
                    if target.exists():
                        return target
                    part.unlink(missing_ok=True)  # nothing would tell whether it belongs to today's content
                for address in addresses:
                    if _fetched(address, checksum, target, part, reasons, on_progress):
                        return target
    except StorageError:
        with suppress(OSError):  # the folder itself may be what cannot be written
            part.unlink()
        raise
    if not checksum:
        part.unlink(missing_ok=True)
    raise DownloadError("\n".join([f"{target.name} could not be fetched:", *(f"  {r}" for r in reasons), fix]))


def _fetched(address: str, checksum: str, target: Path, part: Path, reasons: list[str], on_progress: Progress) -> bool:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    while True:
        downloader = _Downloader(part, f"fetching {target.name}", on_progress)
        try:
            pooch.retrieve(address, checksum or None, fname=target.name, path=target.parent, downloader=downloader)
            return True
        except TransferError as error:
            reasons.append(f"{address}: {error}")
            return False
        except ValueError as error:  # pooch's word for a wrong hash; it has removed the file
            if downloader.resumed:
                continue  # the beginning came from an earlier attempt: once more, from the start
            reasons.append(f"{address}: {_wrong_hash(str(error), checksum)}")
            return False


def _wrong_hash(text: str, checksum: str) -> str:
    kind = checksum.partition(":")[0]
    got = re.search(r"but got (\w+)", text)
    return f"wrong checksum, expected {checksum}, got {kind}:{got[1]} (removed)" if got else text
