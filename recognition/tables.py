"""CSV tables for people: names of classes and files are text there, also to a spreadsheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd


def write_csv(table: pd.DataFrame, path: Path, index: bool = False) -> None:
    """Write a table as CSV; a text that a spreadsheet would calculate gets an apostrophe before it.

    A folder or file may be called ``=HYPERLINK(...)``, and whoever opens the table should read that, not run it
    (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    plain = table.map(_as_text)
    plain.columns = pd.Index([_as_text(name) for name in table.columns])
    if index:
        plain.index = pd.Index([_as_text(name) for name in table.index])
    plain.to_csv(path, index=index)


def _as_text(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
