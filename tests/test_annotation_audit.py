"""Each mistake in boxes and masks is named, and does what its policy says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from annotated_sets import Box, disc, instance_set, map_set, png, voc_set, voc_xml
from conftest import SHARED_DATA
from sample_images import encoded, pixels, write

from recognition import datasets, versions
from recognition.audit import names
from recognition.data_settings import Audit, Data
from recognition.defaults import resolve_task
from recognition.errors import AuditError, ConfigurationError, DataError
from recognition.experiment import Model
from recognition.preparation import examine, locate, prepare
from recognition.records import AuditedData, Finding, PreparedData

BOX: Box = ("cell", 1, 1, 9, 9)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECOGNITION_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def settings_of(source: Path, **policies: str) -> Data:
    return Data(source=str(source), audit=Audit(**policies))  # type: ignore[arg-type]


def audited(source: Path, **policies: str) -> AuditedData:
    data = settings_of(source, **policies)
    return examine(data, locate(data))


def prepared(source: Path, **policies: str) -> PreparedData:
    return prepare(settings_of(source, **policies))


def the(findings: tuple[Finding, ...], kind: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.kind == kind]
    return finding


def boxes(root: Path, *odd: Box) -> Path:
    """Ten images with a box each; the second has ``odd`` ones too."""
    return voc_set(root / "set", {f"{number}": [BOX, *(odd if number == 1 else ())] for number in range(10)})


# boxes


@pytest.mark.parametrize(
    ("odd", "what"),
    [
        (("cell", 5, 5, 5, 9), "1.png box 2 (cell, 5, 5, 5, 9) has no area"),
        (("cell", 5, 9, 8, 9), "1.png box 2 (cell, 5, 9, 8, 9) has no area"),
        (("cell", 9, 9, 5, 5), "has no area"),
        (("cell", 60, 5, 70, 9), "1.png box 2 (cell, 60, 5, 70, 9) is outside of the image of 60 x 40 pixels"),
        (("cell", -9, -9, 0, 0), "is outside of the image"),
        (("cell", float("nan"), 1, 5, 5), "has a side that is no number"),
        (("cell", 1, 1, float("inf"), 5), "has a side that is no number"),
    ],
)
def test_a_box_that_cannot_be_used_is_forbidden_by_name_or_left_out(tmp_path: Path, odd: Box, what: str) -> None:
    source = boxes(tmp_path, odd)
    found = audited(source)
    finding = the(found.findings, "invalid_boxes")
    assert (finding.count, finding.policy, finding.files) == (1, "fail", ("1.png",))
    assert what in finding.message
    assert what in found.failed
    assert "data.audit.invalid_boxes=quarantine" in found.failed
    with pytest.raises(AuditError, match="The images cannot be used as they are"):
        prepared(source)
    record = prepared(source, invalid_boxes="quarantine")
    assert "Left out this box; its image stays." in the(record.findings, "invalid_boxes").message
    assert sum(record.counts.values()) == 10
    arrays = datasets.open_arrays(record.path)
    assert arrays.objects
    assert arrays.objects.boxes.tolist() == [[1, 1, 9, 9]] * 10


def test_a_box_that_reaches_out_of_its_image_is_clipped_and_told(tmp_path: Path) -> None:
    record = prepared(boxes(tmp_path, ("cell", -5, 30, 10, 45), ("cell", 50, 30, 60.4, 40)))
    finding = the(record.findings, "clipped_boxes")
    assert (finding.count, finding.policy) == (1, "warn")  # what is rounded is not told
    arrays = datasets.open_arrays(record.path)
    assert arrays.objects
    assert arrays.objects.of(arrays.sample_ids().index("1.png")).boxes.tolist() == [
        [1, 1, 9, 9],
        [0, 30, 10, 40],
        [50, 30, 60, 40],
    ]


def missing_file(root: Path) -> None:
    (root / "Annotations" / "1.xml").unlink()


def cut_file(root: Path) -> None:
    (root / "Annotations" / "1.xml").write_bytes(b"<annotation><object>")


def other_size(root: Path) -> None:
    (root / "Annotations" / "1.xml").write_bytes(voc_xml([BOX], 80, 120))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (missing_file, "1.png has no file of boxes"),
        (cut_file, "1.png has a file of boxes that cannot be read"),
        (other_size, "1.png has boxes for an image of 120 x 80 pixels, but is of 60 x 40 pixels"),
    ],
)
def test_an_image_without_usable_boxes_follows_its_policy(
    tmp_path: Path, damage: Callable[[Path], None], what: str
) -> None:
    source = boxes(tmp_path)
    damage(source)
    assert what in audited(source).failed
    left_out = prepared(source, missing_annotations="quarantine")
    assert sum(left_out.counts.values()) == 9
    samples = versions.read_samples(left_out.path / versions.SAMPLES)
    assert samples.left_out[samples.sample_ids.index("1.png")] == "missing_annotations"
    kept = prepared(source, missing_annotations="warn")
    assert sum(kept.counts.values()) == 10
    assert sum(counts["cell"] for counts in kept.class_counts.values()) == 9


def test_data_without_any_object_cannot_be_used(tmp_path: Path) -> None:
    source = voc_set(tmp_path / "set", {f"{number}": [] for number in range(10)})
    assert "None of the images has an object." in audited(source).failed


def test_a_split_without_objects_of_a_class_is_told(tmp_path: Path) -> None:
    for split, name in (("train", "cell"), ("val", "cell"), ("test", "dust")):
        for number in range(4):
            path = tmp_path / "set" / split / f"{number}.png"
            write(path, encoded(pixels(number + 10 * len(split) + ord(split[1]), 40, 60)))
            write(path.with_suffix(".xml"), voc_xml([(name, 1, 1, 9, 9)]))
    finding = the(audited(tmp_path / "set").findings, "missing_objects")
    assert "train has no dust, val has no dust, test has no cell" in finding.message


def test_the_images_of_objects_have_no_findings_on_the_balance_of_classes(tmp_path: Path) -> None:
    assert not {finding.kind for finding in audited(boxes(tmp_path)).findings} & {
        "few_images",
        "few_in_split",
        "imbalance",
        "missing_class",
    }


# masks


def wrong_size(path: Path) -> None:
    path.write_bytes(png(disc(20, 30, 10, 10, 5)))


def empty(path: Path) -> None:
    path.write_bytes(png(np.zeros((40, 60), np.uint8)))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def coloured(path: Path) -> None:
    path.write_bytes(encoded(pixels(0, 40, 60)))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (wrong_size, "of 30 x 20 pixels, but is of 60 x 40 pixels"),
        (empty, "which is empty"),
        (cut, "which is"),
        (coloured, "which is in colours"),
    ],
)
def test_a_mask_that_cannot_be_used_is_forbidden_by_name_or_left_out(
    tmp_path: Path, damage: Callable[[Path], None], what: str
) -> None:
    source = instance_set(tmp_path / "discs")
    damage(source / "id02" / "masks" / "m1.png")
    found = audited(source)
    assert f"id02/images/2.png has the mask id02/masks/m1.png{'' if what.startswith('of') else ','}" in found.failed
    assert what in found.failed
    assert "data.audit.invalid_masks=quarantine" in found.failed
    record = prepared(source, invalid_masks="quarantine")
    assert sum(record.counts.values()) == 12
    assert sum(counts["object"] for counts in record.class_counts.values()) == 4 * (1 + 2 + 3) - 1
    assert "Left out this mask; its image stays." in the(record.findings, "invalid_masks").message


def test_an_image_whose_only_mask_cannot_be_used_is_left_out_with_it(tmp_path: Path) -> None:
    source = map_set(tmp_path / "set", {f"{number}": disc(40, 60, 20, 20, 5) for number in range(10)})
    wrong_size(source / "masks" / "3.png")
    assert "3.png has the mask masks/3.png of 30 x 20 pixels" in audited(source).failed
    record = prepared(source, invalid_masks="quarantine")
    assert sum(record.counts.values()) == 9


def test_a_class_that_no_list_names_is_an_invalid_mask(tmp_path: Path) -> None:
    maps = {f"{number}": disc(40, 60, 20, 20, 5) * (3 if number == 4 else 1) for number in range(10)}
    source = map_set(tmp_path / "set", {name: values.astype(np.uint8) for name, values in maps.items()})
    write(source / "classes.txt", b"cell\ndust\n")
    assert "4.png has a mask with class 3, but there are 2 classes" in audited(source).failed


def test_an_image_without_a_mask_follows_its_policy(tmp_path: Path) -> None:
    source = map_set(tmp_path / "set", {f"{number}": disc(40, 60, 20, 20, 5) for number in range(10)})
    (source / "masks" / "3.png").unlink()
    assert "3.png has no mask" in audited(source).failed
    record = prepared(source, missing_annotations="warn")
    arrays = datasets.open_arrays(record.path)
    assert arrays.objects
    assert not arrays.objects.class_map(arrays.sample_ids().index("3.png")).any()


# what holds for all images


def test_copies_under_other_boxes_are_conflicts_and_under_the_same_ones_copies(tmp_path: Path) -> None:
    source = boxes(tmp_path)
    for name, own in (("same", [BOX]), ("other", [("cell", 1, 1, 9, 10)])):
        write(source / "JPEGImages" / f"{name}.png", (source / "JPEGImages" / "3.png").read_bytes())
        write(source / "Annotations" / f"{name}.xml", voc_xml(own))  # type: ignore[arg-type]
    found = audited(source)
    conflict = the(found.findings, "conflicting_labels")
    assert set(conflict.files) == {"3.png", "other.png", "same.png"}
    assert found.left_out == 3
    (source / "Annotations" / "other.xml").write_bytes(voc_xml([BOX]))
    assert set(the(audited(source).findings, "exact_duplicates").files) == {"3.png", "other.png", "same.png"}


def test_the_report_counts_objects_and_shows_what_is_on_images(tmp_path: Path) -> None:
    found = audited(boxes(tmp_path, ("dust", 1, 1, 5, 5), ("cell", 5, 5, 5, 9)))
    assert (found.kind, found.class_names, found.images) == ("boxes", ("cell", "dust"), 10)
    page = (found.path / "report.html").read_text()
    assert "For each class its boxes:" in page
    content = json.loads((found.path / "audit.json").read_text())
    total = {name: sum(counts[name] for counts in content["class_counts"].values()) for name in ("cell", "dust")}
    assert total == {"cell": 10, "dust": 1}
    assert sum(content["counts"].values()) == 10
    assert "1 cell, 1 dust" in page


def test_a_hostile_class_name_stays_on_its_line_and_runs_nothing(tmp_path: Path) -> None:
    found = audited(boxes(tmp_path, ("&lt;script&gt;x&#10;\u202e", 5, 5, 5, 9)))
    page = (found.path / "report.html").read_text()
    assert "<script>" not in page
    assert names.visible("<script>x\n") not in page
    assert "\u202e" not in page


def test_a_classifier_is_refused_for_boxes(tmp_path: Path) -> None:
    record = prepared(boxes(tmp_path))
    with pytest.raises(ConfigurationError, match="classification learns from a class for each image"):
        resolve_task(Model(task="classification"), record.kind)
    assert resolve_task(Model(), record.kind) == "detection"


def test_a_frozen_test_set_of_boxes_stays(tmp_path: Path) -> None:
    source = boxes(tmp_path)
    before = prepared(source)
    write(source / "JPEGImages" / "new.png", encoded(pixels(99, 40, 60)))
    write(source / "Annotations" / "new.xml", voc_xml([BOX]))
    after = prepare(Data(source=str(source), frozen_test=str(before.path / versions.SAMPLES)))
    assert after.test_digest == before.test_digest
    assert sum(after.counts.values()) == 11


def test_yolo_is_refused_with_what_is_read(tmp_path: Path) -> None:
    write(tmp_path / "set" / "1.jpg", b"")
    write(tmp_path / "set" / "1.txt", b"0 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match=r"\(YOLO\)\. Read are boxes as COCO .* or Pascal VOC"):
        audited(tmp_path / "set")


# real sets


@pytest.mark.skipif(not (SHARED_DATA / "bccd.zip").is_file(), reason="../shared/data is absent")
def test_the_two_boxes_of_blood_cells_without_area_are_named() -> None:
    data = Data(source=str(SHARED_DATA / "bccd.zip"), image_size=32, resize="stretch")
    found = examine(data, locate(data))
    finding = the(found.findings, "invalid_boxes")
    assert finding.files == ("BloodImage_00338.jpg", "BloodImage_00343.jpg")
    assert "BloodImage_00338.jpg box 13 (RBC, 504, 337, 504, 337) has no area" in found.failed
    record = prepare(data.model_copy(update={"audit": Audit(invalid_boxes="quarantine")}))
    assert record.counts == {"train": 205, "val": 87, "test": 72}
    total = {name: sum(counts[name] for counts in record.class_counts.values()) for name in record.class_names}
    assert total == {"Platelets": 361, "RBC": 4153, "WBC": 372}
