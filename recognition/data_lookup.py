"""The table of images that a word names: that of a run, of a prepared data set, or of a source."""

from __future__ import annotations

import re
from pathlib import Path

from recognition import datasets, preparation, tracking, versions
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DataError
from recognition.settings import home


def samples_named(word: str) -> versions.Samples:
    """Find the table of images of one version of data.

    Args:
        word: a run's id, a dataset digest or its beginning (8 digits at least), the folder of a prepared data set, a
            samples.parquet, or a source, which is then audited with the default settings.

    Raises:
        ConfigurationError, DataError, TrackingError: there is no such version.
    """
    path = Path(word).expanduser()
    if path.suffix == ".parquet" and path.name == versions.SAMPLES:
        return versions.read_samples(path)
    if (path / versions.SAMPLES).is_file():
        return versions.read_samples(path / versions.SAMPLES)
    if re.fullmatch(r"[0-9a-f]{8,64}", word) and not path.exists():
        return _by_digest(word) or versions.read_samples(tracking.samples_of(word))
    data = Data(source=word)
    return versions.read_samples(preparation.examine(data, preparation.locate(data)).path / versions.SAMPLES)


def _by_digest(word: str) -> versions.Samples | None:
    found: dict[str, Path] = {}
    for folder in sorted((home() / "datasets").glob("*/")):
        try:
            record = datasets.load(folder)
        except DataError:
            continue
        if record.digest.startswith(word) or folder.name == word:
            found.setdefault(record.digest, folder)
    if len(found) > 1:
        raise ConfigurationError(f"{word} is the beginning of {len(found)} data sets' digests: give more of it.")
    return next((versions.read_samples(folder / versions.SAMPLES) for folder in found.values()), None)
