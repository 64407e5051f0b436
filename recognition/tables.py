"""CSV tables for people: names of classes and files are text there, also to a spreadsheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

_CALCULATED = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with; the last four are the wide forms of the first, which some spreadsheets take as well."""


def write_csv(table: pd.DataFrame, path: Path, index: bool = False) -> None:
    """Write a table as CSV; a text that a spreadsheet would calculate gets an apostrophe before it.

    A folder or file may be called ``=HYPERLINK(...)``, and whoever opens the table should read that, not run it
    (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    plain = table.map(_as_text)
    plain.columns = pd.Index([_as_text(name) for name in table.columns])
    if index:
        plain.index = pd.Index([_as_text(name) for name in table.index], name=_as_text(table.index.name))
    # lines end as RFC 4180 says: only then a carriage return within a name is quoted, and ends no line;
    # a file's name may hold bytes that are no text
    plain.to_csv(path, index=index, lineterminator="\r\n", encoding="utf-8", errors="backslashreplace")


def _as_text(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(_CALCULATED):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
