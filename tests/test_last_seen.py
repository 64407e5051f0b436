"""A new version of a source is noticed, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_images import encoded, folder_of, pixels, write

from recognition import preparation
from recognition.data_settings import Data
from recognition.last_seen import Content, content_of, keep, name_of_source


def told(data: Data) -> list[Content | None]:
    """What is said of a source now."""
    heard: list[Content | None] = []
    keep(data, content_of(data, preparation.locate(data)), heard.append)
    return heard


def test_another_content_is_told_once_with_the_former(state: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets", "cat", "dog", count=3)
    data = Data(source=str(folder))
    assert told(data) == [None]
    assert told(data) == []
    write(folder / "cat" / "new.png", encoded(pixels(7)))
    (before,) = told(data)
    assert before is not None
    assert (before.name, before.source, before.images, before.classes) == ("pets", str(folder), 6, 2)
    assert told(data) == []


def test_what_is_only_touched_is_no_other_content(state: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets", "cat", "dog", count=3)
    assert told(Data(source=str(folder))) == [None]
    for path in folder.rglob("*.png"):
        path.touch()
    assert told(Data(source=f"{folder}/")) == []


def test_who_is_interrupted_while_telling_tells_again(state: Path, tmp_path: Path) -> None:
    data = Data(source=str(folder_of(tmp_path / "pets", "cat", "dog", count=3)))
    content = content_of(data, preparation.locate(data))

    def interrupted(_: Content | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(data, content, interrupted)
    assert told(data) == [None]


def test_a_damaged_file_is_as_good_as_none(state: Path, tmp_path: Path) -> None:
    data = Data(source=str(folder_of(tmp_path / "pets", "cat", "dog", count=3)))
    told(data)
    (kept,) = (state / "seen").glob("*.json")
    kept.write_text("{")
    assert told(data) == [None]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("digits", "digits"),
        ("pets/", "/data/pets"),
        ("../pets", "/pets"),
        ("/data/pets.zip", "/data/pets.zip"),
        ("hf:owner/pets", "hf:owner/pets"),
        ("s3://bucket/pets", "s3://bucket/pets"),
        ("https://user:word@there.org/pets.zip", "https://…@there.org/pets.zip"),
    ],
)
def test_a_source_has_one_name_without_secrets(source: str, name: str) -> None:
    assert name_of_source(source, Path("/data")) == name
