"""Pictures of answers are written beside what is there, never over it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from recognition.errors import ConfigurationError
from recognition.prediction import write_pictures


def test_images_of_one_name_and_earlier_pictures_are_not_written_over(tmp_path: Path) -> None:
    answers = [{"image": f"{folder}/1.png", "restored": base64.b64encode(folder.encode()).decode()} for folder in "ab"]
    first = write_pictures(answers, tmp_path / "out")
    again = write_pictures(answers[:1], tmp_path / "out")
    assert [Path(told["restored"]).name for told in [*first, *again]] == ["1.png", "1-2.png", "1-3.png"]
    assert [(tmp_path / "out" / name).read_bytes() for name in ("1.png", "1-2.png", "1-3.png")] == [b"a", b"b", b"a"]


def test_answers_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="which this one does not"):
        write_pictures([{"image": "1.png", "label": "cat"}], tmp_path / "out")
    assert not (tmp_path / "out").exists()
