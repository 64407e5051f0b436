"""Data sets of the Hugging Face hub by name, and those that its library has saved to a folder.

Library: https://huggingface.co/docs/datasets. Only its file formats are read; code that a data set brings is never run.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import re
from pathlib import Path
from typing import Any

from recognition.access import UNRESTRICTED, Access, redacted_text
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DataError, DownloadError, OutOfReachError
from recognition.progress import Progress
from recognition.settings import install_command
from recognition.sources.huggingface_rows import Loaded, first_line, given_splits, images_of
from recognition.sources.labelled import Images

PREFIX = "hf:"


def is_saved(folder: Path) -> bool:
    """Whether the library has saved a data set to this folder."""
    return (folder / "dataset_dict.json").is_file() or _is_one(folder)


def parse(source: str) -> tuple[str, str, Path | None]:
    """Name, configuration, and the local folder that the name means, if there is one."""
    name, _, configuration = source.removeprefix(PREFIX).partition(":")
    folder = Path(name).expanduser().absolute() if name else Path()
    return name, configuration, folder if name and folder.is_dir() else None


def check_name(source: str) -> None:
    """Refuse, without asking the hub, what is no name of a data set, or cannot be read here.

    Raises:
        ConfigurationError: it is no name, or the library is not installed.
    """
    name, configuration, folder = parse(source)
    if folder is None and not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise ConfigurationError(
            f"data.source {source!r}: {name!r} is no name of a data set on the Hugging Face hub. Expected is hf:<name>,"
            " hf:<owner>/<name>, or either with :<configuration>."
        )
    if configuration and not re.fullmatch(r"[\w.+-]+", configuration):
        raise ConfigurationError(f"data.source {source!r}: {configuration!r} is no name of a configuration.")
    require_library()


def require_library() -> None:
    """Say how to install the library, if it is not.

    Raises:
        ConfigurationError: it is not installed.
    """
    if importlib.util.find_spec("datasets") is None:
        raise ConfigurationError(
            "Hugging Face data sets need the library datasets, which is not installed:"
            f" {install_command('huggingface')}"
        )


def saved(
    folder: Path, data: Data, on_progress: Progress, *, access: Access = UNRESTRICTED, fingerprint: str = ""
) -> Images:
    """Read a data set that ``save_to_disk`` has written.

    Raises:
        ConfigurationError: the library is missing, or a setting names no column.
        DataError: it is damaged, or holds no labelled images.
    """
    library = _library(None)
    names = _saved_splits(folder)
    try:
        parts = {name: library.load_from_disk(str(folder / name if name else folder)) for name in names}
    except Exception as error:  # Arrow and the library have many
        raise DataError(
            f"The data set in {folder} is damaged ({first_line(error)}). Save or fetch it again."
        ) from error
    loaded = Loaded(library, parts, f"the data set in {folder}", access)
    return images_of(loaded, data, on_progress, fingerprint)


def named(
    data: Data,
    downloads: Path,
    on_progress: Progress,
    *,
    access: Access = UNRESTRICTED,
    fresh: bool = False,
    fingerprint: str = "",
) -> Images:
    """Read a data set of the hub, or a local folder that the library can load; it is kept below ``downloads``.

    Raises:
        ConfigurationError: the library is missing, or a setting names no column or configuration.
        DownloadError: the hub does not give it.
        DataError: it holds no labelled images, or splits that are none of ours.
    """
    check_name(data.source)
    cache = downloads / "huggingface"
    library = _library(cache)
    name, configuration, folder = parse(data.source)
    if folder is not None:
        access.check_path(folder)
        if is_saved(folder):
            return saved(folder, data, on_progress, access=access, fingerprint=fingerprint)
        name = str(folder)
    elif name in getattr(library.packaged_modules, "_PACKAGED_DATASETS_MODULES", {}):
        raise ConfigurationError(f"data.source {data.source!r}: {name} is a reader of the library, not a data set.")
    on_progress(0, 0, f"fetching {name}")
    parts = _load(library, name, configuration, cache, fresh)
    loaded = Loaded(library, parts, data.source, access, cache.absolute())
    return images_of(loaded, data, on_progress, fingerprint)


def revision(source: str) -> str:
    """What the hub calls the present state of a data set; empty text where it does not answer."""
    name, _, _ = parse(source)
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        return str(hub.HfApi().dataset_info(name, timeout=5).sha)
    except Exception:  # a mark of the state is worth no failure: what cannot be read is said when it is read
        return ""


def _library(cache: Path | None) -> Any:
    require_library()
    if cache is not None:
        # read when the library is first imported; a user's own setting is kept
        os.environ.setdefault("HF_HOME", str(cache))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    library: Any = importlib.import_module("datasets")
    library.disable_progress_bars()
    return library


def _load(library: Any, name: str, configuration: str, cache: Path, fresh: bool) -> dict[str, Any]:
    # versions before 4 could run a script of the data set's owner
    safe = (
        {"trust_remote_code": False}
        if "trust_remote_code" in inspect.signature(library.load_dataset).parameters
        else {}
    )
    try:
        loaded = library.load_dataset(
            name,
            configuration or None,
            cache_dir=str(cache),
            download_mode="force_redownload" if fresh else None,
            **safe,
        )
    except library.exceptions.DatasetNotFoundError as error:
        raise DataError(
            f"hf:{name}: there is no such data set on the hub, or it needs a token in HF_TOKEN ({_plain(error)})."
        ) from error
    except (ConnectionError, TimeoutError) as error:
        raise OutOfReachError(
            f"hf:{name} could not be fetched from the hub: {_plain(error)}. Check the network and the proxy, or"
            " give a folder written by save_to_disk as data.source."
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"hf:{name} cannot be loaded: {_plain(error)}") from error
    except MemoryError:
        raise
    except Exception as error:  # each builder has error types of its own
        module = type(error).__module__.partition(".")[0]
        if module in ("requests", "httpx", "huggingface_hub", "urllib3"):
            raise DownloadError(f"hf:{name} could not be fetched from the hub: {_plain(error)}.") from error
        raise DataError(f"hf:{name} cannot be loaded: {_plain(error)}") from error
    return dict(loaded) if isinstance(loaded, dict) else {"": loaded}


def _saved_splits(folder: Path) -> list[str]:
    """The splits of a saved data set; its own records must not lead outside of its folder."""
    names = [""]
    try:
        if (folder / "dataset_dict.json").is_file():
            names = [str(name) for name in json.loads((folder / "dataset_dict.json").read_bytes())["splits"]]
            given_splits(names, f"the data set in {folder}")
        for name in names:
            state = json.loads((folder / name / "state.json").read_bytes())
            for entry in state["_data_files"]:
                if not re.fullmatch(r"[\w-][\w.-]*", entry["filename"]):
                    raise DataError(f"The data set in {folder} names a file outside of it: {entry['filename']!r}.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The data set in {folder} is damaged ({first_line(error)}). Save or fetch it again."
        ) from error
    return names


def _is_one(folder: Path) -> bool:
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


def _plain(error: BaseException) -> str:
    return redacted_text(first_line(error))
