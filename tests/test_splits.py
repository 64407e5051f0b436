"""Splits are stratified, seeded, and a function of the images' names alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recognition.errors import DataError
from recognition.splits import split

IDS = [f"image-{number}" for number in range(100)]
LABELS = np.array([number % 4 for number in range(100)], np.int64)
NAMES = ("a", "b", "c", "d")


def divided(
    ids: Sequence[str] = IDS,
    labels: np.ndarray = LABELS,
    given_splits: Sequence[str] | None = None,
    names: Sequence[str] = NAMES,
    seed: int = 0,
    test: float = 0.2,
    val: float = 0.1,
) -> dict[str, np.ndarray]:
    given_splits = [""] * len(ids) if given_splits is None else given_splits
    return split(ids, labels, given_splits, names, test_fraction=test, val_fraction=val, seed=seed)


def test_every_class_is_divided_by_the_fractions() -> None:
    parts = divided()
    for label in range(4):  # 25 images each: 5 for the test, 2 of the other 20 for validation
        assert {name: int((LABELS[part] == label).sum()) for name, part in parts.items()} == {
            "train": 18,
            "val": 2,
            "test": 5,
        }


def test_the_split_does_not_depend_on_the_order_of_files() -> None:
    order = np.random.default_rng(1).permutation(100)
    shuffled = divided([IDS[index] for index in order], LABELS[order])
    for name, part in divided().items():
        assert {IDS[index] for index in part} == {IDS[order[index]] for index in shuffled[name]}


def test_another_seed_gives_another_split_and_the_same_seed_the_same() -> None:
    np.testing.assert_array_equal(divided(seed=3)["test"], divided(seed=3)["test"])
    assert set(divided(seed=3)["test"]) != set(divided(seed=4)["test"])


def test_the_test_set_stays_when_the_validation_fraction_changes() -> None:
    np.testing.assert_array_equal(divided(val=0.1)["test"], divided(val=0.5)["test"])


def test_given_splits_are_kept_and_only_missing_ones_are_carved() -> None:
    given_splits = ["test" if number < 40 else "train" for number in range(100)]
    parts = divided(given_splits=given_splits)
    np.testing.assert_array_equal(parts["test"], np.arange(40))
    assert len(parts["val"]) == 4 * round(0.1 * 15)
    given_splits = ["val" if number < 40 else "train" for number in range(100)]
    parts = divided(given_splits=given_splits)
    np.testing.assert_array_equal(parts["val"], np.arange(40))
    assert len(parts["test"]) == 4 * 3
    three = [("train", "val", "test", "train", "train", "train", "train")[number // 15] for number in range(100)]
    assert {name: len(part) for name, part in divided(given_splits=three).items()} == {
        "train": 70,
        "val": 15,
        "test": 15,
    }


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=6),
    test=st.floats(0.01, 0.89),
    val=st.floats(0.01, 0.89),
    seed=st.integers(0, 1000),
)
def test_parts_are_disjoint_whole_and_hold_every_class(counts: list[int], test: float, val: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    ids = [str(number) for number in range(len(labels))]
    names = [str(label) for label in range(len(counts))]
    parts = divided(ids, labels, names=names, seed=seed, test=test, val=val)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(len(labels)))
    for part in parts.values():
        assert set(labels[part]) == set(range(len(counts)))
        np.testing.assert_array_equal(part, np.sort(part))


def test_a_class_with_too_few_images_is_named() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1], np.int64)
    with pytest.raises(DataError, match=r"at least 3 .* 'rare' has 2"):
        divided([str(number) for number in range(6)], labels, names=("common", "rare"))


def test_two_images_are_enough_where_the_test_is_given() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1], np.int64)
    parts = divided(list("abcdef"), labels, ["test", "", "", "test", "", ""], ("x", "y"))
    assert {name: len(part) for name, part in parts.items()} == {"train": 2, "val": 2, "test": 2}
