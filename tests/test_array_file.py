"""An array file holds each row where it belongs, whoever wrote it and when, and zeros where nobody did."""

from __future__ import annotations

import errno
import os
import random
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from recognition.audit.measures import MEASURES
from recognition.store.array_file import ArrayWriter


def loaded(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def test_rows_may_be_written_in_any_order_from_several_threads(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (600, 5, 3, 3), dtype=np.uint8)
    order = list(range(600))
    random.Random(0).shuffle(order)
    with ArrayWriter(tmp_path / "a.npy", rows.shape) as writer, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: writer.put(index, rows[index]), order))
    np.testing.assert_array_equal(loaded(tmp_path / "a.npy"), rows)


def test_several_rows_are_written_at_once_also_of_a_turned_or_cut_array(tmp_path: Path) -> None:
    rows = np.arange(60, dtype=np.int64).reshape(10, 6)
    with ArrayWriter(tmp_path / "a.npy", (10, 6), np.int64) as writer:
        writer.put(4, rows[4:])
        writer.put(0, rows[:2])
        writer.put(2, np.asfortranarray(rows)[2:4])
        writer.put(3, rows[:0])
    np.testing.assert_array_equal(loaded(tmp_path / "a.npy"), rows)
    with ArrayWriter(tmp_path / "b.npy", (6, 5), np.int64) as writer:
        writer.put(0, rows.T[:, ::2])
    np.testing.assert_array_equal(loaded(tmp_path / "b.npy"), rows.T[:, ::2])


def test_rows_that_are_never_written_are_zeros(tmp_path: Path) -> None:
    with ArrayWriter(tmp_path / "a.npy", (7, 2), np.float32) as writer:
        writer.put(5, np.array([1.5, -2.5], np.float32))
    expected = np.zeros((7, 2), np.float32)
    expected[5] = 1.5, -2.5
    np.testing.assert_array_equal(loaded(tmp_path / "a.npy"), expected)


@pytest.mark.parametrize("shape", [(0,), (0, 4, 4, 3), (3,), (3, 0)])
def test_files_without_rows_or_with_rows_of_one_value_can_be_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with ArrayWriter(tmp_path / "a.npy", shape, np.int16) as writer:
        writer.put(0, np.ones(shape, np.int16))
    read = loaded(tmp_path / "a.npy") if 0 not in shape else np.load(tmp_path / "a.npy")
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read, np.ones(shape, np.int16))


def test_the_measures_of_images_come_back_field_by_field(tmp_path: Path) -> None:
    rows = np.zeros(3, MEASURES)
    rows["content"] = np.arange(96, dtype=np.uint8).reshape(3, 32)
    rows["height"], rows["width"] = (7, 8, 9), (70, 80, 90)
    with ArrayWriter(tmp_path / "a.npy", (3,), MEASURES) as writer:
        writer.put(2, rows[2])
        writer.put(0, rows[:1])
    read = loaded(tmp_path / "a.npy")
    assert read.dtype == MEASURES
    assert read[0].tobytes() == rows[0].tobytes()
    assert read[1].tobytes() == bytes(MEASURES.itemsize)
    assert read[2]["content"].tolist() == list(range(64, 96))
    assert (read[2]["height"], read[2]["width"]) == (9, 90)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, np.zeros((1, 4), np.int64)),
        (0, np.zeros((1, 3), np.uint8)),
        (-1, np.zeros(4, np.uint8)),
        (5, np.zeros(4, np.uint8)),
        (4, np.zeros((2, 4), np.uint8)),
        (0, np.zeros((1, 1, 4), np.uint8)),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_change_nothing(tmp_path: Path, index: int, rows: np.ndarray) -> None:
    with ArrayWriter(tmp_path / "a.npy", (5, 4)) as writer:
        before = (tmp_path / "a.npy").read_bytes()
        with pytest.raises(AssertionError, match="rows are"):
            writer.put(index, rows)
    assert (tmp_path / "a.npy").read_bytes() == before


def test_a_full_disk_is_an_error_of_the_operating_system(tmp_path: Path) -> None:
    def write() -> None:
        with ArrayWriter(tmp_path / "a.npy", (1000, 100)) as writer:
            writer.put(0, np.ones((1000, 100), np.uint8))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError) as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG


def test_writes_that_the_system_takes_in_parts_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, content, at: whole(handle, content[:7], at))
    rows = np.arange(40, dtype=np.uint8).reshape(5, 8)
    with ArrayWriter(tmp_path / "a.npy", (5, 8)) as writer:
        writer.put(0, rows)
    np.testing.assert_array_equal(loaded(tmp_path / "a.npy"), rows)
