"""CSV tables hold what they were given, and nothing in them is a formula to a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from recognition.tables import write_csv


def cells(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    "name",
    [
        '=HYPERLINK("http://example.org","open")',
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1+1",
        "\r=1+1",
        "\n=1+1",
        "＝1+1",
        "-",
    ],
)
def test_a_text_that_a_spreadsheet_would_calculate_begins_with_an_apostrophe(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({name: [name], "count": [1]}, index=[name])
    write_csv(table, tmp_path / "table.csv", index=True)
    assert cells(tmp_path / "table.csv") == [["", f"'{name}", "count"], [f"'{name}", f"'{name}", "1"]]


def test_numbers_stay_as_they_are_also_where_they_are_text(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"loss": [-0.25, float("nan")], "change": [-3, 4], "text": ["-12", "+1.5e3"], "name": ["a=b", "cat-1"]}
    )
    write_csv(table, tmp_path / "table.csv")
    assert cells(tmp_path / "table.csv") == [
        ["loss", "change", "text", "name"],
        ["-0.25", "-3", "-12", "a=b"],
        ["", "4", "+1.5e3", "cat-1"],
    ]


def test_commas_quotes_and_ends_of_lines_in_names_come_back(tmp_path: Path) -> None:
    names = [
        "a,b",
        'q"uo"te',
        '"',
        "new\nline",
        "carriage\rreturn",
        "both\r\n",
        "",
        " lead",
        "'quoted'",
        "NA",
        "日本",
        ";",
    ]
    write_csv(pd.DataFrame({"name": names, "number": range(len(names))}), tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    assert list(read["name"]) == names
    assert list(read["number"]) == list(range(len(names)))


def test_a_file_name_that_is_no_text_is_written_escaped(tmp_path: Path) -> None:
    write_csv(pd.DataFrame({"name": [b"caf\xe9.png".decode("utf-8", "surrogateescape")]}), tmp_path / "table.csv")
    assert cells(tmp_path / "table.csv")[1] == [r"caf\udce9.png"]


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    write_csv(pd.DataFrame(columns=["sample_id", "=label"]), tmp_path / "table.csv")
    assert cells(tmp_path / "table.csv") == [["sample_id", "'=label"]]


def test_the_table_that_was_given_stays_as_it_was(tmp_path: Path) -> None:
    table = pd.DataFrame({"=a": ["=b"]}, index=pd.Index(["=c"], name="=d"))
    before = table.copy()
    write_csv(table, tmp_path / "table.csv", index=True)
    pd.testing.assert_frame_equal(table, before)
    assert cells(tmp_path / "table.csv")[0] == ["'=d", "'=a"]
