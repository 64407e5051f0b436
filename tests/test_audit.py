"""The audit finds what is planted and nothing in clean images, and each policy does what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from inspected_images import blurred, inspected, mirrored, photo, resized

from recognition.audit import Audited, audit
from recognition.audit.inspected import Inspected
from recognition.data_settings import Audit, Data
from recognition.errors import DataError
from recognition.pixels import Pixels
from recognition.records import Finding

PHOTOS = [photo(seed) for seed in range(60)]
QUALITY = {"odd_size", "odd_aspect", "dark", "bright", "blurry", "constant"}


def data(**policies: Any) -> Data:
    return Data(audit=Audit(**policies))


def one(audited: Audited, kind: str) -> Finding:
    found = [finding for finding in audited.findings if finding.kind == kind]
    assert len(found) == 1, [finding.kind for finding in audited.findings]
    return found[0]


def members(audited: Audited, kind: str) -> tuple[tuple[int, ...], ...]:
    return audited.members[audited.findings.index(one(audited, kind))]


def kinds(audited: Audited) -> set[str]:
    """What was found, but for that validation and test sets are small, as those of a few dozen images are."""
    return {finding.kind for finding in audited.findings} - {"few_in_split"}


def test_clean_photographs_have_no_findings_and_all_are_used() -> None:
    audited = audit(inspected(PHOTOS), Data())
    assert kinds(audited) == set()
    assert audited.left_out == {}
    assert audited.failures == ""
    audited.raise_failures()
    assert set(audited.split.tolist()) == {"train", "val", "test"}
    assert sum(audited.counts.values()) == 60
    assert {name: sum(counts.values()) for name, counts in audited.class_counts.items()} == audited.counts


def handwritten(seed: int) -> Pixels:
    """White strokes on black ground, 28 x 28."""
    random = np.random.default_rng(seed)
    picture = np.zeros((28, 28, 1), np.uint8)
    row, column = random.integers(6, 22, 2)
    for _ in range(40):
        picture[row : row + 2, column : column + 2] = 255
        row, column = np.clip(np.add([row, column], random.integers(-1, 2, 2)), 4, 22)
    return picture


def test_digits_on_black_ground_and_of_few_pixels_look_like_each_other() -> None:
    from sklearn.datasets import load_digits

    small = [np.clip(image * 16, 0, 255).astype(np.uint8)[:, :, np.newaxis] for image in load_digits().images[:300]]
    for images in (small, [handwritten(seed) for seed in range(100)]):
        found = audit(inspected(images, side=images[0].shape[0]), Data())
        assert not kinds(found) & QUALITY
        inverted = audit(inspected([255 - image for image in images], side=images[0].shape[0]), Data())
        assert not kinds(inverted) & QUALITY


ODD: dict[str, Callable[[], Pixels]] = {
    "dark": lambda: photo(100) // 20,
    "bright": lambda: 255 - photo(100) // 20,
    "blurry": lambda: blurred(photo(100)),
    "constant": lambda: np.full((64, 64, 3), 90, np.uint8),
    "odd_size": lambda: photo(100, 12, 12),
    "odd_aspect": lambda: photo(100, 20, 200),
}


@pytest.mark.parametrize("kind", sorted(ODD))
def test_an_odd_image_is_found_among_photographs(kind: str) -> None:
    audited = audit(inspected([*PHOTOS, ODD[kind]()]), Data())
    assert members(audited, kind) == ((60,),)
    finding = one(audited, kind)
    assert (finding.count, finding.policy, finding.files) == (1, "warn", ("cat/00060.png",))
    assert "cat/00060.png" in finding.message
    assert kinds(audited) == {kind}
    assert audited.split[60] != "", "a warning leaves the image in"


@pytest.mark.parametrize("kind", sorted(ODD))
def test_a_set_of_such_images_only_has_no_such_finding(kind: str) -> None:
    make: dict[str, Callable[[int], Pixels]] = {
        "dark": lambda seed: photo(seed) // 20,
        "bright": lambda seed: 255 - photo(seed) // 20,
        "blurry": lambda seed: blurred(photo(seed)),
        "odd_size": lambda seed: photo(seed, 12, 12),
        "odd_aspect": lambda seed: photo(seed, 20, 200),
        "constant": lambda seed: photo(seed),
    }
    audited = audit(inspected([make[kind](seed) for seed in range(40)]), Data())
    assert kind not in kinds(audited)


@pytest.mark.parametrize("kind", [*sorted(ODD), "wrong_extension", "animated", "converted"])
def test_each_policy_does_what_it_says(kind: str) -> None:
    images = [*PHOTOS, ODD[kind]() if kind in ODD else photo(100)]
    remark = {"converted": "cmyk"}.get(kind, kind)
    source = inspected(images, remarks={} if kind in ODD else {remark: [60]})

    warned = audit(source, data(**{kind: "warn"}))
    assert (warned.left_out, warned.failures) == ({}, "")
    assert "Used all the same" in one(warned, kind).message

    without = audit(source, data(**{kind: "quarantine"}))
    assert (without.left_out, without.failures) == ({60: kind}, "")
    assert (without.split == "").tolist() == [False] * 60 + [True]
    assert "Left out 1 image" in one(without, kind).message

    failed = audit(source, data(**{kind: "fail"}))
    assert one(failed, kind).policy == "fail"
    with pytest.raises(DataError) as raised:
        failed.raise_failures()
    assert "cat/00060.png" in str(raised.value)
    assert f"data.audit.{kind}=quarantine" in str(raised.value)


def test_conversions_are_counted_by_what_was_converted() -> None:
    audited = audit(inspected(PHOTOS, remarks={"palette": [1, 2], "transparent": [2, 3], "16_bit": [4]}), Data())
    finding = one(audited, "converted")
    assert finding.count == 4
    assert "2 with a palette, 2 with transparency, 1 of 16 bits" in finding.message


def test_unreadable_files_fail_or_are_left_out_and_are_not_copies_of_each_other() -> None:
    source = inspected([*PHOTOS, None, None])
    failed = audit(source, Data())
    assert "cat/00060.png is cut off: its end is missing" in failed.failures
    assert "data.audit.unreadable=quarantine" in failed.failures
    assert (failed.counts, kinds(failed)) == (failed.counts, {"unreadable"})

    without = audit(source, data(unreadable="quarantine"))
    assert without.left_out == {60: "unreadable", 61: "unreadable"}
    assert without.failures == ""
    assert kinds(without) == {"unreadable"}
    assert without.unit[60] != without.unit[61]
    message = one(without, "unreadable").message
    assert message.startswith("2 files cannot be read")
    assert "Left out 2 images." in message


def test_a_finding_on_one_image_speaks_of_one() -> None:
    for count, words in ((1, "Look at it, and remove it if"), (2, "Look at them, and remove those that")):
        images = [*PHOTOS, *(photo(100 + number) // 20 for number in range(count))]
        assert words in one(audit(inspected(images), Data()), "dark").message


def test_every_failing_finding_is_listed() -> None:
    images = [*PHOTOS, None, ODD["constant"](), PHOTOS[3]]
    failed = audit(inspected(images, [*([0, 1] * 30), 0, 1, 1]), data(constant="fail", exact_duplicates="fail"))
    for setting in ("unreadable", "constant", "exact_duplicates"):
        assert f"data.audit.{setting}=quarantine" in failed.failures
    assert [finding.policy for finding in failed.findings[:3]] == ["fail"] * 3, "the gravest first"


# copies


def with_copies(copy: Pixels, **more: Any) -> Inspected:
    """60 photographs and a copy of the sixth, a dog."""
    return inspected([*PHOTOS, copy], [*([0, 1] * 30), more.pop("label", 1)], **more)


COPIES = {"exact_duplicates": PHOTOS[5], "near_duplicates": resized(PHOTOS[5], 80, 80)}


@pytest.mark.parametrize("kind", sorted(COPIES))
def test_copies_within_a_split_are_found_and_one_of_them_stays(kind: str) -> None:
    source = with_copies(COPIES[kind])
    warned = audit(source, Data())
    assert kinds(warned) == {kind}
    assert members(warned, kind) == ((5, 60),)
    assert one(warned, kind).files == ("dog/00005.png", "dog/00060.png")
    assert one(warned, kind).groups == (("dog/00005.png", "dog/00060.png"),)
    assert warned.split[5] == warned.split[60], "carved splits part no copies"
    assert warned.unit[5] == warned.unit[60]

    without = audit(source, data(**{kind: "quarantine"}))
    # the larger one stays; of equal ones the first
    assert without.left_out == {60 if kind == "exact_duplicates" else 5: kind}
    stay = without.split != ""
    assert (without.split[stay] == warned.split[stay]).all(), "the others are split the same"

    assert f"data.audit.{kind}=quarantine" in audit(source, data(**{kind: "fail"})).failures


def test_mirrored_copies_are_near_copies() -> None:
    assert kinds(audit(with_copies(mirrored(PHOTOS[5])), Data())) == {"near_duplicates"}


def given_splits(**special: str) -> list[str]:
    """train for the first 40 photographs, val for 10, test for 10, and what is said of the sixty-first."""
    return ["train"] * 40 + ["val"] * 10 + ["test"] * 10 + list(special.values())


@pytest.mark.parametrize("kind", sorted(COPIES))
def test_a_copy_in_two_given_splits_is_a_leak(kind: str) -> None:
    source = with_copies(COPIES[kind], splits=given_splits(copy="test"))

    moved = audit(source, Data())
    assert kinds(moved) == {"leaks", kind}, "and within the test set they are copies"
    assert one(moved, "leaks").policy == "move"
    assert (moved.split[5], moved.split[60], moved.left_out) == ("test", "test", {})
    assert one(moved, "leaks").groups == (("dog/00005.png (train)", "dog/00060.png (test)"),)

    without = audit(source, data(leaks="quarantine"))
    assert without.left_out == {5: "leaks"}
    assert without.split[60] == "test"

    warned = audit(source, data(leaks="warn"))
    assert (warned.split[5], warned.split[60], warned.left_out) == ("train", "test", {})
    assert kinds(warned) == {"leaks"}

    failed = audit(source, data(leaks="fail"))
    assert "data.audit.leaks=move" in failed.failures
    assert failed.split[5] == "train"


def test_copies_move_to_validation_from_training_and_from_both_to_the_test() -> None:
    source = inspected(
        [*PHOTOS, PHOTOS[5], PHOTOS[7], PHOTOS[7]],
        [*([0, 1] * 30), 1, 1, 1],
        splits=[*given_splits(), "val", "val", "test"],
    )
    audited = audit(source, Data())
    assert audited.split[[5, 60]].tolist() == ["val"] * 2
    assert audited.split[[7, 61, 62]].tolist() == ["test"] * 3


def test_published_splits_stay_as_they_are_unless_told_otherwise() -> None:
    source = with_copies(PHOTOS[5], splits=given_splits(copy="test"), published=True)
    kept = audit(source, Data())
    assert one(kept, "leaks").policy == "warn"
    assert kept.split[[5, 60]].tolist() == ["train", "test"]
    assert audit(source, data(leaks="move")).split[[5, 60]].tolist() == ["test", "test"]


def test_where_validation_is_carved_a_moved_copy_and_the_rest_stay_apart() -> None:
    splits = ["train"] * 50 + ["test"] * 10 + ["test"]
    audited = audit(with_copies(PHOTOS[5], splits=splits), Data())
    assert audited.split[[5, 60]].tolist() == ["test", "test"]
    assert audited.counts["val"] > 0


def test_a_group_moves_as_a_whole_with_one_of_its_images() -> None:
    groups = [""] * 61
    for index in (5, 6, 7):
        groups[index] = "patient 1"
    audited = audit(with_copies(PHOTOS[5], splits=given_splits(copy="test"), groups=groups), Data())
    assert audited.split[[5, 6, 7, 60]].tolist() == ["test"] * 4
    assert "parted_groups" not in kinds(audited)
    message = one(audited, "leaks").message
    assert "Moved 3 images to test, 2 of them only to stay with their groups, so that" in message
    alone = audit(with_copies(PHOTOS[5], splits=given_splits(copy="test")), Data())
    assert "Moved 1 image to test, so that" in one(alone, "leaks").message


def emptied_validation(*, group: bool) -> Inspected:
    """All dogs of the validation set are copies of test images, or of a group with one; cats are there besides."""
    splits = ["val" if 40 <= index < 50 else "test" if index >= 50 else "train" for index in range(60)]
    dogs = [41, 43, 45, 47, 49]
    groups = ["patient 1" if group and index in dogs else "" for index in range(60)]
    copied = dogs[:1] if group else dogs
    return inspected(
        [*PHOTOS, *(PHOTOS[index] for index in copied)],
        [*([0, 1] * 30), *[1] * len(copied)],
        splits=splits + ["test"] * len(copied),
        groups=groups + [""] * len(copied),
    )


@pytest.mark.parametrize(("group", "remedy"), [(True, "quarantine"), (False, "warn")])
def test_a_class_that_a_move_takes_from_validation_is_told_with_a_remedy_that_helps(group: bool, remedy: str) -> None:
    source = emptied_validation(group=group)
    failed = audit(source, Data())
    assert failed.class_counts["val"] == {"cat": 5, "dog": 0}
    assert "data.audit.leaks=move has taken every image of dog from val" in failed.failures
    assert f"data.audit.leaks={remedy}" in one(failed, "missing_class").message
    assert audit(source, data(leaks=remedy)).failures == ""


def test_a_class_that_no_split_was_given_is_not_put_down_to_a_move() -> None:
    splits = ["train" if index % 2 or index < 50 else "test" for index in range(60)]
    source = inspected([*PHOTOS, PHOTOS[4]], [*([0, 1] * 30), 0], splits=[*splits, "test"])
    audited = audit(source, Data())
    assert one(audited, "leaks").policy == "move"
    assert "leaks" not in one(audited, "missing_class").message


def test_groups_that_the_given_splits_part_are_told() -> None:
    groups = [""] * 60
    groups[3] = groups[55] = "patient 1"
    audited = audit(inspected(PHOTOS, splits=given_splits(), groups=groups), Data())
    assert kinds(audited) == {"parted_groups"}
    assert "patient 1" in one(audited, "parted_groups").message
    assert " = " not in one(audited, "parted_groups").message
    assert audited.split[[3, 55]].tolist() == ["train", "test"]


def test_carved_splits_part_neither_copies_nor_groups() -> None:
    images = [*PHOTOS, *(PHOTOS[index] for index in range(20))]
    labels = [*([0, 1] * 30), *([0, 1] * 10)]
    groups = [f"camera {index // 3}" for index in range(60)] + [""] * 20
    audited = audit(inspected(images, labels, groups=groups), Data())
    for start in range(0, 60, 3):
        camera = [start, start + 1, start + 2]
        camera += [60 + index for index in camera if index < 20]
        assert len(set(audited.split[camera].tolist())) == 1


# labels


def test_the_same_pixels_under_two_labels_are_left_out_and_named_with_both_labels() -> None:
    source = with_copies(PHOTOS[5], label=0)
    without = audit(source, Data())
    assert without.left_out == {5: "conflicting_labels", 60: "conflicting_labels"}
    finding = one(without, "conflicting_labels")
    assert finding.groups == (("dog/00005.png", "cat/00060.png"),)
    assert "dog/00005.png = cat/00060.png" in finding.message
    assert kinds(without) == {"conflicting_labels"}

    assert audit(source, data(conflicting_labels="warn")).left_out == {}
    assert "data.audit.conflicting_labels=quarantine" in audit(source, data(conflicting_labels="fail")).failures


def test_a_published_test_set_keeps_its_conflicts() -> None:
    audited = audit(with_copies(PHOTOS[5], label=0, splits=given_splits(copy="test"), published=True), Data())
    assert audited.left_out == {5: "conflicting_labels"}
    assert audited.split[60] == "test"
    assert "1 of the published test set stay" in one(audited, "conflicting_labels").message


def test_labels_are_told_where_names_do_not_tell_them() -> None:
    source = with_copies(PHOTOS[5], label=0, names=[f"{index}.png" for index in range(61)])
    assert one(audit(source, Data()), "conflicting_labels").groups == (("5.png (dog)", "60.png (cat)"),)


def test_a_near_copy_under_another_label_is_a_conflict() -> None:
    audited = audit(with_copies(resized(PHOTOS[5], 80, 80), label=0), Data())
    assert audited.left_out == {5: "conflicting_labels", 60: "conflicting_labels"}


def test_a_mirrored_image_may_have_another_label() -> None:
    audited = audit(with_copies(mirrored(PHOTOS[5]), label=0), Data())
    assert (kinds(audited), audited.left_out) == (set(), {})
    assert audited.split[5] == audited.split[60]


def test_small_images_that_look_alike_may_have_other_labels() -> None:
    images = [photo(seed, 16, 16) for seed in range(60)]
    alike = np.clip(images[5].astype(int) + 1, 0, 255).astype(np.uint8)
    audited = audit(inspected([*images, alike], [*([0, 1] * 30), 0], side=16), Data())
    assert audited.left_out == {}
    assert "conflicting_labels" not in kinds(audited)


def test_a_conflict_across_given_splits_is_no_leak_once_it_is_left_out() -> None:
    source = with_copies(PHOTOS[5], label=0, splits=given_splits(copy="test"))
    assert kinds(audit(source, Data())) == {"conflicting_labels"}
    assert kinds(audit(source, data(conflicting_labels="warn"))) == {"conflicting_labels", "leaks"}


# classes


def test_small_classes_and_imbalance_are_told() -> None:
    images = [photo(seed) for seed in range(120)]
    labels = [0] * 112 + [1] * 8
    audited = audit(inspected(images, labels), Data())
    assert "1 class has fewer than 10 images: dog has 8" in one(audited, "few_images").message
    assert "cat has 112, dog has 8" in one(audited, "imbalance").message
    failed = audit(inspected(images, labels), data(few_images="fail", imbalance="fail"))
    assert "data.audit.few_images=warn" in failed.failures
    assert "data.audit.imbalance=warn" in failed.failures
    enough = audit(inspected(images[:110], [0] * 100 + [1] * 10), Data())
    assert not kinds(enough) & {"few_images", "imbalance"}


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        ("Daisy", "daisy", '"Daisy" and "daisy"'),
        ("daisy ", "daisy", '"daisy " and "daisy"'),
        ("sun flower", "sunflower", '"sun flower" and "sunflower"'),
        ("sun\u00a0flower", "sun flower", r'"sun\xa0flower" and "sun flower"'),
        ("caf\u00e9", "cafe\u0301", r'"caf\xe9" and "cafe\u0301"'),
        ("STRASSE", "stra\u00dfe", '"STRASSE" and "stra\u00dfe"'),
    ],
)
def test_class_names_that_hardly_differ_are_told(first: str, second: str, shown: str) -> None:
    names = [f"{index}.png" for index in range(60)]
    audited = audit(inspected(PHOTOS, names=names, class_names=(first, "rose", second)), Data())
    finding = one(audited, "similar_class_names")
    assert (finding.policy, finding.count) == ("warn", 1)
    assert shown in finding.message
    assert "rose" not in finding.message


@pytest.mark.parametrize("names", [("a", "A"), ("cat", "cats"), ("1", "11"), ("cafe", "caf\u00e9")])
def test_class_names_that_differ_in_letters_and_single_letters_are_not_alike(names: tuple[str, str]) -> None:
    assert "similar_class_names" not in kinds(audit(inspected(PHOTOS, class_names=names), Data()))


def test_splits_with_hardly_an_image_of_a_large_class_are_told_once() -> None:
    splits = ["train"] * 44 + ["val"] * 6 + ["test"] * 10
    found = one(audit(inspected(PHOTOS, splits=splits), Data()), "few_in_split")
    assert (found.policy, found.count) == ("warn", 2)
    assert "val has 3 images of cat, val has 3 images of dog." in found.message
    assert "test has" not in found.message, "5 are not fewer than 5"
    assert "fraction" not in found.message, "the source gives the splits"
    carved = one(audit(inspected(PHOTOS), Data()), "few_in_split").message
    assert "data.val_fraction" in carved
    small = [finding.kind for finding in audit(inspected(PHOTOS), data(minimum_per_class=31)).findings]
    assert small == ["few_images"], "a small class is told already"


def test_splits_with_enough_images_of_each_class_are_not_told() -> None:
    splits = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    assert audit(inspected(PHOTOS, splits=splits), Data()).findings == ()


def test_a_split_without_a_class_fails_unless_told_otherwise() -> None:
    splits = ["train" if index % 2 or index < 50 else "test" for index in range(60)]
    source = inspected(PHOTOS, splits=splits)
    assert "'dog'" in audit(source, Data()).failures
    assert "data.audit.missing_class=warn" in audit(source, Data()).failures
    warned = audit(source, data(missing_class="warn"))
    assert warned.failures == ""
    assert warned.class_counts["test"] == {"cat": 5, "dog": 0}
    assert one(warned, "missing_class").policy == "warn"


def test_a_class_of_which_nothing_is_left_fails_whatever_the_policies() -> None:
    images = [*PHOTOS[:30], *([ODD["constant"]()] * 5)]
    source = inspected(images, [0] * 30 + [1] * 5)
    audited = audit(source, data(constant="quarantine", missing_class="warn"))
    assert "No image is left of 1 class (dog)" in audited.failures


def test_where_nothing_is_left_the_audit_says_so_and_still_ends() -> None:
    audited = audit(inspected(PHOTOS, remarks={"cmyk": range(60)}), data(converted="quarantine"))
    assert "None of the 60 images is left" in audited.failures
    assert set(audited.split.tolist()) == {""}
    assert audited.counts == {"train": 0, "val": 0, "test": 0}


def test_what_the_source_says_is_passed_on() -> None:
    told = Finding(kind="not_images", message="2 files are no images.", count=2, files=("notes.txt", "a.csv"))
    assert one(audit(inspected(PHOTOS, findings=(told,)), Data()), "not_images") == told
    failed = audit(inspected(PHOTOS, findings=(told.model_copy(update={"policy": "fail"}),)), Data())
    assert "2 files are no images." in failed.failures
    assert "notes.txt" in failed.failures


# a frozen test set


def test_images_of_a_frozen_test_set_stay_and_their_copies_go() -> None:
    first = inspected(PHOTOS)
    before = audit(first, Data())
    content = first.measures["content"]
    frozen = frozenset(content[index].tobytes() for index in np.flatnonzero(before.split == "test").tolist())
    index = int(np.flatnonzero(before.split == "test")[0])

    grown = inspected([*PHOTOS, resized(PHOTOS[index], 80, 80)], [*([0, 1] * 30), index % 2])
    audited = audit(grown, data(near_duplicates="quarantine"), frozen)
    assert (audited.split[:60] == "test").tolist() == (before.split == "test").tolist()
    assert audited.left_out == {60: "copy_of_frozen_test"}
    assert one(audited, "copy_of_frozen_test").files == (grown.sample_ids[60],)

    # a copy under another label takes nothing from the test set
    conflict = inspected([*PHOTOS, resized(PHOTOS[index], 80, 80)], [*([0, 1] * 30), 1 - index % 2])
    audited = audit(conflict, Data(), frozen)
    assert (audited.split[:60] == "test").tolist() == (before.split == "test").tolist()
    assert audited.left_out == {60: "conflicting_labels"}
    assert "1 of the frozen test set stay" in one(audited, "conflicting_labels").message


def test_a_frozen_test_set_that_is_not_whole_fails() -> None:
    audited = audit(inspected(PHOTOS), Data(), frozenset([b"\1" * 32]))
    assert "frozen test set is not whole" in audited.failures


# names


def test_hostile_names_stay_on_one_line_of_messages_and_whole_in_files() -> None:
    names = [f"{index}.png" for index in range(60)]
    names[7] = "a\nb\x1b[2J\u202egnp.exe"
    names[8] = "bad\udcff.png"
    audited = audit(inspected(PHOTOS, names=names, remarks={"animated": [7, 8]}), data(animated="fail"))
    finding = one(audited, "animated")
    assert finding.files == (names[7], "bad\\udcff.png")
    assert finding.message.isprintable()
    assert all(line.isprintable() for line in audited.failures.split("\n"))
    assert "a\\nb\\x1b[2J\\u202egnp.exe" in finding.message
    finding.model_dump_json()


def test_findings_hold_only_the_first_names_of_many() -> None:
    images = [photo(seed, 32, 32) for seed in range(150)]
    audited = audit(inspected([*images, *images]), Data())
    finding = one(audited, "exact_duplicates")
    assert finding.count == 150
    assert len(finding.files) == 100
    assert len(finding.groups) == 50
    assert len(members(audited, "exact_duplicates")) == 150
