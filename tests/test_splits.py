"""Splits depend on what is on the images alone: growth, order and names move nothing, and units stay whole."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recognition.data_settings import Audit, Data
from recognition.errors import ConfigurationError, DataError
from recognition.splits import Assignment, Frozen, assign
from recognition.spreading import Membership, spread

WARN = Audit(missing_class="warn")


def digests(names: Sequence[object]) -> NDArray[np.uint8]:
    """What stands for the pixels of images, uint8 (N, 32)."""
    joined = b"".join(hashlib.sha256(str(name).encode()).digest() for name in names)
    return np.frombuffer(joined, np.uint8).reshape(len(names), 32)


def assigned(
    names: Sequence[object],
    labels: Sequence[int] | NDArray[np.int64],
    *,
    units: Sequence[int] | NDArray[np.int64] | None = None,
    given_splits: Sequence[str] | None = None,
    frozen: Frozen = frozenset(),
    audit: Audit | None = None,
    **data: Any,
) -> Assignment:
    labels = np.asarray(labels, np.int64)
    return assign(
        digests(names),
        labels,
        given_splits or [""] * len(names),
        [f"class {label}" for label in range(int(labels.max()) + 1)],
        np.arange(len(names)) if units is None else np.asarray(units, np.int64),
        data=Data(**data, audit=audit or Audit()),
        frozen=frozen,
    )


def by_name(names: Sequence[object], assignment: Assignment) -> dict[object, str]:
    return dict(zip(names, assignment.split.tolist(), strict=True))


def kinds(assignment: Assignment) -> list[str]:
    return [finding.kind for finding in assignment.findings]


def test_shares_of_every_class_are_within_the_sampling_error() -> None:
    labels = np.arange(10_000) % 4
    split = assigned(range(10_000), labels).split
    for label, name, share in [(label, name, s) for label in range(4) for name, s in (("test", 0.2), ("val", 0.08))]:
        found = (split[labels == label] == name).mean()
        assert abs(found - share) < 4 * (share * (1 - share) / 2500) ** 0.5
    assert (split == "train").mean() == pytest.approx(0.72, abs=0.02)


def test_the_hash_is_what_it_is_said_to_be() -> None:
    # by hand: u of an image is the hash of seed, purpose and digest
    split = assigned(range(500), [0] * 500, split_seed=7).split
    for number, content in enumerate(digests(range(500))):
        u, v = (
            int.from_bytes(hashlib.sha256(f"7\n{purpose}\n".encode() + content.tobytes()).digest(), "big") / 2**256
            for purpose in ("test", "val")
        )
        assert split[number] == ("test" if u < 0.2 else "val" if v < 0.1 else "train")


def test_another_seed_gives_another_split_and_the_same_seed_the_same() -> None:
    labels = [0] * 100
    np.testing.assert_array_equal(
        assigned(range(100), labels, split_seed=3).split, assigned(range(100), labels, split_seed=3).split
    )
    assert (assigned(range(100), labels, split_seed=3).split != assigned(range(100), labels, split_seed=4).split).any()


def test_the_test_set_stays_when_the_validation_fraction_changes_or_folds_are_made() -> None:
    labels = np.arange(200) % 2
    test = assigned(range(200), labels).indices("test")
    np.testing.assert_array_equal(assigned(range(200), labels, val_fraction=0.6).indices("test"), test)
    np.testing.assert_array_equal(assigned(range(200), labels, folds=5, fold=2).indices("test"), test)


def test_a_unit_goes_where_its_image_of_the_smallest_digest_would_go_alone() -> None:
    alone = assigned(range(600), [0] * 600).split
    together = assigned(range(600), [0] * 600, units=np.arange(600) // 3).split
    images = [row.tobytes() for row in digests(range(600))]
    for first in range(0, 600, 3):
        smallest = min(range(first, first + 3), key=images.__getitem__)
        assert together[first : first + 3].tolist() == [alone[smallest]] * 3


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(3, 60),
    fractions=st.lists(st.floats(0.001, 0.89), min_size=2, max_size=2).map(sorted),
    seed=st.integers(0, 100),
)
def test_a_larger_test_fraction_only_adds_to_the_test(count: int, fractions: list[float], seed: int) -> None:
    smaller, larger = (
        set(assigned(range(count), [0] * count, test_fraction=fraction, split_seed=seed).indices("test"))
        for fraction in fractions
    )
    assert smaller <= larger


@settings(max_examples=60, deadline=None)
@given(
    before=st.integers(3, 60), added=st.integers(1, 60), seed=st.integers(0, 100), folds=st.sampled_from([0, 0, 2, 3])
)
def test_new_images_move_no_old_one_but_in_small_classes_that_are_named(
    before: int, added: int, seed: int, folds: int
) -> None:
    # class 0 may be small, class 1 is not
    names = [*range(before + folds), *(f"other {number}" for number in range(200))]
    labels = [0] * (before + folds) + [1] * 200
    old = assigned(names, labels, split_seed=seed, folds=folds)
    more = [*names, *(f"new {number}" for number in range(added)), *(f"new other {number}" for number in range(added))]
    grown = assigned(more, labels + [0] * added + [1] * added, split_seed=seed, folds=folds)
    was, now = by_name(names, old), by_name(more, grown)
    moved = [labels[position] for position, name in enumerate(names) if was[name] != now[name]]
    assert 1 not in moved
    if moved:
        assert "'class 0'" in next(finding.message for finding in old.findings if finding.kind == "small_class_split")


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), min_size=6, max_size=80),
    groups=st.integers(1, 20),
    folds=st.sampled_from([0, 3]),
    order=st.randoms(use_true_random=False),
)
def test_the_order_and_the_numbers_of_units_and_classes_change_nothing(
    labels: list[int], groups: int, folds: int, order: Any
) -> None:
    names = list(range(len(labels)))
    units = [number % groups for number in names]
    positions = list(names)
    order.shuffle(positions)
    first = assigned(names, labels, units=units, folds=folds, audit=WARN)
    second = assign(
        digests(positions),
        np.array([2 - labels[position] for position in positions], np.int64),
        [""] * len(names),
        ["class 2", "class 1", "class 0"],
        np.array([1000 - 7 * units[position] for position in positions], np.int64),
        data=Data(folds=folds, audit=WARN),
    )
    assert by_name(names, first) == by_name(positions, second)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=80),
    groups=st.integers(1, 40),
    test=st.floats(0.01, 0.89),
    val=st.floats(0.01, 0.89),
    seed=st.integers(0, 1000),
)
def test_no_two_splits_share_a_unit_and_every_image_is_in_one(
    labels: list[int], groups: int, test: float, val: float, seed: int
) -> None:
    units = np.array([(number * 7) % groups for number in range(len(labels))])
    split = assigned(
        range(len(labels)),
        labels,
        units=units,
        test_fraction=test,
        val_fraction=val,
        split_seed=seed,
        audit=WARN,
    ).split
    assert set(split.tolist()) <= {"train", "val", "test"}
    for unit in set(units.tolist()):
        assert len(set(split[units == unit].tolist())) == 1


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=6),
    test=st.floats(0.001, 0.89),
    val=st.floats(0.001, 0.89),
    seed=st.integers(0, 1000),
)
def test_every_split_holds_every_class_that_has_three_images(
    counts: list[int], test: float, val: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    result = assigned(range(len(labels)), labels, test_fraction=test, val_fraction=val, split_seed=seed)
    for name in ("train", "val", "test"):
        assert set(labels[result.indices(name)].tolist()) == set(range(len(counts)))


def test_a_small_class_whose_images_were_chosen_by_hand_is_a_finding() -> None:
    labels = [0] * 200 + [1] * 3
    result = assigned(range(203), labels, test_fraction=0.1)
    assert Counter(result.split[200:].tolist()) == {"train": 1, "val": 1, "test": 1}
    (finding,) = result.findings
    assert finding.kind == "small_class_split"
    assert "'class 1'" in finding.message
    assert "'class 0'" not in finding.message


def test_the_nearest_to_the_threshold_is_taken() -> None:
    positions = np.array([0.9, 0.5, 0.31, 0.7])
    members = Membership.of(np.arange(4), np.zeros(4, np.int64), 1)
    bins, moved = spread(positions, np.array([0, 0.3, 1.0]), np.array([[1, 2]]), members, [0])
    assert bins.tolist() == [1, 1, 0, 1]
    assert moved == {0}
    bins, _ = spread(positions, np.array([0, 0.95, 1.0]), np.array([[1, 2]]), members, [0])
    assert bins.tolist() == [1, 0, 0, 1]


def test_a_unit_that_another_class_needs_where_it_is_is_not_taken() -> None:
    # unit 1 is nearest, but class 1 has nothing else in the second bin
    members = Membership.of(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    bins, _ = spread(np.array([0.9, 0.4]), np.array([0, 0.3, 1.0]), np.array([[1, 1], [0, 1]]), members, [0, 1])
    assert bins.tolist() == [0, 1]


def test_units_of_several_classes_count_for_all_of_them() -> None:
    # ten patients, each with images of three classes
    labels, units = np.arange(90) % 3, np.arange(90) // 9
    for seed in range(20):
        result = assigned(range(90), labels, units=units, split_seed=seed, test_fraction=0.1)
        for name in ("train", "val", "test"):
            assert set(labels[result.indices(name)].tolist()) == {0, 1, 2}


def test_a_class_with_too_few_images_is_named() -> None:
    with pytest.raises(DataError, match=r"at least 3 .* 'class 1' has 2\. .*missing_class=warn"):
        assigned(range(6), [0, 0, 0, 0, 1, 1])


def test_copies_count_as_one_image() -> None:
    with pytest.raises(DataError, match="'class 1' has 2"):
        assigned(range(9), [0] * 4 + [1] * 5, units=[0, 1, 2, 3, 4, 4, 4, 4, 5])


def test_a_class_with_too_few_images_is_trained_first_then_tested_where_that_is_allowed() -> None:
    for seed in range(10):
        result = assigned(range(53), [0] * 50 + [1, 2, 2], split_seed=seed, audit=WARN)
        assert result.split[50] == "train"
        assert sorted(result.split[51:].tolist()) == ["test", "train"]
        assert "'class 1' has 1, 'class 2' has 2" in result.findings[-1].message
        assert result.findings[-1].kind == "missing_class"


def test_a_given_split_without_a_class_is_refused_or_reported() -> None:
    labels, said = [0, 0, 0, 1, 1, 1], ["test", "", "", "", "", ""]
    with pytest.raises(DataError, match="The test images have none of class 'class 1': add some"):
        assigned(range(6), labels, given_splits=said)
    assert kinds(assigned(range(6), labels, given_splits=said, audit=WARN))[-1] == "missing_class"


def test_no_images_at_all_are_too_few() -> None:
    with pytest.raises(DataError, match="'a' has 0"):
        assign(np.zeros((0, 32), np.uint8), np.zeros(0, np.int64), [], ["a"], np.zeros(0, np.int64), data=Data())


@pytest.mark.parametrize("kept", ["test", "val"])
def test_given_splits_are_kept_and_only_missing_ones_are_carved(kept: str) -> None:
    said = [kept if number < 40 else "train" for number in range(200)]
    result = assigned(range(200), [number % 4 for number in range(200)], given_splits=said)
    np.testing.assert_array_equal(result.indices(kept), np.arange(40))
    assert 0 < len(result.indices({"test": "val", "val": "test"}[kept])) < 60


def test_three_given_splits_are_kept_as_they_are_even_where_they_share_units() -> None:
    said = ["train", "val", "test"] * 20
    result = assigned(range(60), [0] * 60, given_splits=said, units=[number // 3 for number in range(60)])
    assert result.split.tolist() == said


def test_two_images_are_enough_where_the_test_is_given() -> None:
    result = assigned("abcdef", [0, 0, 0, 1, 1, 1], given_splits=["test", "", "", "test", "", ""])
    assert Counter(result.split.tolist()) == {"train": 2, "val": 2, "test": 2}


def test_an_image_that_the_source_says_nothing_of_goes_with_its_copies() -> None:
    said = ["test", "", "val", ""] + [""] * 20
    result = assigned(range(24), [0] * 24, given_splits=said, units=[0, 0, 1, 1, *range(2, 22)])
    assert result.split[:4].tolist() == ["test", "test", "val", "val"]


def test_no_copy_of_a_given_validation_image_becomes_a_test_image() -> None:
    said = ["val", "train"] * 20 + ["train"] * 20
    result = assigned(
        range(60), [0] * 60, given_splits=said, units=[number // 2 for number in range(60)], test_fraction=0.8
    )
    assert set(result.split[1:40:2].tolist()) == {"train"}
    assert "test" in result.split[40:]


@settings(max_examples=30, deadline=None)
@given(count=st.integers(12, 80), folds=st.integers(2, 6), seed=st.integers(0, 100), size=st.integers(1, 2))
def test_each_image_that_is_not_test_is_in_validation_in_exactly_one_fold(
    count: int, folds: int, seed: int, size: int
) -> None:
    labels = np.repeat([0, 1], count * size)
    units = np.arange(2 * count * size) // size
    parts = [
        assigned(range(len(labels)), labels, units=units, folds=folds, fold=fold, split_seed=seed)
        for fold in range(folds)
    ]
    times = np.sum([part.split == "val" for part in parts], axis=0)
    for part in parts:
        np.testing.assert_array_equal(part.split == "test", times == 0)
        for name in ("train", "val", "test"):
            assert set(labels[part.indices(name)].tolist()) == {0, 1}
    assert times.max() == 1


def test_a_class_with_fewer_images_than_folds_is_refused_in_every_fold() -> None:
    for fold in range(5):
        with pytest.raises(DataError, match=r"at least 6 .* 'class 1' has 5"):
            assigned(range(105), [0] * 100 + [1] * 5, folds=5, fold=fold)


def test_folds_of_a_source_with_a_validation_set_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.folds=3"):
        assigned(range(30), [0] * 30, given_splits=["val"] * 10 + [""] * 20, folds=3)


def frozen_of(names: Sequence[object], assignment: Assignment) -> Counter[bytes]:
    content = digests(names)
    return Counter(content[index].tobytes() for index in assignment.indices("test"))


@settings(max_examples=30, deadline=None)
@given(
    added=st.integers(0, 60), fraction=st.floats(0.01, 0.89), seed=st.integers(0, 100), folds=st.sampled_from([0, 3])
)
def test_a_frozen_test_set_stays_whatever_comes_and_whatever_is_set(
    added: int, fraction: float, seed: int, folds: int
) -> None:
    names: list[object] = list(range(60))
    old = assigned(names, [number % 2 for number in range(60)])
    more = [*names, *(f"new {number}" for number in range(added))]
    labels = [number % 2 for number in range(60 + added)]
    for frozen in (frozen_of(names, old), frozenset(frozen_of(names, old))):
        grown = assigned(more, labels, frozen=frozen, test_fraction=fraction, split_seed=seed, folds=folds)
        np.testing.assert_array_equal(grown.indices("test"), old.indices("test"))
        assert not grown.left_out
        assert {"train", "val"} < set(grown.split.tolist())


def test_relatives_of_frozen_test_images_are_left_out() -> None:
    frozen = frozenset({digests([0])[0].tobytes(), digests([1])[0].tobytes()})
    units = [0, 1, 0, 1, 1, *range(2, 22)]
    said = ["", "", "train", "val", "", *["val", "train"] * 10]
    result = assigned(range(25), [0] * 25, units=units, given_splits=said, frozen=frozen)
    assert result.split[:5].tolist() == ["test", "test", "", "", ""]
    assert result.left_out == dict.fromkeys([2, 3, 4], "copy_of_frozen_test")
    (finding,) = result.findings
    assert (finding.kind, finding.count, finding.policy) == ("copy_of_frozen_test", 3, "quarantine")


def test_no_more_copies_of_a_frozen_image_are_test_than_there_were() -> None:
    # "a" was test twice; a third copy comes, with a unit of its own
    names = ["a", "a", "a", *range(20)]
    frozen = Counter({digests(["a"])[0].tobytes(): 2})
    result = assigned(names, [0] * 23, units=[0, 0, 1, *range(2, 22)], frozen=frozen)
    assert result.split[:3].tolist() == ["test", "test", ""]
    everything = assigned(names, [0] * 23, units=[0, 0, 1, *range(2, 22)], frozen=frozenset(frozen))
    assert everything.split[:3].tolist() == ["test"] * 3
    with pytest.raises(DataError, match="1 of its 3 images"):
        assigned(names[1:], [0] * 22, frozen=Counter({digests(["a"])[0].tobytes(): 3}))


def test_a_frozen_test_set_of_which_images_are_missing_is_refused() -> None:
    frozen = frozenset(row.tobytes() for row in digests([0, 1, 2, "lost", "gone"]))
    with pytest.raises(DataError, match="2 of its 5 images are not in the data"):
        assigned(range(20), [0] * 20, frozen=frozen)


def test_a_given_test_set_must_be_the_frozen_one() -> None:
    frozen = frozenset(row.tobytes() for row in digests([0, 1, 2]))
    same = assigned(range(20), [0] * 20, given_splits=["test"] * 3 + [""] * 17, frozen=frozen)
    np.testing.assert_array_equal(same.indices("test"), [0, 1, 2])
    with pytest.raises(ConfigurationError, match="gives 4 test images, 1 of which are not in the frozen test set"):
        assigned(range(20), [0] * 20, given_splits=["test"] * 4 + [""] * 16, frozen=frozen)


def test_what_the_source_does_not_give_as_test_any_more_stays_frozen() -> None:
    frozen = frozenset(row.tobytes() for row in digests([0, 1, 2]))
    result = assigned(
        range(20), [0] * 20, given_splits=["test", "train", "val"] + ["train", "val"] * 8 + ["train"], frozen=frozen
    )
    np.testing.assert_array_equal(result.indices("test"), [0, 1, 2])


def test_a_class_that_came_after_freezing_is_missing_from_the_test() -> None:
    frozen = frozenset(row.tobytes() for row in digests([0, 1, 2]))
    with pytest.raises(DataError, match=r"test images have none of class 'class 1'.*frozen_test"):
        assigned(range(40), [0] * 20 + [1] * 20, frozen=frozen)
