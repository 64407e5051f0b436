"""Whether prepared images will fit on the disk, asked before they are fetched."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DataError
from recognition.records import Expected
from recognition.settings import home
from recognition.store import image_store
from recognition.store.decoding import LARGEST_ARRAY_BYTES
from recognition.store.shard_writing import expected_bytes


def store_bytes(data: Data, expected: Expected) -> int:
    """What the prepared images take on the disk."""
    shape = (expected.images, expected.height, expected.width, expected.channels)
    as_array = math.prod(shape)
    is_small = data.storage == "auto" and as_array <= LARGEST_ARRAY_BYTES
    return as_array if is_small or data.storage == "array" else expected_bytes(shape)


def check_disk(data: Data, expected: Expected) -> list[str]:
    """Refuse images for which there is no space once they are prepared.

    Returns:
        Warnings, where their size is only assumed.

    Raises:
        ConfigurationError: there is none, and no earlier run has prepared such images.
    """
    folder = home()
    needed, free = store_bytes(data, expected), shutil.disk_usage(folder).free
    if needed <= free or _is_stored(folder / "images", expected):
        return []
    message = (
        f"data.image_size: {expected.images:,} images of {expected.height}x{expected.width}x{expected.channels} take "
        f"{needed / 1e6:,.0f} MB in {folder}, where {free / 1e6:,.0f} MB are free: set it lower, free some, or set "
        "RECOGNITION_HOME to a folder on a larger disk."
    )
    if expected.size_is_sure:
        raise ConfigurationError(message)
    return [f"{message} The images are not known yet ({expected.known})."]


def _is_stored(folder: Path, expected: Expected) -> bool:
    """Whether as many images of this size lie there already."""
    wanted = (expected.images, expected.height, expected.width, expected.channels)
    for path in folder.glob(f"*/{image_store.RECORD}"):
        try:
            found = image_store.open_store(path.parent).record
        except DataError:
            continue
        if (found.images, found.height, found.width, found.channels) == wanted:
            return True
    return False
