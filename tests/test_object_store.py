"""Boxes and masks follow their images into the prepared size, are stored whole, and belong to the data's identity."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from annotated_sets import Box, coco_json, coco_set, disc, instance_set, map_set, png, voc_set, voc_xml
from conftest import SHARED_DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sample_images import encoded, pixels, tarred, write, zipped

from recognition import datasets, versions
from recognition.data_settings import Audit, Data
from recognition.differences import diff
from recognition.objects import Objects
from recognition.pixels import Fit, fit, fit_mask, geometry
from recognition.preparation import locate, prepare
from recognition.records import PreparedData
from recognition.store.object_checks import box_of

HOWS: tuple[Fit, ...] = ("crop", "pad", "stretch")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECOGNITION_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def prepared(source: Path, **changed: object) -> PreparedData:
    return prepare(Data(source=str(source), **changed))  # type: ignore[arg-type]


def objects_by_id(record: PreparedData) -> dict[str, Objects]:
    arrays = datasets.open_arrays(record.path)
    assert arrays.objects
    return {name: arrays.objects.of(index) for index, name in enumerate(arrays.sample_ids())}


# geometry


sides = st.integers(1, 40)


@given(sides, sides, sides, sides, st.sampled_from(HOWS), st.data())
@settings(max_examples=200, deadline=None)
def test_a_box_lies_where_its_drawing_on_the_image_lies(
    rows: int, columns: int, height: int, width: int, how: Fit, data: st.DataObject
) -> None:
    left, top = data.draw(st.integers(0, columns - 1)), data.draw(st.integers(0, rows - 1))
    right, bottom = data.draw(st.integers(left + 1, columns)), data.draw(st.integers(top + 1, rows))
    drawn = np.zeros((rows, columns), np.uint8)
    drawn[top:bottom, left:right] = 1
    found = box_of(fit_mask(drawn, height, width, how))
    (box,) = geometry(rows, columns, height, width, how).to_prepared(np.array([[left, top, right, bottom]], float))
    if found is None:  # no middle of a pixel is within the box
        assert min(box[2] - box[0], box[3] - box[1]) <= 1 + 1e-4
    else:
        # a pixel is drawn where its middle is
        assert np.abs(np.subtract(found, box)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("rows", "columns"), [(30, 50), (50, 30), (32, 32), (200, 31)])
def test_a_mask_follows_the_image_it_was_made_of(how: Fit, rows: int, columns: int) -> None:
    mask = disc(rows, columns, columns * 0.4, rows * 0.55, min(rows, columns) / 3)
    brightness = fit((mask * 255)[:, :, np.newaxis], 32, 32, how)[:, :, 0]
    fitted = fit_mask(mask, 32, 32, how)
    sure = (brightness < 40) | (brightness > 215)
    assert np.array_equal(fitted[sure], (brightness > 127)[sure].astype(np.uint8))
    assert (~sure).mean() < 0.15


@pytest.mark.parametrize("how", HOWS)
def test_boxes_go_back_to_where_they_came_from(how: Fit) -> None:
    place = geometry(480, 640, 256, 256, how)
    boxes = np.array([[200, 100, 300.5, 240], [81, 1, 82, 2]])
    assert np.allclose(place.to_original(place.to_prepared(boxes)), boxes, atol=1e-3)
    assert place.to_prepared(boxes).dtype == np.float32


def test_each_way_to_bring_an_image_to_size_scales_as_it_says() -> None:
    box = np.array([[0, 0, 640, 480]], float)
    assert geometry(480, 640, 240, 240, "crop").to_prepared(box).tolist() == [[0, 0, 240, 240]]
    assert geometry(480, 640, 240, 240, "pad").to_prepared(box).tolist() == [[0, 30, 240, 210]]
    assert geometry(480, 640, 240, 240, "stretch").scale == (0.375, 0.5)
    inner = np.array([[80, 0, 180, 48]], float)  # 80 columns on each side are cut off
    assert geometry(480, 640, 240, 240, "crop").to_prepared(inner).tolist() == [[0, 0, 50, 24]]


# what is stored

BOXES: dict[str, list[Box]] = {f"{name}.png": [("cell", 1, 2, 11, 22), ("dust", 30.5, 4, 40, 9.25)] for name in "abcde"}
BOXES["b.png"] = []
BOXES["c.png"] = [("dust", 0, 0, 60, 40)]


def test_boxes_of_images_that_keep_their_size_are_kept_as_they_are(tmp_path: Path) -> None:
    record = prepared(coco_set(tmp_path / "set", BOXES))
    assert (record.kind, record.class_names, record.num_classes) == ("boxes", ("cell", "dust"), 2)
    assert (record.height, record.width) == (40, 60)
    found = objects_by_id(record)
    for name, boxes in BOXES.items():
        assert found[name].boxes.dtype == np.float32
        assert found[name].boxes.tolist() == [list(own[1:]) for own in boxes]
        assert [record.class_names[label] for label in found[name].labels] == [own[0] for own in boxes]
        assert found[name].masks is None
    total = {name: sum(counts[name] for counts in record.class_counts.values()) for name in record.class_names}
    assert total == {"cell": 3, "dust": 4}
    arrays = datasets.open_arrays(record.path)
    assert arrays.labels.tolist() == [0] * 5
    with pytest.raises(ValueError, match="boxes do not tell the class of every pixel"):
        arrays.split("train").class_maps(np.array([0]))


def test_what_a_crop_cuts_off_is_clipped_or_left_out_and_told(tmp_path: Path) -> None:
    boxes: dict[str, list[Box]] = {f"{i}.png": [("cell", 0, 10, 8, 20), ("cell", 5, 10, 30, 20)] for i in range(5)}
    record = prepared(coco_set(tmp_path / "set", boxes), image_size=20)  # columns 10 to 50 are kept, at half the size
    for found in objects_by_id(record).values():
        assert found.boxes.tolist() == [[0, 5, 10, 10]]
    (finding,) = [finding for finding in record.findings if finding.kind == "cropped_objects"]
    assert finding.count == 5
    assert "Set data.resize=pad or stretch" in finding.message
    padded = prepared(coco_set(tmp_path / "set", boxes), image_size=30, resize="pad")
    assert objects_by_id(padded)["0.png"].boxes.tolist() == [[0, 10, 4, 15], [2.5, 10, 15, 15]]
    assert padded.digest == record.digest


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("size", [0, 24])
def test_masks_of_objects_are_those_of_the_files_brought_to_size(tmp_path: Path, how: Fit, size: int) -> None:
    record = prepared(instance_set(tmp_path / "set" / "discs"), image_size=size, resize=how)
    assert (record.kind, record.class_names) == ("instances", ("object",))
    height, width = (size, size) if size else (40, 60)
    arrays = datasets.open_arrays(record.path)
    for name, found in objects_by_id(record).items():
        folder = tmp_path / "set" / "discs" / name.split("/")[0] / "masks"
        masks = [fit_mask(np.array(Image.open(path)) // 255, height, width, how) for path in sorted(folder.iterdir())]
        masks = [mask for mask in masks if mask.any()]
        assert found.masks is not None
        assert np.array_equal(found.masks, np.array(masks).reshape(-1, height, width))
        assert found.boxes.tolist() == [list(box_of(mask) or ()) for mask in masks]
        assert arrays.objects
        index = arrays.sample_ids().index(name)
        expected = np.max(masks, axis=0, initial=0) if masks else np.zeros((height, width), np.uint8)
        assert np.array_equal(arrays.objects.class_map(index), expected)


def test_class_maps_keep_classes_and_ignored_pixels(tmp_path: Path) -> None:
    maps = {name: (disc(40, 60, 20, 20, 9) * (1 + number % 2)).astype(np.uint8) for number, name in enumerate("abcdef")}
    maps["a"][0, :] = 255
    record = prepared(map_set(tmp_path / "set", maps))
    assert (record.kind, record.class_names) == ("masks", ("class 1", "class 2"))
    arrays = datasets.open_arrays(record.path)
    names = arrays.sample_ids()
    for split in ("train", "val", "test"):
        part = arrays.split(split)
        found = part.class_maps(np.arange(len(part)))
        assert found.dtype == np.uint8
        for class_map, index in zip(found, part.indices, strict=True):
            assert np.array_equal(class_map, maps[names[index].removesuffix(".png")])
        assert part.objects(np.array([0]))[0].boxes.shape == (0, 4)
    assert sum(counts["class 1"] for counts in record.class_counts.values()) == 3


@pytest.mark.parametrize("orientation", [3, 5, 6, 7, 8])
@pytest.mark.parametrize("drawn_on", ["stored", "upright"])
def test_boxes_and_masks_turn_with_their_image(tmp_path: Path, orientation: int, drawn_on: str) -> None:
    mask = disc(40, 60, 15, 12, 6)
    drawn = box_of(mask)
    assert drawn
    swapped = orientation >= 5
    exif = Image.Exif()
    exif[0x0112] = orientation
    # the drawing is on the image itself, so that its pixels tell where the objects must be
    for number in range(4):
        picture = np.where(mask[:, :, np.newaxis] > 0, 255, pixels(number, 40, 60) // 2).astype(np.uint8)
        path = tmp_path / "turned" / "images" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, exif=exif)
    if drawn_on == "upright" or not swapped:
        # of an image that is only mirrored or upside down sizes cannot tell: what people see counts
        turned = upright(tmp_path / "turned" / "images" / "0.png")
        height, width = turned.shape
        box: Box = ("cell", *(box_of(turned) or ()))  # type: ignore[assignment]
    else:
        turned, height, width = mask, 40, 60
        box = ("cell", *drawn)
    boxes = {f"{number}.png": [box] for number in range(4)}
    for number in range(4):
        write(tmp_path / "turned" / "masks" / f"{number}.png", png(turned))
        write(tmp_path / "boxed" / "images" / f"{number}.png", (path.parent / f"{number}.png").read_bytes())
        write(tmp_path / "boxed" / "annotations" / f"{number}.xml", voc_xml(boxes[f"{number}.png"], height, width))
    with_maps, with_boxes = prepared(tmp_path / "turned"), prepared(tmp_path / "boxed")
    arrays = datasets.open_arrays(with_maps.path)
    for index, name in enumerate(arrays.sample_ids()):
        assert arrays.objects
        bright = (np.asarray(arrays.images[np.array([index])])[0, :, :, 0] > 200).astype(np.uint8)
        assert np.array_equal(arrays.objects.class_map(index), bright)
        assert objects_by_id(with_boxes)[name].boxes.tolist() == [list(box_of(bright) or ())]


def upright(path: Path) -> NDArray[np.uint8]:
    """The drawing as people see it, 0 and 1."""
    with Image.open(path) as image:
        return (np.asarray(ImageOps.exif_transpose(image))[:, :, 0] > 200).astype(np.uint8)


def test_images_with_classes_have_no_objects(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(6):
            write(tmp_path / "pets" / name / f"{number}.png", encoded(pixels(number + 10 * len(name + name[0]))))
    record = prepared(tmp_path / "pets", audit=Audit(conflicting_labels="warn"))
    arrays = datasets.open_arrays(record.path)
    assert (record.kind, arrays.objects) == ("classes", None)
    with pytest.raises(ValueError, match="no objects"):
        arrays.split("train").objects(np.array([0]))


def test_arrays_with_objects_travel_as_their_path(tmp_path: Path) -> None:
    record = prepared(instance_set(tmp_path / "discs"))
    arrays = pickle.loads(pickle.dumps(datasets.open_arrays(record.path)))
    assert arrays.objects is not None
    assert isinstance(arrays.objects.boxes, np.memmap)


@pytest.mark.parametrize("storage", ["array", "shards"])
def test_a_damaged_store_of_objects_is_built_again(tmp_path: Path, storage: str) -> None:
    source = instance_set(tmp_path / "discs")
    record = prepared(source, storage=storage)
    before = objects_by_id(record)
    (record.images / "masks.npy").write_bytes(b"")
    again = prepared(source, storage=storage)
    assert again.digest == record.digest
    assert np.array_equal(objects_by_id(again)["id02/images/2.png"].masks, before["id02/images/2.png"].masks)  # type: ignore[arg-type]


# identity


def test_folder_zip_and_tar_and_both_formats_of_boxes_are_the_same_data(tmp_path: Path) -> None:
    coco = coco_set(tmp_path / "coco", BOXES)
    voc = voc_set(tmp_path / "voc", {name.removesuffix(".png"): own for name, own in BOXES.items()})
    sources = [coco, zipped(coco, tmp_path / "a.zip"), tarred(coco, tmp_path / "a.tgz"), voc]
    records = [prepared(source) for source in sources]
    assert len({record.digest for record in records}) == 1
    assert len({record.test_digest for record in records}) == 1
    assert locate(Data(source=str(coco))).kind == "boxes"


def test_another_box_or_class_is_other_data_and_is_told_as_relabelled(tmp_path: Path) -> None:
    before = prepared(coco_set(tmp_path / "before", BOXES))
    old = versions.read_samples(before.path / versions.SAMPLES)
    assert old.digest() == before.digest
    assert old.digest("test") == before.test_digest
    for change in ([("cell", 1, 2, 11, 23), BOXES["a.png"][1]], [("dust", 1, 2, 11, 22), BOXES["a.png"][1]], []):
        shutil.rmtree(tmp_path / "after", ignore_errors=True)
        after = prepared(coco_set(tmp_path / "after", BOXES | {"a.png": change}))
        new = versions.read_samples(after.path / versions.SAMPLES)
        assert after.digest != before.digest
        assert new.digest() == after.digest
        difference = diff(old, new)
        assert difference.relabelled.count == 1
        assert difference.relabelled.files == ("a.png",)
        assert (difference.added.count, difference.removed.count) == (0, 0)
        assert not difference.same_data
        assert difference.moved.count == 0  # a split goes by pixels alone


def test_the_order_of_boxes_and_the_place_of_files_make_no_difference(tmp_path: Path) -> None:
    before = prepared(coco_set(tmp_path / "before", BOXES))
    turned = {name: own[::-1] for name, own in reversed(BOXES.items())}
    root = tmp_path / "after"
    content = coco_json(turned)
    for number, name in enumerate(BOXES):
        write(root / "deep" / "photos" / name, encoded(pixels(number, 40, 60)))
    write(root / "deep" / "annotations_mine.json", json.dumps(content).encode())
    assert prepared(root).digest == before.digest


def test_another_mask_is_other_data(tmp_path: Path) -> None:
    source = instance_set(tmp_path / "discs")
    before = prepared(source)
    mask = disc(40, 60, 10, 8, 5) * 255
    mask[8, 10] = 0  # a hole, within the same box
    write(source / "id00" / "masks" / "m0.png", png(mask.astype(np.uint8)))
    after = prepared(source)
    assert after.digest != before.digest
    samples = [versions.read_samples(record.path / versions.SAMPLES) for record in (before, after)]
    assert diff(*samples).relabelled.count == 1


def test_ignored_pixels_are_part_of_a_class_map(tmp_path: Path) -> None:
    maps = {name: disc(40, 60, 20, 20, 9) for name in "abcdef"}
    before = prepared(map_set(tmp_path / "before", maps))
    maps["a"] = maps["a"].copy()
    maps["a"][0, 0] = 255
    assert prepared(map_set(tmp_path / "after", maps)).digest != before.digest


# real sets


@pytest.mark.skipif(not (SHARED_DATA / "nuclei-256px.zip").is_file(), reason="../shared/data is absent")
def test_no_nucleus_is_lost_and_every_mask_fills_its_box(tmp_path: Path) -> None:
    part = tmp_path / "part.zip"  # each tenth image of 334
    with zipfile.ZipFile(SHARED_DATA / "nuclei-256px.zip") as whole, zipfile.ZipFile(part, "w") as archive:
        chosen = set(sorted({name.split("/")[1] for name in whole.namelist()})[::10])
        names = [name for name in whole.namelist() if name.split("/")[1] in chosen]
        for name in names:
            archive.writestr(name, whole.read(name))
    record = prepared(part)
    assert (record.kind, record.class_names) == ("instances", ("nuclei",))
    assert (record.height, record.width, record.channels) == (256, 256, 1)
    count = sum("/masks/" in name for name in names)
    assert sum(counts["nuclei"] for counts in record.class_counts.values()) == count
    arrays = datasets.open_arrays(record.path)
    assert arrays.objects
    assert len(arrays.objects.boxes) == count
    for index in range(len(arrays)):
        found = arrays.objects.of(index)
        assert found.masks is not None
        assert [box_of(mask) for mask in found.masks] == [tuple(box) for box in found.boxes.astype(int).tolist()]
