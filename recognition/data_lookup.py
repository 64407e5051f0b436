"""The table of images that a word names: that of a run, of a prepared data set, or of a source."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from recognition import datasets, preparation, tracking, versions
from recognition.configuration import load_experiment
from recognition.errors import ConfigurationError, DataError
from recognition.settings import home
from recognition.sources import check_source

_RUN_ID = 32
"""Digits of a run's id."""


def samples_named(word: str, settings: Sequence[str] = ()) -> versions.Samples:
    """Find the table of images of one version of data.

    Args:
        word: a run's id, a dataset digest or its beginning (8 digits at least), the folder of a prepared data set, a
            samples.parquet, or a source, which is then audited.
        settings: words such as ``data.label_column=kind`` for a source.

    Raises:
        ConfigurationError, DataError, TrackingError: there is no such version.
    """
    path = Path(word).expanduser()
    if path.suffix == ".parquet" and path.name == versions.SAMPLES:
        return versions.read_samples(path)
    if (path / versions.SAMPLES).is_file():
        return versions.read_samples(path / versions.SAMPLES)
    if re.fullmatch(r"[0-9a-f]{8,64}", word) and not path.exists():
        return _by_digest(word) or _of_run(word)
    data = load_experiment(None, [*settings, f"data.source={json.dumps(word)}"]).data
    try:
        check_source(data)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{word!r} is no run's id, no digest, no prepared folder and no source: {error}"
        ) from None
    return versions.read_samples(preparation.examine(data, preparation.locate(data)).path / versions.SAMPLES)


def _by_digest(word: str) -> versions.Samples | None:
    found: dict[str, list[Path]] = {}
    for folder in sorted((home() / "datasets").glob("*/")):
        try:
            record = datasets.load(folder)
        except DataError:
            continue
        if folder.name == word:
            return versions.read_samples(folder / versions.SAMPLES)
        if record.digest.startswith(word):
            found.setdefault(record.digest, []).append(folder)
    if len(found) > 1:
        raise ConfigurationError(f"{word} is the beginning of {len(found)} data sets' digests: give more of it.")
    for folders in found.values():
        tables = [versions.read_samples(folder / versions.SAMPLES) for folder in folders]
        if any(_split(table) != _split(tables[0]) for table in tables[1:]):  # a digest is of images and classes alone
            raise ConfigurationError(
                f"The images of the digest {word} are prepared with several splits. Give one of the folders: "
                + ", ".join(map(str, folders))
            )
        return tables[0]
    return None


def _split(samples: versions.Samples) -> Counter[tuple[bytes, str, str]]:
    return Counter(zip(samples.digests(), samples.class_names, samples.split, strict=True))


def _of_run(word: str) -> versions.Samples:
    if len(word) != _RUN_ID:
        raise ConfigurationError(
            f"No data set prepared here has a digest that begins with {word} ({home() / 'datasets'}). Give a run's id,"
            f" a folder, a {versions.SAMPLES} or a source."
        )
    return versions.read_samples(tracking.samples_of(word))
