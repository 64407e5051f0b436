"""A store of decoded images that machines share in object storage: its tables are fetched whole, its shards as read.

The operator names the place in the environment of each worker; credentials come from there too.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from recognition.errors import ConfigurationError
from recognition.store.object_store import TABLES
from recognition.store.shard_cache import mirror_into, naming, open_address, upload

PLACE = "RECOGNITION_STORE"
"""Where stores are kept: an address such as s3://bucket/prefix. Without it each machine keeps its own."""
CACHE = "RECOGNITION_STORE_CACHE_GB"
"""How much of each shared store a machine keeps; the shards not used for longest go first. Without it all stay."""
_TABLES = ("measures.npy", "sums.npy")


def address_of(key: str) -> str:
    """Where the store of a key is kept for all machines; empty text where none is.

    Raises:
        ConfigurationError: the setting of the place or of the cache cannot be used.
    """
    place = os.environ.get(PLACE, "").strip().rstrip("/")
    if not place:
        return ""
    scheme, separator, path = place.partition("://")
    if not (scheme and separator and path.strip("/")):
        raise ConfigurationError(f"{PLACE} is {place!r}: give an address such as s3://bucket/prefix.")
    cache_bytes()  # what is wrong is told before anything is decoded
    return f"{place}/{key}"


def cache_bytes() -> int:
    """What a machine keeps of a shared store at most, in bytes; 0 for everything.

    Raises:
        ConfigurationError: the setting is no number, or less than 0.
    """
    text = os.environ.get(CACHE, "").strip()
    try:
        size = float(text or 0)
    except ValueError:
        size = -1.0
    if not 0 <= size < math.inf:
        raise ConfigurationError(f"{CACHE} is {text!r}: give a number of GB, or leave it out to keep everything.")
    return int(size * 1e9)


def publish(folder: Path, address: str, record: str) -> None:
    """Put a store in shards where other machines find it; its record last, so that it is there whole or not at all.

    Raises:
        ConfigurationError: the library for such addresses is not installed.
        DownloadError: the address cannot be written.
    """
    upload(folder / "shards", f"{address}/shards")
    files, root = open_address(address)
    with naming(address, "be written"):
        of_objects = [name for name in TABLES if (folder / name).is_file()]
        for name in (*_TABLES, *of_objects, record):
            files.put_file(str(folder / name), f"{root}/{name}")


def fetch(address: str, folder: Path, record: str) -> bool:
    """Fill a folder with a store that another machine has published; answers whether there is one.

    Raises:
        ConfigurationError: the library for such addresses is not installed.
        DownloadError: the address does not answer.
    """
    files, root = open_address(address)
    with naming(address, "be fetched"):
        if not files.exists(f"{root}/{record}"):
            return False
        of_objects = [name for name in TABLES if files.exists(f"{root}/{name}")]
        for name in (*_TABLES, *of_objects, record):
            files.get_file(f"{root}/{name}", str(folder / name))
    mirror_into(folder / "shards", f"{address}/shards")
    return True
