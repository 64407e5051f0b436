"""Boxes and masks are found beside images and read as they were written, from folders and archives alike."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from annotated_sets import Box, coco_json, coco_set, disc, instance_set, map_set, png, voc_set, voc_xml
from conftest import SHARED_DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sample_images import encoded, pixels, tarred, write, zipped

from recognition.data_settings import Data, Limits
from recognition.errors import DataError
from recognition.pixels import NotAnImageError
from recognition.sources import Images, open_source, signature
from recognition.sources.annotations import Annotation
from recognition.sources.mask_files import decode_mask

BOXES: dict[str, list[Box]] = {
    "a.png": [("cell", 1, 2, 11, 22), ("dust", 30.5, 4, 40, 9.25)],
    "b.png": [("cell", 5, 5, 8, 9)],
    "c.png": [],
}


def opened(path: Path, tmp_path: Path, **settings: object) -> Images:
    return open_source(Data(source=str(path), **settings), tmp_path / "downloads")  # type: ignore[arg-type]


def said(images: Images, name: str) -> Annotation:
    assert images.annotations
    return images.annotations.read(images.sample_ids.index(name))


def told(images: Images, name: str) -> list[Box]:
    annotation = said(images, name)
    return [
        (images.object_names[label], *box)
        for label, box in zip(annotation.labels.tolist(), annotation.boxes.tolist(), strict=True)
    ]


def stems(boxes: dict[str, list[Box]]) -> dict[str, list[Box]]:
    return {name.removesuffix(".png"): own for name, own in boxes.items()}


# boxes


@pytest.mark.parametrize("kind", ["voc", "coco"])
@pytest.mark.parametrize("packed", ["folder", "zip", "tar.gz"])
def test_boxes_are_read_as_they_were_written(tmp_path: Path, kind: str, packed: str) -> None:
    root = voc_set(tmp_path / "set", stems(BOXES)) if kind == "voc" else coco_set(tmp_path / "set", BOXES)
    source = {"folder": lambda: root, "zip": lambda: zipped(root, tmp_path / "s.zip", "deep/er/")}.get(
        packed, lambda: tarred(root, tmp_path / "s.tgz", "deep/er")
    )()
    images = opened(source, tmp_path)
    assert (images.kind, images.object_names, images.class_names) == ("boxes", ("cell", "dust"), ("image",))
    assert images.sample_ids == ("a.png", "b.png", "c.png")
    assert images.labels.tolist() == [0, 0, 0]
    assert images.splits == ("", "", "")
    for name, boxes in BOXES.items():
        assert told(images, name) == boxes
        assert said(images, name).size == (40, 60)
        assert said(images, name).flaws == ()
    images.close()


def test_lists_of_names_give_the_splits_of_pascal_voc(tmp_path: Path) -> None:
    root = voc_set(tmp_path / "VOC", {name: [("cell", 1, 1, 5, 5)] for name in "abcdef"})
    for split, names in {"train": "ab", "val": "cd", "trainval": "abcd", "test": "e", "cell_train": "f"}.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}  1\n" for name in names).encode())
    images = opened(root, tmp_path)
    assert dict(zip(images.sample_ids, images.splits, strict=True)) == {
        "a.png": "train",
        "b.png": "train",
        "c.png": "val",
        "d.png": "val",
        "e.png": "test",
        "f.png": "",
    }
    write(root / "ImageSets" / "Main" / "test.txt", b"a\n")
    with pytest.raises(DataError, match=r"a\.png is listed for test and, in .*train\.txt, for train: keep one"):
        opened(root, tmp_path)


@pytest.mark.parametrize("layout", ["export", "by_name", "folders"])
def test_files_and_folders_give_the_splits_of_coco(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "set"
    for split in ("train", "valid", "test"):
        boxes = {"1.png": [("cell", 1, 1, 5, 5)], "2.png": [("dust", 2, 2, 6, 6)]}
        folder = {"export": split, "by_name": f"images/{split}2017", "folders": split}[layout]
        for name in boxes:
            write(root / folder / name, encoded(pixels(len(name), 40, 60)))
        place = {
            "export": f"{split}/_annotations.coco.json",
            "by_name": f"annotations/instances_{split}2017.json",
            "folders": f"annotations/{split}/instances.json",
        }[layout]
        write(root / place, json.dumps(coco_json(boxes)).encode())
    images = opened(root, tmp_path)
    assert Counter(images.splits) == {"train": 2, "val": 2, "test": 2}
    assert [told(images, name)[0][0] for name in images.sample_ids] == ["cell", "dust"] * 3


def test_folders_give_the_splits_of_boxes_beside_their_images(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for name in "ab":
            write(tmp_path / "set" / split / f"{name}.png", encoded(pixels(1, 40, 60)))
            write(tmp_path / "set" / split / f"{name}.xml", voc_xml([(split, 1, 1, 5, 5)]))
    images = opened(tmp_path / "set", tmp_path)
    assert images.splits == ("train", "train", "val", "val")
    assert told(images, "valid/a.png") == [("valid", 1, 1, 5, 5)]


def test_parts_of_objects_are_no_objects(tmp_path: Path) -> None:
    root = voc_set(tmp_path / "VOC", {"a": [("person", 1, 1, 30, 30)]})
    part = b"<part><name>head</name><bndbox><xmin>2</xmin></bndbox></part></object>"
    path = root / "Annotations" / "a.xml"
    path.write_bytes(path.read_bytes().replace(b"</object>", part))
    assert told(opened(root, tmp_path), "a.png") == [("person", 1, 1, 30, 30)]


BOMB = b"""<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "it declares entities, which are not read"),
        (b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotation>&e;</annotation>', "entities"),
        (b"<annotation><object>", "cannot be read"),
        (b"", "cannot be read"),
        (b"<html></html>", "and not with <annotation>"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation></annotation>', "cannot be read"),
        (b"<annotation>" + b"<a>" * 200, "nested more than 100 deep"),
    ],
)
def test_a_file_of_boxes_that_is_none_is_a_flaw_of_its_image(tmp_path: Path, content: bytes, reason: str) -> None:
    root = voc_set(tmp_path / "VOC", {"a": [("cell", 1, 1, 5, 5)], "b": [("cell", 1, 1, 5, 5)]})
    (root / "Annotations" / "b.xml").write_bytes(content)
    images = opened(root, tmp_path)
    ((kind, what),) = said(images, "b.png").flaws
    assert kind == "missing_annotations"
    assert reason in what
    assert told(images, "a.png") == [("cell", 1, 1, 5, 5)]


def test_images_without_a_file_of_boxes_and_files_without_an_image_are_told(tmp_path: Path) -> None:
    root = voc_set(tmp_path / "VOC", {"a": [("cell", 1, 1, 5, 5)], "b": [("cell", 1, 1, 5, 5)]})
    (root / "Annotations" / "b.xml").rename(root / "Annotations" / "z.xml")
    images = opened(root, tmp_path)
    assert said(images, "b.png").flaws == (("missing_annotations", "has no file of boxes"),)
    (finding,) = [finding for finding in images.findings if finding.kind == "annotations_without_image"]
    assert finding.files == ("Annotations/z.xml",)


def test_boxes_without_a_class_or_a_number_are_flaws(tmp_path: Path) -> None:
    root = voc_set(tmp_path / "VOC", {"a": [("", 1, 1, 5, 5), ("x" * 201, 1, 1, 5, 5), ("cell", 1, 1, 5, 5)]})
    path = root / "Annotations" / "a.xml"
    path.write_bytes(path.read_bytes().replace(b"</annotation>", b"<object><name>dust</name></object></annotation>"))
    images = opened(root, tmp_path)
    assert told(images, "a.png") == [("cell", 1, 1, 5, 5)]
    assert [what for _, what in said(images, "a.png").flaws] == [
        "box 1 has no class",
        "box 2 has no class of at most 200 characters",
        "box 4 (dust) lacks a number for its sides",
    ]


@given(st.binary(max_size=200), st.sampled_from([b"", b"<annotation><object>", b'<?xml version="1.0"?><annotation>']))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_boxes_or_a_flaw(content: bytes, start: bytes) -> None:
    with TemporaryDirectory() as folder:
        root = voc_set(Path(folder) / "VOC", {"a": [("cell", 1, 1, 5, 5)], "b": []})
        (root / "Annotations" / "b.xml").write_bytes(start + content)
        said(opened(root, Path(folder)), "b.png")


def test_masks_beside_boxes_are_left_out_and_told(tmp_path: Path) -> None:
    root = voc_set(tmp_path / "VOC", {"a": [("cell", 1, 1, 5, 5)], "b": [("cell", 1, 1, 5, 5)]})
    write(root / "SegmentationClass" / "a.png", png(disc(40, 60, 9, 9, 4)))
    images = opened(root, tmp_path)
    assert images.sample_ids == ("a.png", "b.png")
    (finding,) = [finding for finding in images.findings if finding.kind == "unlabelled"]
    assert finding.files == ("SegmentationClass/a.png",)


# COCO's own mistakes


Content = dict[str, Any]


def changed(tmp_path: Path, change: Callable[[Content], object]) -> Path:
    root = coco_set(tmp_path / "set", BOXES)
    path = root / "annotations" / "instances_all.json"
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))
    return root


def box(**fields: object) -> Callable[[Content], object]:
    return lambda content: content["annotations"][0].update(fields)


def image(number: int, **fields: object) -> Callable[[Content], object]:
    return lambda content: content["images"][number].update(fields)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (box(category_id=77), "is of category 77, which annotations/instances_all.json does not define"),
        (box(bbox=[1, 2, 3]), "has no bbox of four numbers"),
        (box(bbox=[1, 2, 3, "4"]), "has no bbox of four numbers"),
        (box(bbox=[1, 2, 3, 10**400]), "has no bbox of four numbers"),
        (lambda content: content["annotations"][0].pop("bbox"), "has no bbox of four numbers"),
        (lambda content: content["categories"][0].update(name=5), "is of category 1, which annotations/instances_all"),
    ],
)
def test_a_box_that_makes_no_sense_is_a_flaw_of_its_image(
    tmp_path: Path, change: Callable[[Content], object], what: str
) -> None:
    ((kind, found),) = said(opened(changed(tmp_path, change), tmp_path), "a.png").flaws[:1]
    assert kind == "invalid_boxes"
    assert what in found


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (box(image_id=99), "boxes_without_image", "box 1001 is of image 99, which is not"),
        (image(0, file_name="z.png"), "annotations_without_image", "Images that are listed (1)"),
        (image(0, file_name="\ud800.png"), "annotations_without_image", "Images that are listed"),
        (box(iscrowd=1), "crowds", "Boxes around crowds (iscrowd, 1)"),
        (lambda content: content["categories"].append({"id": 5, "name": "emu"}), "unused_categories", "'emu'"),
    ],
)
def test_what_belongs_to_no_image_or_class_is_told(
    tmp_path: Path, change: Callable[[Content], object], kind: str, message: str
) -> None:
    images = opened(changed(tmp_path, change), tmp_path)
    (finding,) = [finding for finding in images.findings if finding.kind == kind]
    assert message in finding.message
    assert "emu" not in images.object_names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("categories"), "it has no list of categories"),
        (lambda content: content["images"].append(5), "it has no list of images"),
        (image(1, id=1), "gives two images the id 1"),
        (image(1, file_name="a.png"), r"images/a\.png is listed twice"),
        (image(1, file_name=None), "lists an image without file_name or id"),
    ],
)
def test_a_file_that_is_not_coco_is_refused(tmp_path: Path, change: Callable[[Content], object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(changed(tmp_path, change), tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 200_000, b"\xff\xfe"])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    root = coco_set(tmp_path / "set", BOXES)
    (root / "annotations" / "instances_all.json").write_bytes(content)
    with pytest.raises(DataError, match=r"instances_all\.json is no JSON"):
        opened(root, tmp_path)


# masks


def test_a_folder_for_each_image_holds_a_mask_for_each_object(tmp_path: Path) -> None:
    root = instance_set(tmp_path / "set" / "discs", count=4)
    images = opened(tmp_path / "set", tmp_path)
    assert (images.kind, images.object_names) == ("instances", ("discs",))
    assert [len(said(images, name).masks) for name in images.sample_ids] == [1, 2, 3, 1]
    mask = said(images, "id01/images/1.png").masks[1].read()
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, disc(40, 60, 28, 9, 5))
    assert opened(root, tmp_path).object_names == ("object",)
    write(root / "classes.txt", b"dots\n")
    assert opened(root, tmp_path).object_names == ("dots",)


def test_folders_above_those_of_the_images_give_the_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        instance_set(tmp_path / "set" / split, count=3)
    write(tmp_path / "set" / "test" / "id9" / "images" / "9.png", encoded(pixels(9, 40, 60)))
    images = opened(tmp_path / "set", tmp_path)
    assert Counter(images.splits) == {"train": 3, "test": 4}
    assert images.object_names == ("object",)
    assert said(images, "test/id9/images/9.png").flaws == (("missing_annotations", "has no mask"),)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{}.png", "masks/{}.png"),
        ("train/{}.png", "train_masks/{}_mask.png"),
        ("images/training/{}.png", "annotations/training/{}.png"),
        ("leftImg8bit/city/{}.png", "gtFine/city/{}.png"),
        ("train/images/{}.png", "train/labels/{}.png"),
    ],
)
def test_parallel_folders_hold_a_class_map_for_each_image(tmp_path: Path, image: str, mask: str) -> None:
    maps = {name: (disc(40, 60, 20, 20, 9) * number).astype(np.uint8) for number, name in enumerate("abc")}
    maps["b"][0, 0] = 255
    for number, (name, class_map) in enumerate(maps.items()):
        write(tmp_path / "set" / image.format(name), encoded(pixels(number, 40, 60)))
        write(tmp_path / "set" / mask.format(name), png(class_map))
    images = opened(tmp_path / "set", tmp_path)
    assert (images.kind, images.object_names) == ("masks", ("class 1", "class 2"))
    for name, class_map in maps.items():
        (file,) = said(images, f"{name}.png").masks
        assert np.array_equal(file.read(), class_map)


def test_masks_of_0_and_255_are_of_one_class(tmp_path: Path) -> None:
    maps = {name: (disc(40, 60, 20, 20, 9) * 255).astype(np.uint8) for name in "abc"}
    images = opened(map_set(tmp_path / "set", maps), tmp_path)
    assert images.object_names == ("class 1",)
    assert np.array_equal(said(images, "a.png").masks[0].read(), disc(40, 60, 20, 20, 9))


def test_a_list_of_classes_names_the_values_of_masks(tmp_path: Path) -> None:
    maps = {name: (disc(40, 60, 20, 20, 9) * 2).astype(np.uint8) for name in "abc"}
    root = map_set(tmp_path / "set", maps)
    write(root / "classes.txt", "road\nsky\n".encode("utf-8-sig"))
    assert opened(root, tmp_path).object_names == ("road", "sky")
    write(root / "classes.txt", b"road\nroad\n")
    with pytest.raises(DataError, match=r"classes\.txt must list 1 to 254 class names, each once"):
        opened(root, tmp_path)


def test_the_values_of_a_mask_are_indices_of_its_palette_and_no_colours() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(values).convert("P")
    palette.putdata(values.ravel().tolist())
    palette.putpalette([255 - index for index in range(256) for _ in range(3)])
    same = np.repeat(values[:, :, None], 3, axis=2)
    for image in (palette, Image.fromarray(values), Image.fromarray(same), Image.fromarray(values.astype(np.uint16))):
        assert np.array_equal(decode_mask(encoded(image), "m"), values)
    same[0, 0] = 1, 2, 3
    with pytest.raises(NotAnImageError, match="is in colours"):
        decode_mask(encoded(Image.fromarray(same)), "m")
    with pytest.raises(NotAnImageError, match="is a JPEG"):
        decode_mask(encoded(Image.fromarray(values), "JPEG"), "m")
    with pytest.raises(NotAnImageError, match="other values than 0 to 255"):
        decode_mask(encoded(Image.fromarray(values.astype(np.uint16) + 300)), "m")


def test_masks_whose_names_fit_no_image_are_refused(tmp_path: Path) -> None:
    for name in "abcd":
        write(tmp_path / "set" / "images" / f"{name}.png", encoded(pixels(1, 40, 60)))
        write(tmp_path / "set" / "masks" / f"x{name}y.png", png(disc(40, 60, 9, 9, 4)))
    with pytest.raises(DataError, match=r"4 masks, of which 0 have the name of an image\. Expected are images/1\.png"):
        opened(tmp_path / "set", tmp_path)


def test_two_masks_of_one_image_are_refused(tmp_path: Path) -> None:
    root = map_set(tmp_path / "set", {name: disc(40, 60, 9, 9, 4) for name in "abc"})
    write(root / "masks" / "a_mask.png", png(disc(40, 60, 9, 9, 4)))
    with pytest.raises(DataError, match=r"masks/a\.png and masks/a_mask\.png are masks of one image"):
        opened(root, tmp_path)


# content


@pytest.mark.parametrize("make", [lambda root: voc_set(root, stems(BOXES)), instance_set])
def test_fingerprint_and_signature_change_with_any_annotation(tmp_path: Path, make: object) -> None:
    root = make(tmp_path / "set")  # type: ignore[operator]
    described = next(path for path in sorted(root.rglob("*")) if path.parent.name in ("Annotations", "masks"))
    data = Data(source=str(root))
    before = opened(root, tmp_path).fingerprint, signature(data)
    content = described.read_bytes().replace(b"<xmin>1<", b"<xmin>2<")
    described.write_bytes(png(disc(40, 60, 30, 30, 3)) if described.suffix == ".png" else content)
    after = opened(root, tmp_path).fingerprint, signature(data)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_mask_that_is_too_large_for_a_file_is_not_read(tmp_path: Path) -> None:
    root = instance_set(tmp_path / "discs", count=2)
    (root / "id00" / "masks" / "m0.png").write_bytes(bytes(3_000_000))
    for source in (root, zipped(root, tmp_path / "s.zip"), tarred(root, tmp_path / "s.tgz")):
        images = opened(source, tmp_path, limits=Limits(file_megabytes=2, compression=1e6))
        with pytest.raises(NotAnImageError, match="is too large for an image file"):
            said(images, "id00/images/0.png").masks[0].read()
        images.close()


# real sets


@pytest.mark.skipif(not (SHARED_DATA / "bccd.zip").is_file(), reason="../shared/data is absent")
def test_blood_cells_are_read_with_their_splits(tmp_path: Path) -> None:
    images = opened(SHARED_DATA / "bccd.zip", tmp_path)
    assert (images.kind, images.object_names) == ("boxes", ("Platelets", "RBC", "WBC"))
    assert Counter(images.splits) == {"train": 205, "val": 87, "test": 72}
    assert images.annotations
    everything = [images.annotations.read(index) for index in range(len(images))]
    assert Counter(label for annotation in everything for label in annotation.labels.tolist()) == {
        0: 361,
        1: 4155,
        2: 372,
    }
    images.close()


@pytest.mark.skipif(not (SHARED_DATA / "nuclei-256px.zip").is_file(), reason="../shared/data is absent")
def test_nuclei_are_read_with_a_mask_each(tmp_path: Path) -> None:
    images = opened(SHARED_DATA / "nuclei-256px.zip", tmp_path)
    assert (images.kind, images.object_names, len(images)) == ("instances", ("nuclei",), 334)
    assert images.annotations
    assert sum(len(images.annotations.read(index).masks) for index in range(334)) == 9543
    images.close()
