"""Tables of text from CSV and Parquet files, with every cell as it is written; what is no table is refused by line."""

from __future__ import annotations

import csv
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from recognition.data_settings import Limits
from recognition.errors import ConfigurationError, DataError

SUFFIXES = (".csv", ".tsv", ".parquet")
LONGEST_CELL = 131_072
"""Characters; Python's csv module allows no more either."""

_LONGEST_LINE = 16_000_000
_BATCH_ROWS = 1024
_DELIMITERS = (",", ";", "\t")


@dataclass
class Table:
    """Columns of text of equal length."""

    where: str
    """How messages call the file."""
    columns: dict[str, list[str]]
    lines: Sequence[int]
    """For each row its line in the file, counted from 1; for Parquet its number."""
    unusable: dict[str, str] = field(default_factory=dict)
    """Columns that are no text or numbers, and what they are."""
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.lines)

    def find(self, wanted: str, setting: str, usual: Sequence[str]) -> str:
        """The name of a column: the wanted one, else the first of the usual ones, in any case; or empty text.

        Raises:
            ConfigurationError: there is no column of the wanted name.
        """
        return find_column(list(self.columns), wanted, setting, usual, self.where, self.unusable)

    def named(self, rows: Sequence[int], limit: int = 10) -> str:
        """The lines of some rows, for a message."""
        numbers = ", ".join(str(self.lines[row]) for row in rows[:limit])
        more = f" and {len(rows) - limit} more" if len(rows) > limit else ""
        return f"{self.unit}{'' if len(rows) == 1 else 's'} {numbers}{more}"


def is_table(path: Path) -> bool:
    """Whether a file is named as a table."""
    return path.suffix.lower() in SUFFIXES


def find_column(
    names: Sequence[str], wanted: str, setting: str, usual: Sequence[str], where: str, unusable: dict[str, str]
) -> str:
    """See `Table.find`."""
    by_lower = {name.lower(): name for name in reversed(names)}
    if wanted:
        if wanted in names:
            return wanted
        if wanted in unusable:
            raise ConfigurationError(f"data.{setting} {wanted!r}: this column of {where} holds {unusable[wanted]}.")
        if wanted.lower() in by_lower:
            return by_lower[wanted.lower()]
        raise ConfigurationError(f"data.{setting} {wanted!r} is no column of {where}; it has {listed(names)}.")
    return next((by_lower[name] for name in usual if name in by_lower), "")


def listed(names: Sequence[str]) -> str:
    """The names of columns, for a message."""
    more = f" and {len(names) - 30} more" if len(names) > 30 else ""
    return (", ".join(repr(name[:100]) for name in names[:30]) + more) or "none"


def read_table(path: Path, limits: Limits) -> Table:
    """Read a CSV (.csv, .tsv) or Parquet file.

    Raises:
        DataError: it is empty, damaged, not UTF-8, not rectangular, or larger than the limits.
    """
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        return _parquet(path, limits) if is_parquet or path.suffix.lower() == ".parquet" else _csv(path, limits)
    except OSError as error:
        raise DataError(f"The manifest {path} cannot be read ({error.strerror or error}).") from error


def as_text(value: object) -> str:
    """A value as a person writes it: whole numbers without a fraction, nothing for nothing."""
    if value is None or value != value:
        return ""
    if isinstance(value, (float, Decimal)) and value == value // 1:
        return str(int(value))
    return str(value)


def _csv(path: Path, limits: Limits) -> Table:
    where = f"the manifest {path}"
    number = 0
    with path.open("rb") as file:
        lines = _decoded(file, path)
        first = next((line for line in lines if line.strip()), "")
        if not first:
            raise DataError(f"The manifest {path} is empty. {EXPECTED}")
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first.count)
        reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        try:
            names = [name.strip() for name in next(reader)]
            _check_names(names, path)
            cells: list[list[str]] = [[] for _ in names]
            numbers = array("q")
            pools: list[dict[str, str]] = [{} for _ in names]
            number = reader.line_num
            for row in reader:
                number, start = reader.line_num, number + 1
                if not row:
                    continue
                if len(row) != len(names):
                    raise DataError(
                        f"The manifest {path}, line {start}: {len(row)} cells, but the header has {len(names)}. Put"
                        " cells that hold the separator in double quotes."
                    )
                _check_rows(len(numbers) + 1, path, limits)
                numbers.append(start)
                for column, pool, cell in zip(cells, pools, row, strict=True):
                    # labels, splits and groups repeat: kept once
                    column.append(pool.setdefault(cell, cell) if len(pool) < 10_000 else pool.get(cell, cell))
        except csv.Error as error:
            raise DataError(f"The manifest {path}, line {number + 1}: {_csv_trouble(str(error))}") from error
    if not numbers:
        raise DataError(f"The manifest {path} has a header but no rows. {EXPECTED}")
    # a column without a name is the row number that pandas writes
    return Table(where, {name: column for name, column in zip(names, cells, strict=True) if name}, numbers)


def _decoded(file: BinaryIO, path: Path) -> Iterator[str]:
    number = 0
    while raw := file.readline(_LONGEST_LINE):
        number += 1
        if number == 1:
            if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise DataError(f"The manifest {path}, line 1: it is UTF-16, not UTF-8. {_SAVE}")
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if len(raw) == _LONGEST_LINE:
            raise DataError(
                f"The manifest {path}, line {number} is longer than {_LONGEST_LINE:,} bytes: it is no table."
            )
        if b"\0" in raw:
            raise DataError(f"The manifest {path}, line {number} holds a NUL byte: it is no text. {_SAVE}")
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = f"0x{raw[error.start]:02x}"
            raise DataError(f"The manifest {path}, line {number}: byte {byte} is not UTF-8. {_SAVE}") from error


def _csv_trouble(text: str) -> str:
    if "field larger" in text:
        return f"a cell is longer than {LONGEST_CELL:,} characters. Is a quote missing?"
    if "unexpected end" in text:
        return "a double quote is opened, but never closed."
    if "expected after" in text:
        return "text follows a closing double quote. Write a double quote inside a cell as two."
    if "new-line" in text:
        return "a line ends with a carriage return alone. Save it with the line ends of Windows or Linux."
    return f"it is no row of a table ({text})."


def _parquet(path: Path, limits: Limits) -> Table:
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            _check_rows(file.metadata.num_rows, path, limits)
            return _parquet_columns(file, path, limits)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Arrow has many
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise DataError(f"The manifest {path} is no whole Parquet file ({reason}).") from error


def _parquet_columns(file: Any, path: Path, limits: Limits) -> Table:
    schema = file.schema_arrow
    _check_names(list(schema.names), path)
    usable = [entry.name for entry in schema if is_plain(entry.type) and not entry.name.startswith("__index_level_")]
    unusable = {entry.name: f"values of type {entry.type}" for entry in schema if not is_plain(entry.type)}
    columns: dict[str, list[str]] = {name: [] for name in usable}
    rows = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=usable):
        rows += batch.num_rows
        _check_rows(rows, path, limits)
        for name in usable:
            texts = [as_text(value) for value in batch.column(name).to_pylist()]
            for offset, text in enumerate(texts):
                if len(text) > LONGEST_CELL or "\0" in text:
                    what = "a NUL" if "\0" in text else f"more than {LONGEST_CELL:,} characters"
                    row = rows - batch.num_rows + offset + 1
                    raise DataError(f"The manifest {path}, row {row}: the cell in column {name!r} holds {what}.")
            columns[name] += texts
    if not rows:
        raise DataError(f"The manifest {path} has no rows. {EXPECTED}")
    return Table(f"the manifest {path}", columns, range(1, rows + 1), unusable, "row")


def is_plain(kind: Any) -> bool:
    """Whether an Arrow type is text, a number, a date or the like."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind)) and not (
        types.is_fixed_size_binary(kind) or types.is_dictionary(kind)
    )


def _check_names(names: list[str], path: Path) -> None:
    for name, count in Counter(names).items():
        if name and count > 1:
            raise DataError(f"The manifest {path} has {count} columns {name[:100]!r}: rename all but one.")


def _check_rows(rows: int, path: Path, limits: Limits) -> None:
    if rows > limits.files:
        raise DataError(
            f"The manifest {path} has more than {limits.files:,} rows. If it is meant to, raise data.limits.files."
        )


EXPECTED = "Expected is a header such as path,label and one row an image."
_SAVE = "Save it as UTF-8 (in a spreadsheet: 'CSV UTF-8'; in pandas: to_csv(..., encoding='utf-8'))."
