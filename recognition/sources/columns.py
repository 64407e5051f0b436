"""Settings that name columns, refused where a source has no such column: nothing that is set is passed over."""

from __future__ import annotations

from collections.abc import Collection

from recognition.data_settings import Data
from recognition.errors import ConfigurationError

_SETTINGS = ("path_column", "label_column", "split_column", "group_column")
_OF_THE_HUB = ("path_column", "label_column", "group_column")
"""Those that Hugging Face data sets have too: their splits are named apart from their columns."""


def refuse_columns(data: Data, reason: str, *, grouped_by_path: bool = True) -> None:
    """Refuse every setting of a column, for a source without any.

    Args:
        data: the settings.
        reason: what the source is, as the rest of a sentence.
        grouped_by_path: whether its paths can tell groups, as those of folders and archives.

    Raises:
        ConfigurationError: one is set.
    """
    _refuse(data, _SETTINGS, reason, grouped_by_path)


def refuse_columns_of_hub(data: Data, reason: str) -> None:
    """Refuse what Hugging Face data sets have no use for; their groups cannot be given twice either.

    Raises:
        ConfigurationError: such a setting is set.
    """
    _refuse(data, [name for name in _SETTINGS if name not in _OF_THE_HUB], reason, grouped_by_path=False)
    refuse_groups_given_twice(data)


def refuse_groups_given_twice(data: Data) -> None:
    """Refuse groups from a column and from paths at once.

    Raises:
        ConfigurationError: both are set.
    """
    if data.group_column and data.group_pattern:
        raise ConfigurationError("data.group_column and data.group_pattern both say what the groups are: keep one.")


def _refuse(data: Data, names: Collection[str], reason: str, grouped_by_path: bool) -> None:
    for name in names:
        if not getattr(data, name):
            continue
        holders = "manifests and Hugging Face data sets" if name in _OF_THE_HUB else "manifests"
        fix = "use data.group_pattern, or remove it" if name == "group_column" and grouped_by_path else "remove it"
        raise ConfigurationError(f"data.{name} is for {holders}, and {reason}: {fix}.")
