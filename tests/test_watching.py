"""What a watcher reads: how fast, how far, how long yet, and the pages at the end. No servers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recognition.errors import DataError, StageError
from recognition.events import EpochEnd, Event, Progress
from recognition.experiment import Experiment
from recognition.records import Scores, Version
from tasks.remaining import Pace, described, duration, left_in_words, size
from tasks.reporting import LARGEST_IN_ALL, data_url, failure_page, result_page
from tasks.watching import _Epochs, progress_of


def test_a_steady_pace_tells_what_is_left_exactly() -> None:
    pace = Pace()
    for second in range(11):
        pace.see(100 + second, 5 * second, 200)
    assert pace.rate == pytest.approx(5)
    assert pace.left == pytest.approx((200 - 50) / 5)


def test_a_pace_that_changes_is_followed_by_the_later_half_of_the_time() -> None:
    pace = Pace()
    for second in range(101):
        pace.see(second, second, 1000)
    for second in range(101, 1001):
        pace.see(second, 100 + 10 * (second - 100), 10_000)
    assert pace.rate == pytest.approx(10, rel=0.02)


def test_points_stay_few_over_a_week() -> None:
    pace = Pace()
    for second in range(0, 7 * 86400, 60):
        pace.see(second, second, 10**9)
    assert len(pace._points) < 100
    assert pace.rate == pytest.approx(1)


def test_nothing_is_said_before_anything_can_be_known() -> None:
    pace = Pace()
    assert pace.left is None
    pace.see(0, 0, 10)
    assert (pace.rate, pace.left) == (0, None)


@pytest.mark.parametrize(("done", "total"), [(0, 100), (3, 50)])
def test_another_pass_over_the_work_begins_afresh(done: int, total: int) -> None:
    pace = Pace()
    for second in range(10):
        pace.see(second, 10 * second, 100)
    pace.see(10, done, total)
    assert pace.left is None
    pace.see(12, done + 2, total)
    assert pace.rate == pytest.approx(1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds left"),
        (42, "about 40 s left"),
        (100, "about 2 min left"),
        (59.8 * 60, "about 60 min left"),
        (2.3 * 3600, "about 2 h 15 min left"),
        (30.2 * 3600, "about 1 d 6 h left"),
    ],
)
def test_what_is_left_is_said_as_exactly_as_it_is_known(seconds: float, words: str) -> None:
    assert left_in_words(seconds) == words


def test_durations_and_sizes_read_as_people_write_them() -> None:
    assert [duration(seconds) for seconds in (0.31, 42.4, 125, 3600, 11_400, 187_200)] == [
        "0.3 s", "42 s", "2 min 5 s", "1 h", "3 h 10 min", "2 d 4 h",
    ]  # fmt: skip
    assert [size(number) for number in (12, 3_400, 12_340_000, 5e9)] == ["12 bytes", "3.4 kB", "12.3 MB", "5.0 GB"]


def test_a_line_of_progress_says_what_how_far_how_long_yet_and_how_fast() -> None:
    def line(event: Progress) -> str:
        pace = Pace()
        pace.see(0, 0, event.total)
        pace.see(10, event.done, event.total)
        return described(event, pace)

    assert line(Progress("train", 30, 150, "steps", "epoch 3/15")) == ("train: epoch 3/15, about 40 s left (3 steps/s)")
    assert line(Progress("audit", 1200, 1797, "images", "decoding images")) == (
        "audit: decoding images, 1,200 of 1,797, a few seconds left (120 images/s)"
    )
    assert line(Progress("download", 20_000_000, 100_000_000, "bytes", "fetching a.zip")) == (
        "download: fetching a.zip, 20.0 MB of 100.0 MB, about 40 s left (2.0 MB/s)"
    )
    assert line(Progress("evaluate", 9, 9, "images")) == "evaluate: 9 of 9 (0.9 images/s)"


def test_what_is_fetched_is_measured_and_images_are_counted() -> None:
    seen: list[Event] = []
    for what in ("fetching a.zip", "fetching 12 objects", "fetching images", "decoding images"):
        progress_of(seen.append, "download")(1, 2, what)
    assert [event.unit for event in seen if isinstance(event, Progress)] == ["bytes", "bytes", "images", "images"]


def test_each_epochs_line_says_what_is_left_and_the_last_ones_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    epochs, lines = _Epochs(), []
    for epoch in range(3):
        now[0] += 60
        lines.append(epochs.line(EpochEnd(epoch, 3, {"train/loss": 0.5, "epoch/seconds": 60.0})))
    assert lines == [
        "epoch 1/3  train/loss 0.5000  (60.0 s, about 2 min left)",
        "epoch 2/3  train/loss 0.5000  (60.0 s, about 60 s left)",
        "epoch 3/3  train/loss 0.5000  (60.0 s)",
    ]


def test_pictures_of_an_artifact_stay_below_what_an_event_may_hold(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size > 4 * LARGEST_IN_ALL
    both = [data_url(tmp_path / "noise.png", LARGEST_IN_ALL // 2) for _ in range(2)]
    assert all(address.startswith("data:image/jpeg;base64,") for address in both)
    assert sum(map(len, both)) < 1_400_000


def test_the_page_of_a_result_holds_scores_verdict_pictures_settings_times_and_links(tmp_path: Path) -> None:
    experiment = Experiment.model_validate({"name": "try|two", "training": {"epochs": 3}, "data": {"source": "a|b`c"}})
    version = Version(
        name="digits", version="4", aliases=("challenger", "champion"), verdict="first version", uri="models:/digits/4"
    )
    scores = Scores(path=tmp_path, test_digest="", metrics={"test/accuracy": 0.98765})
    page = result_page(
        experiment, scores, version, {"train": 125.0}, "http://m/#/run", "http://m/#/models/digits/versions/4",
        "http://m/#/best",
        [("confusion matrix", "data:image/png;base64,AAAA")],
    )  # fmt: skip
    assert "| accuracy | 0.9877 |" in page
    assert "models:/digits/4 is challenger and champion (first version)." in page
    assert "![confusion matrix](data:image/png;base64,AAAA)" in page
    assert "| `training.epochs` | `3` | `15` |" in page
    # nothing of a value is taken for a cell or code
    assert "| `data.source` | `a/bc` | `digits` |" in page
    assert "training.batch_size" not in page
    assert "| train | 2 min 5 s |" in page
    assert "[The run in MLflow](http://m/#/run) · [models:/digits/4 in the registry](http://m/#/models/" in page
    alone = result_page(Experiment(), scores, None, {}, "http://m/#/run", "", "http://m/#/best", [])
    assert "registry" not in alone
    assert "[All runs of this kind, best first](http://m/#/best)" in alone
    assert "Nothing." in alone


def test_the_page_of_a_failure_begins_with_the_reason_and_shows_a_traceback_of_defects_only() -> None:
    mistake = failure_page("pets", DataError("cat/cut.jpg is empty (0 bytes).\nSet data.audit.unreadable=quarantine."))
    assert mistake.startswith("# pets did not finish\n\n````text\ncat/cut.jpg is empty (0 bytes).\n````")
    assert "data.audit.unreadable=quarantine" in mistake
    assert "defect" not in mistake
    error = StageError("fit failed in its own process: ZeroDivisionError: division by zero\nTraceback ...\n  line 7")
    defect = failure_page("pets", error)
    assert defect.index("ZeroDivisionError: division by zero") < defect.index("Traceback")
    assert "StageError is a defect" in defect
