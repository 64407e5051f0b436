"""A version of data is known by its images and classes, and two versions are compared image by image."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recognition.differences import as_text, diff
from recognition.errors import DataError, StorageError
from recognition.versions import (
    SAMPLES,
    Samples,
    dataset_digest,
    frozen_counts,
    read_samples,
    write_samples,
)

Row = tuple[str, str, str, str]
"""What is on the image, its name, its class and its split."""


def digest_of(pixels: str) -> bytes:
    return hashlib.sha256(pixels.encode()).digest()


def contents(pixels: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(map(digest_of, pixels)), np.uint8).reshape(len(pixels), 32)


def samples(*rows: Row, reasons: Sequence[str] = ()) -> Samples:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    why = [reasons[index] if reasons else "" for index in range(len(rows))]
    return Samples(columns[1], columns[2], columns[3], why, contents(columns[0]), [""] * len(rows))


ROWS: tuple[Row, ...] = (
    ("sun", "a/1.png", "a", "train"),
    ("moon", "a/2.png", "a", "test"),
    ("star", "b/1.png", "b", "train"),
    ("rain", "b/2.png", "b", "val"),
)


def changed(index: int, **fields: str) -> Samples:
    rows = [dict(zip(("content", "name", "class_name", "split"), row, strict=True)) for row in ROWS]
    rows[index] |= fields
    return samples(*((row["content"], row["name"], row["class_name"], row["split"]) for row in rows))


def test_the_digest_is_that_of_sorted_pairs_of_class_and_content() -> None:
    pairs = sorted(hashlib.sha256(name + digest_of(pixels)).digest() for name, pixels in ((b"x", "1"), (b"y", "2")))
    assert (
        dataset_digest(contents(["1", "2"]), ["x", "y"], np.array([0, 1]))
        == hashlib.sha256(b"".join(pairs)).hexdigest()
    )


def test_no_images_have_a_digest() -> None:
    assert dataset_digest(contents([]), [], np.zeros(0, np.int64)) == hashlib.sha256().hexdigest()


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(st.text(max_size=3), st.integers(0, 2)), max_size=20), order=st.randoms())
def test_the_digest_depends_neither_on_order_nor_on_the_numbers_of_classes(
    pairs: list[tuple[str, int]],
    order: object,
) -> None:
    positions = list(range(len(pairs)))
    order.shuffle(positions)  # type: ignore[attr-defined]
    first = dataset_digest(
        contents([pixels for pixels, _ in pairs]), ["x", "y", "é"], np.array([label for _, label in pairs], np.int64)
    )
    second = dataset_digest(
        contents([pairs[index][0] for index in positions]),
        ["nothing", "é", "y", "x"],
        np.array([3 - pairs[index][1] for index in positions], np.int64),
    )
    assert first == second


def test_the_digest_changes_with_a_label_an_image_a_copy_and_the_name_of_a_class() -> None:
    images, labels = contents(["1", "2"]), np.array([0, 1])
    found = {
        dataset_digest(images, ["x", "y"], labels),
        dataset_digest(images, ["x", "y"], np.array([0, 0])),
        dataset_digest(images, ["x", "z"], labels),
        dataset_digest(contents(["1", "3"]), ["x", "y"], labels),
        dataset_digest(contents(["1", "2", "2"]), ["x", "y"], np.array([0, 1, 1])),
        dataset_digest(images[:1], ["x", "y"], labels[:1]),
    }
    assert len(found) == 6


NASTY = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['a"b', "a\nb", "=1+1", "日本", "'", "a\0b", "../x", "<script>"]
)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(NASTY, st.integers(0, 1), st.sampled_from(["train", "val", "test", ""]), NASTY), max_size=8
    ),
    classes=st.tuples(NASTY, NASTY),
    column=NASTY,
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, int, str, str]],
    classes: tuple[str, str],
    column: str,
) -> None:
    path = tmp_path_factory.mktemp("table") / SAMPLES
    left_out = {index: "unreadable" for index, row in enumerate(rows) if not row[2]}
    write_samples(
        path,
        sample_ids=[row[0] for row in rows],
        labels=np.array([row[1] for row in rows], np.int64),
        class_names=classes,
        split=np.array([row[2] for row in rows], "<U5"),
        left_out=left_out,
        content=contents([row[0] for row in rows]),
        groups=tuple(row[3] for row in rows),
        metadata={column: [row[3] for row in rows], "left_out": [row[0] for row in rows]},
    )
    read = read_samples(path)
    assert len(read) == len(rows)
    assert read.sample_ids == [row[0] for row in rows]
    assert read.class_names == [classes[row[1]] for row in rows]
    assert read.split == [row[2] for row in rows]
    assert read.left_out == [left_out.get(index, "") for index in range(len(rows))]
    assert read.groups == [row[3] for row in rows]
    assert read.metadata[column] == [row[0 if column == "left_out" else 3] for row in rows]
    np.testing.assert_array_equal(read.content, contents([row[0] for row in rows]))


def write_rows(path: Path, count: int = 4) -> Path:
    write_samples(
        path,
        sample_ids=[f"{number}.png" for number in range(count)],
        labels=np.zeros(count, np.int64),
        class_names=["x"],
        split=["train"] * count,
        left_out={},
        content=contents([str(number) for number in range(count)]),
    )
    return path


def test_the_table_is_plain_parquet_that_other_programs_read(tmp_path: Path) -> None:
    table = pd.read_parquet(write_rows(tmp_path / SAMPLES))
    assert list(table.columns) == ["sample_id", "class_name", "split", "left_out", "content", "group"]
    assert table["content"][2] == digest_of("2").hex()


def test_tables_of_more_images_than_are_written_at_a_time_are_whole(tmp_path: Path) -> None:
    read = read_samples(write_rows(tmp_path / SAMPLES, 70_000))
    assert len(set(read.sample_ids)) == 70_000
    np.testing.assert_array_equal(read.content[69_999], contents(["69999"])[0])


def test_metadata_columns_whose_names_begin_alike_are_kept_apart(tmp_path: Path) -> None:
    metadata = {"place.town": ["Bern"], "place": ["Europe"], "": ["nameless"]}
    write_samples(
        tmp_path / SAMPLES,
        sample_ids=["1.png"],
        labels=np.array([0]),
        class_names=["x"],
        split=["train"],
        left_out={},
        content=contents(["1"]),
        metadata=metadata,
    )
    assert read_samples(tmp_path / SAMPLES).metadata == metadata


def test_names_that_are_no_unicode_are_escaped(tmp_path: Path) -> None:
    write_samples(
        tmp_path / SAMPLES,
        sample_ids=["\udcff.png"],
        labels=np.array([0]),
        class_names=["x"],
        split=["train"],
        left_out={},
        content=contents(["1"]),
    )
    assert read_samples(tmp_path / SAMPLES).sample_ids == ["\\udcff.png"]


def test_a_table_that_cannot_be_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_rows(tmp_path / "file" / SAMPLES)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_samples(tmp_path / SAMPLES)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"a,b\n1,2\n"])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SAMPLES).write_bytes(content)
    with pytest.raises(DataError, match="it is damaged"):
        read_samples(tmp_path / SAMPLES)


def test_another_table_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"sample_id": ["1"], "label": [0], "split": ["train"]}).to_parquet(tmp_path / SAMPLES)
    with pytest.raises(DataError, match="no table of a data set's images: it has no column 'class_name'"):
        read_samples(tmp_path / SAMPLES)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("content", "abc"),
        ("content", "zz" * 32),
        ("content", ""),
        ("split", "elsewhere"),
        ("class_name", None),
        ("split", 3),
    ],
)
def test_a_table_with_impossible_cells_is_refused(tmp_path: Path, column: str, value: object) -> None:
    table = pd.read_parquet(write_rows(tmp_path / SAMPLES)).astype(object)
    table[column] = [value] * 4 if isinstance(value, int) else [*table[column][:3], value]
    table.to_parquet(tmp_path / SAMPLES)
    with pytest.raises(DataError, match="it is damaged"):
        read_samples(tmp_path / SAMPLES)


@settings(max_examples=150, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_table_is_refused_or_read_right(
    tmp_path_factory: pytest.TempPathFactory, position: float, value: int, cut: bool
) -> None:
    path = write_rows(tmp_path_factory.getbasetemp() / "damaged.parquet", 50)
    right = read_samples(path)
    data = bytearray(path.read_bytes())
    where = int(position * len(data))
    if cut:
        del data[where:]
    else:
        data[where] = value
    path.write_bytes(data)
    try:
        read = read_samples(path)
    except DataError:
        return
    assert not cut
    assert read.split == right.split
    assert read.sample_ids == right.sample_ids


def test_the_frozen_test_is_the_test_images_and_how_often_they_occur() -> None:
    table = samples(*ROWS, ("moon", "a/3.png", "a", "test"), ("fog", "a/4.png", "a", ""))
    assert frozen_counts(table) == Counter({digest_of("moon"): 2})


def test_the_same_version_has_no_difference() -> None:
    difference = diff(samples(*ROWS), samples(*reversed(ROWS)))
    assert difference.same_data
    assert difference.same_test
    text = as_text(difference)
    assert "4 images in use before, 4 after" in text
    assert "Images and classes are the same" in text


def test_an_added_and_a_removed_image_are_named_with_their_class() -> None:
    difference = diff(samples(*ROWS), samples(*ROWS[1:], ("snow", "b/9.png", "b", "test")))
    assert (difference.added.files, difference.added.kinds) == (("b/9.png",), {"b": 1})
    assert (difference.removed.files, difference.removed.kinds) == (("a/1.png",), {"a": 1})
    assert not difference.same_test
    assert difference.relabelled.count == difference.renamed.count == difference.moved.count == 0


def test_the_same_content_in_another_class_is_relabelled_even_under_another_name() -> None:
    difference = diff(samples(*ROWS), changed(1, class_name="b", name="b/3.png"))
    assert difference.relabelled.kinds == {"a → b": 1}
    assert difference.relabelled.files == ("b/3.png",)
    assert difference.renamed.files == ("a/2.png → b/3.png",)
    assert difference.added.count == difference.removed.count == 0
    assert not difference.same_test


def test_the_same_content_under_another_name_is_renamed_and_nothing_else() -> None:
    difference = diff(samples(*ROWS), changed(1, name="elsewhere/2.png"))
    assert difference.renamed.files == ("a/2.png → elsewhere/2.png",)
    assert difference.same_data
    assert difference.same_test


def test_an_image_in_another_split_is_moved() -> None:
    difference = diff(samples(*ROWS), changed(0, split="test"))
    assert (difference.moved.files, difference.moved.kinds) == (("a/1.png",), {"train → test": 1})
    assert difference.same_data
    assert not difference.same_test


def test_other_pixels_under_the_same_name_are_removed_and_added() -> None:
    difference = diff(samples(*ROWS), changed(0, content="eclipse"))
    assert difference.added.files == difference.removed.files == ("a/1.png",)


def test_of_copies_the_one_that_came_is_added() -> None:
    difference = diff(samples(*ROWS), samples(("sun", "a/0.png", "a", "train"), *ROWS))
    assert difference.added.files == ("a/0.png",)
    assert difference.renamed.count == difference.removed.count == 0


def test_copies_that_swap_their_names_and_splits_are_not_relabelled() -> None:
    before = samples(("sun", "1", "a", "train"), ("sun", "2", "b", "test"))
    after = samples(("sun", "1", "b", "test"), ("sun", "2", "a", "train"))
    difference = diff(before, after)
    assert difference.same_data
    assert difference.renamed.count == 2
    assert difference.moved.count == 0


def test_images_that_are_newly_left_out_are_listed_with_the_reason_and_no_longer_in_use() -> None:
    after = samples(
        *ROWS[:3],
        ("rain", "b/2.png", "b", ""),
        ("new", "b/7.png", "b", ""),
        reasons=["", "", "", "conflicting_labels", "blurry"],
    )
    difference = diff(samples(*ROWS), after)
    assert difference.left_out.files == ("b/2.png", "b/7.png")
    assert difference.left_out.kinds == {"blurry": 1, "conflicting_labels": 1}
    assert difference.removed.files == ("b/2.png",)
    assert difference.added.count == 0
    assert diff(after, after).left_out.count == 0


def test_unreadable_files_are_told_apart_by_their_names() -> None:
    def unreadable(*names: str) -> Samples:
        count = len(names)
        return Samples(
            list(names),
            ["a"] * count,
            [""] * count,
            ["unreadable"] * count,
            np.zeros((count, 32), np.uint8),
            [""] * count,
        )

    assert diff(unreadable("1", "2"), unreadable("2", "3")).left_out.files == ("3",)


def test_the_record_is_json_and_names_a_hundred_at_most() -> None:
    more = [(f"pixels {number}", f"{number:04}.png", "a", "train") for number in range(300)]
    difference = diff(samples(*ROWS), samples(*ROWS, *more))
    record = json.loads(difference.model_dump_json())
    assert record["added"]["count"] == 300
    assert record["added"]["files"] == [f"{number:04}.png" for number in range(100)]
    assert "and 290 more" in as_text(difference)


def test_the_text_shows_no_line_of_a_name_as_its_own() -> None:
    difference = diff(samples(*ROWS), samples(*ROWS, ("new", "x\n100 removed\x1b[31m.png", "é\n", "train")))
    lines = as_text(difference).splitlines()
    assert lines[1:3] == ["1 added: 'é\\n' 1", "  'x\\n100 removed\\x1b[31m.png'"]


rows = st.lists(
    st.tuples(
        st.sampled_from(["sun", "moon", "star"]),
        st.sampled_from(["1", "2", "3"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["train", "val", "test", ""]),
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(before=rows, after=rows)
def test_digests_are_equal_exactly_where_nothing_is_added_removed_or_relabelled(
    before: list[Row], after: list[Row]
) -> None:
    old, new = samples(*before), samples(*after)
    difference = diff(old, new)
    assert difference.same_data == (old.digest() == new.digest())
    assert difference.same_test == (old.digest("test") == new.digest("test"))
    assert difference.before + difference.added.count - difference.removed.count == difference.after
    # as few as can be: what no image of the same class makes up for
    lost = Counter((row[0], row[2]) for row in before if row[3]) - Counter((row[0], row[2]) for row in after if row[3])
    assert difference.removed.count + difference.relabelled.count == lost.total()
    back = diff(new, old)
    assert (back.added.count, back.removed.count) == (difference.removed.count, difference.added.count)
    assert back.relabelled.count == difference.relabelled.count
