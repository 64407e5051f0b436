"""Scores of found objects, against pycocotools and by hand."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from numpy.typing import NDArray

from recognition import box_scores
from recognition.box_scores import Found, ObjectScores
from recognition.objects import Objects

SIDE = 96
NAMES = ("cat", "dog", "bird")


def rectangles(boxes: NDArray[np.float32]) -> NDArray[np.uint8]:
    masks = np.zeros((len(boxes), SIDE, SIDE), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().astype(int), strict=True):
        mask[top:bottom, left:right] = 1
    return masks


def generated(seed: int, images: int = 12) -> tuple[list[Objects], list[Found]]:
    """Objects, and what a middling detector would say of them: shifted, mistaken, doubled and invented boxes."""
    random = np.random.default_rng(seed)
    true, found = [], []
    for number in range(images):
        count = 0 if number == 3 else int(random.integers(1, 9))
        corners = random.uniform(2, SIDE - 42, (count, 2))
        boxes = np.hstack([corners, corners + random.uniform(6, 40, (count, 2))]).astype(np.float32)
        labels = random.integers(0, 3, count)
        true.append(Objects(boxes, labels, rectangles(boxes)))
        chosen = random.random(count) < 0.8
        said = np.vstack([boxes[chosen] + random.normal(0, 1, (int(chosen.sum()), 4)), boxes[:1], boxes[:2] + 9])
        said = np.clip(said, 0, SIDE).astype(np.float32)
        said[:, 2:] = np.maximum(said[:, 2:], said[:, :2] + 3)
        kinds = np.concatenate([labels[chosen], labels[:1], labels[:2]])
        kinds = np.where(random.random(len(kinds)) < 0.2, random.integers(0, 3, len(kinds)), kinds)
        confidences = random.random(len(said)).astype(np.float32)
        found.append(Found(said, kinds, confidences, rectangles(said)))
    return true, found


def by_pycocotools(true: list[Objects], found: list[Found], kind: str) -> tuple[NDArray[np.float64], ...]:
    """The twelve numbers of ``COCOeval.summarize``, and its precisions."""
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def annotation(one: Objects | Found, image: int, index: int) -> dict[str, object]:
        left, top, right, bottom = (float(value) for value in one.boxes[index])
        about: dict[str, object] = {"image_id": image, "category_id": int(one.labels[index]), "iscrowd": 0}
        if kind == "segm":
            assert one.masks is not None
            about["segmentation"] = rle.encode(np.asfortranarray(one.masks[index]))
            return about | {"area": float(one.masks[index].sum())}
        return about | {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}

    truth, said = [], []
    for image, (there, told) in enumerate(zip(true, found, strict=True)):
        truth += [annotation(there, image, index) | {"id": len(truth) + index + 1} for index in range(len(there))]
        said += [
            annotation(told, image, index) | {"score": float(told.confidences[index])} for index in range(len(told))
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image, "height": SIDE, "width": SIDE} for image in range(len(true))],
            "categories": [{"id": label} for label in range(3)],
            "annotations": truth,
        }
        coco.createIndex()
        evaluated = COCOeval(coco, coco.loadRes(said), kind)
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return evaluated.stats, evaluated.eval["precision"]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("kind", "prefix"), [("bbox", ""), ("segm", "mask_")])
def test_mean_average_precision_is_that_of_pycocotools(seed: int, kind: str, prefix: str) -> None:
    true, found = generated(seed)
    scores = ObjectScores(3, masks=kind == "segm")
    scores.add(true[:5], found[:5])
    scores.add(true[5:], found[5:])
    ours = scores.result()[prefix]
    theirs, precision = by_pycocotools(true, found, kind)
    summary = ours.summary()
    assert 0.2 < summary["map"] < 0.9
    for name, place in {"map": 0, "map_50": 1, "map_75": 2, "mar_100": 8}.items():
        assert summary[name] == pytest.approx(theirs[place], abs=1e-9)
    np.testing.assert_allclose(ours.precision, precision[:, :, :, 0, -1].mean(axis=1), atol=1e-9)
    named = box_scores.named_scores(ours, NAMES, prefix)
    assert named[f"{prefix}ap_50/dog"] == pytest.approx(precision[0, :, 1, 0, -1].mean(), abs=1e-9)


def test_a_class_that_is_on_no_image_has_no_average_precision_and_counts_in_no_mean() -> None:
    box = np.array([[10, 10, 30, 30]], np.float32)
    scores = ObjectScores(3)
    said = Found(np.vstack([box, box]), np.array([0, 2]), np.array([0.9, 0.8], np.float32))
    scores.add([Objects(box, np.array([0]))], [said])
    named = box_scores.named_scores(scores.result()[""], NAMES)
    assert named["map"] == named["ap/cat"] == 1
    assert "ap/dog" not in named
    assert "ap/bird" not in named


def test_nothing_found_scores_zero_and_nothing_to_find_is_refused() -> None:
    box = np.array([[10, 10, 30, 30]], np.float32)
    nothing = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    scores = ObjectScores(2)
    scores.add([Objects(box, np.array([1]))], [nothing])
    assert scores.result()[""].summary() == {"map": 0, "map_50": 0, "map_75": 0, "mar_100": 0}
    empty = ObjectScores(2)
    empty.add([Objects(nothing.boxes, nothing.labels)], [nothing])
    with pytest.raises(ValueError, match="no objects to find"):
        empty.result()
    with pytest.raises(ValueError, match="2 images with objects do not fit 1"):
        empty.add([Objects(box, np.array([1]))] * 2, [nothing])


def test_overlap_is_shared_area_by_area_of_both() -> None:
    boxes = np.array([[0, 0, 4, 2], [0, 0, 1, 1]], np.float32)
    others = np.array([[2, 0, 6, 2], [8, 8, 9, 9], [0, 0, 4, 2]], np.float32)
    np.testing.assert_allclose(box_scores.overlaps(boxes, others), [[4 / 12, 0, 1], [0, 0, 1 / 8]])


def test_the_surest_box_takes_the_object_and_its_double_is_false() -> None:
    true = Objects(np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32), np.array([0, 1]))
    said = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30], [20, 20, 30, 30]], np.float32)
    found = Found(said, np.array([0, 0, 0, 1]), np.array([0.6, 0.9, 0.8, 0.3], np.float32))
    assert box_scores.matched(true, found).tolist() == [-1, 0, -1, 1]
    nowhere = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert box_scores.matched(nowhere, found).tolist() == [-1] * 4


def test_the_table_of_classes_counts_right_missed_and_false_from_a_confidence_on() -> None:
    true = Objects(np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32), np.array([0, 1]))
    said = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    found = Found(said, np.array([0, 0, 1]), np.array([0.6, 0.9, 0.3], np.float32))
    table = box_scores.per_class_table([true], [found], ("cat", "dog"), 0.5, {}).set_index("class")
    assert table.loc["cat", ["objects", "found", "right", "missed", "false"]].tolist() == [1, 2, 1, 0, 1]
    assert table.loc["dog", ["objects", "found", "right", "missed", "false"]].tolist() == [1, 0, 0, 1, 0]
    assert table.loc["cat", ["precision", "recall"]].tolist() == [0.5, 1.0]
    assert np.isnan(table.loc["dog", "precision"])


def test_dice_and_overlap_of_regions_are_those_of_all_masks_of_a_class_together() -> None:
    def mask(*columns: int) -> NDArray[np.uint8]:
        drawn = np.zeros((4, 4), np.uint8)
        drawn[:, list(columns)] = 1
        return drawn

    boxes = np.zeros((2, 4), np.float32)
    true = Objects(boxes, np.array([0, 0]), np.stack([mask(0), mask(1)]))
    found = Found(boxes, np.array([0, 0]), np.array([0.9, 0.2], np.float32), np.stack([mask(1, 2), mask(0)]))
    scores = ObjectScores(2, masks=True)
    scores.add_regions([true], [found], 0.5)
    # 8 pixels there, 8 said, 4 shared; the second class is nowhere
    assert scores.regions() == {"dice_macro": pytest.approx(0.5), "iou_macro": pytest.approx(4 / 12)}


def test_the_table_of_detections_holds_each_image_by_falling_confidence() -> None:
    said = np.array([[0, 1, 2, 3], [4, 5, 6, 7]], np.float32)
    found = Found(said, np.array([0, 1]), np.array([0.25, 0.75], np.float32))
    nothing = Found(said[:0], np.zeros(0, np.int64), np.zeros(0, np.float32))
    table = box_scores.detections_table(["a.png", "b.png"], [nothing, found], ("cat", "dog"), 0.5)
    assert table["sample_id"].tolist() == ["b.png", "b.png"]
    assert table["label"].tolist() == ["dog", "cat"]
    assert table["shown"].tolist() == [True, False]
    assert table[["left", "top", "right", "bottom"]].iloc[0].tolist() == [4, 5, 6, 7]
