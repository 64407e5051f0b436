"""Boxes, masks and class maps move with their image, and a policy that would leave them behind is refused."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
import pytest
from numpy.typing import NDArray
from sample_images import pixels

from recognition import overlays
from recognition.augmenter import Augmenter, boxes_around, takes_boxes
from recognition.errors import ConfigurationError
from recognition.experiment import PRESETS, Augmentation
from recognition.families import Kind
from recognition.objects import IGNORED, Objects
from recognition.policies import build, choose, from_json, presets, to_json

HEIGHT, WIDTH = 24, 32
FLIP = [{"HorizontalFlip": {"p": 1.0}}]
RANDOM: list[dict[str, dict[str, Any]]] = [
    {"SquareSymmetry": {"p": 1.0}},
    {"Affine": {"scale": [0.8, 1.2], "rotate": [-20, 20], "p": 1.0}},
]


def augmenter(transforms: Any, kind: Kind, height: int = HEIGHT, width: int = WIDTH) -> Augmenter:
    return Augmenter(build(transforms, height, width, kind), 0)


def rectangles(*boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Masks that fill boxes of left, top, right and bottom."""
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return masks


def objects_of(*boxes: tuple[int, int, int, int], masks: bool = False) -> Objects:
    return Objects(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(len(boxes), dtype=np.int64),
        rectangles(*boxes) if masks else None,
    )


# what moves


@pytest.mark.parametrize("masks", [False, True])
def test_a_mirrored_image_has_mirrored_boxes(masks: bool) -> None:
    kind: Kind = "instances" if masks else "boxes"
    image = pixels(1, HEIGHT, WIDTH)
    drawn, found = augmenter(FLIP, kind).with_objects(image, objects_of((2, 3, 10, 9), masks=masks), 0, 0)
    np.testing.assert_array_equal(drawn, image[:, ::-1])
    np.testing.assert_allclose(found.boxes, [[WIDTH - 10, 3, WIDTH - 2, 9]], atol=1e-5)
    assert found.boxes.dtype == np.float32
    assert found.labels.tolist() == [0]
    if masks:
        assert found.masks is not None
        np.testing.assert_array_equal(found.masks, rectangles((2, 3, 10, 9))[:, :, ::-1])


def test_a_mirrored_image_has_a_mirrored_class_map() -> None:
    image, classes = pixels(1, HEIGHT, WIDTH), pixels(2, HEIGHT, WIDTH, 1)[:, :, 0] % 4
    drawn, moved = augmenter(FLIP, "masks").with_map(image, classes, 0, 0)
    np.testing.assert_array_equal(drawn, image[:, ::-1])
    np.testing.assert_array_equal(moved, classes[:, ::-1])


def test_class_maps_hold_no_class_between_two_after_resampling() -> None:
    classes = np.full((HEIGHT, WIDTH), 1, np.uint8)
    classes[:, WIDTH // 2 :] = 7
    classes[:4] = IGNORED
    draw = augmenter(RANDOM, "masks", HEIGHT, HEIGHT)
    for index in range(20):
        _, moved = draw.with_map(pixels(index, HEIGHT, HEIGHT), classes[:, 4:28], 0, index)
        assert set(np.unique(moved)) <= {0, 1, 7, IGNORED}


def test_pixels_from_outside_are_background_where_the_border_is_filled() -> None:
    classes = np.full((HEIGHT, WIDTH), 2, np.uint8)
    shift = [{"Affine": {"translate_px": {"x": [8, 8], "y": [0, 0]}, "p": 1.0}}]
    _, moved = augmenter(shift, "masks").with_map(pixels(1, HEIGHT, WIDTH), classes, 0, 0)
    assert set(np.unique(moved[:, :8])) == {0}
    assert set(np.unique(moved[:, 8:])) == {2}
    shift[0]["Affine"]["fill_mask"] = IGNORED
    _, ignoring = augmenter(shift, "masks").with_map(pixels(1, HEIGHT, WIDTH), classes, 0, 0)
    assert set(np.unique(ignoring[:, :8])) == {IGNORED}


def test_pixels_from_outside_are_mirrored_where_the_image_is() -> None:
    classes = np.full((HEIGHT, WIDTH), 2, np.uint8)
    shift = [{"Affine": {"translate_px": {"x": [8, 8], "y": [0, 0]}, "border_mode": 4, "p": 1.0}}]
    _, moved = augmenter(shift, "masks").with_map(pixels(1, HEIGHT, WIDTH), classes, 0, 0)
    assert set(np.unique(moved)) == {2}


@pytest.mark.parametrize("masks", [False, True])
def test_boxes_are_cut_at_the_border_and_go_when_little_is_left(masks: bool) -> None:
    shift = [{"Affine": {"translate_px": {"x": [-8, -8], "y": [0, 0]}, "p": 1.0}}]
    given = objects_of((4, 2, 12, 8), (0, 2, 8, 8), (20, 2, 24, 6), masks=masks)
    kind: Kind = "instances" if masks else "boxes"
    _, found = augmenter(shift, kind).with_objects(pixels(1, HEIGHT, WIDTH), given, 0, 0)
    np.testing.assert_allclose(found.boxes, [[0, 2, 4, 8], [12, 2, 16, 6]], atol=1e-4)
    assert found.labels.tolist() == [0, 2]
    if masks:
        assert found.masks is not None
        assert found.masks.sum(axis=(1, 2)).tolist() == [4 * 6, 4 * 4]


def test_where_masks_are_known_boxes_lie_close_around_them_even_when_turned() -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disc = ((rows - 12) ** 2 + (columns - 16) ** 2 <= 36).astype(np.uint8)[np.newaxis]
    given = Objects(boxes_around(disc), np.zeros(1, np.int64), disc)
    turn = [{"Rotate": {"limit": [45, 45], "p": 1.0}}]
    _, close = augmenter(turn, "instances").with_objects(pixels(1, HEIGHT, WIDTH), given, 0, 0)
    _, around = augmenter(turn, "boxes").with_objects(
        pixels(1, HEIGHT, WIDTH), Objects(given.boxes, given.labels), 0, 0
    )
    assert close.boxes[0, 2] - close.boxes[0, 0] == pytest.approx(13, abs=1)
    assert around.boxes[0, 2] - around.boxes[0, 0] > 14


@pytest.mark.parametrize("masks", [False, True])
def test_an_image_without_objects_stays_one(masks: bool) -> None:
    kind: Kind = "instances" if masks else "boxes"
    _, found = augmenter(RANDOM, kind).with_objects(pixels(1, HEIGHT, WIDTH), objects_of(masks=masks), 0, 0)
    assert found.boxes.shape == (0, 4)
    assert found.labels.dtype == np.int64
    if masks:
        assert found.masks is not None
        assert found.masks.shape == (0, HEIGHT, WIDTH)


def test_boxes_end_behind_the_last_pixel_of_a_mask() -> None:
    np.testing.assert_array_equal(
        boxes_around(rectangles((3, 4, 7, 9), (0, 0, WIDTH, 1))), [[3, 4, 7, 9], [0, 0, WIDTH, 1]]
    )


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "auto"])
def test_every_preset_leaves_valid_boxes_on_many_draws(name: str) -> None:
    transforms = choose(Augmentation(preset=name), 64, 64, 3, "instances")[1]  # type: ignore[arg-type]  # a preset's name
    draw = augmenter(transforms, "instances", 64, 64)
    rows, columns = np.mgrid[:64, :64]
    masks = np.stack(
        [((rows - y) ** 2 + (columns - x) ** 2 <= 49).astype(np.uint8) for y, x in ((10, 10), (32, 40), (50, 20))]
    )
    given = Objects(boxes_around(masks), np.array([2, 0, 1]), masks)
    seen = 0
    for index in range(30):
        image, found = draw.with_objects(pixels(index, 64, 64), given, 0, index)
        assert image.shape == (64, 64, 3)
        assert found.masks is not None
        left, top, right, bottom = found.boxes.T
        assert ((left >= 0) & (left < right) & (right <= 64) & (top >= 0) & (top < bottom) & (bottom <= 64)).all()
        np.testing.assert_array_equal(found.boxes, boxes_around(found.masks))
        seen += len(found)
    assert seen > (60 if name == "strong" else 75 if name == "photo" else 85)


# what is drawn


@pytest.mark.parametrize("name", ["flip_crop", "photo", "objects", "strong"])
def test_an_image_is_drawn_the_same_alone_with_a_map_and_with_objects(name: str) -> None:
    transforms = presets()[name]
    alone = augmenter(transforms, "classes")
    with_map, with_boxes = augmenter(transforms, "masks"), augmenter(transforms, "boxes")
    classes = np.zeros((HEIGHT, WIDTH), np.uint8)
    for index in range(10):
        image = pixels(index, HEIGHT, WIDTH)
        expected = alone(image, 1, index)
        np.testing.assert_array_equal(with_map.with_map(image, classes, 1, index)[0], expected)
        np.testing.assert_array_equal(with_boxes.with_objects(image, objects_of((2, 3, 9, 9)), 1, index)[0], expected)
        np.testing.assert_array_equal(with_boxes(image, 1, index), expected)


def test_a_draw_of_objects_does_not_depend_on_what_was_drawn_before() -> None:
    given, image = objects_of((2, 3, 10, 9), (12, 5, 30, 20), masks=True), pixels(1, HEIGHT, WIDTH)
    square = Objects(given.boxes, given.labels, given.masks)
    one, other = augmenter(RANDOM, "instances"), augmenter(RANDOM, "instances")
    first = [one.with_objects(image, square, 0, index)[1].boxes for index in range(8)]
    for index in reversed(range(8)):
        other.with_objects(image, objects_of(masks=True), 5, index)
        np.testing.assert_array_equal(other.with_objects(image, square, 0, index)[1].boxes, first[index])


def test_a_policy_read_back_still_takes_boxes_along() -> None:
    policy = build(presets()["objects"], HEIGHT, WIDTH, "boxes")
    again = from_json(to_json(policy))
    assert takes_boxes(again)
    assert to_json(again) == to_json(policy)
    image, given = pixels(1, HEIGHT, WIDTH), objects_of((2, 3, 10, 9), (12, 5, 30, 20))
    for index in range(10):
        one = Augmenter(policy, 0).with_objects(image, given, 0, index)[1]
        np.testing.assert_array_equal(one.boxes, Augmenter(again, 0).with_objects(image, given, 0, index)[1].boxes)


# what is refused


def test_a_policy_without_box_parameters_is_refused_with_boxes() -> None:
    policy = from_json(to_json(build(FLIP, HEIGHT, WIDTH)))
    assert not takes_boxes(policy)
    with pytest.raises(ConfigurationError, match=r"has no box parameters.*Build it anew"):
        Augmenter(policy, 0).with_objects(pixels(1, HEIGHT, WIDTH), objects_of((2, 3, 10, 9)), 0, 0)


@pytest.mark.parametrize(
    ("item", "kind", "words"),
    [
        ({"OverlayElements": {}}, "boxes", "OverlayElements cannot take boxes along"),
        ({"ToTensorV2": {}}, "boxes", "ToTensorV2 cannot take boxes along"),
        ({"Pad3D": {"padding": 2}}, "masks", "Pad3D cannot take masks along"),
        ({"OneOf": {"transforms": [{"OverlayElements": {}}]}}, "instances", "OverlayElements cannot take boxes along"),
        ({"Rotate": {"border_mode": 4}}, "instances", "Rotate mirrors the image at its border.*border_mode to 0"),
    ],
)
def test_a_transform_that_would_leave_something_behind_is_refused(item: Any, kind: Kind, words: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"augmentation\.transforms\[0\]: {words}"):
        build([item], 32, 32, kind)


def test_colour_transforms_leave_objects_where_they_are_and_are_welcome() -> None:
    policy = build([{"GaussNoise": {"p": 1.0}}, {"HueSaturationValue": {"p": 1.0}}], HEIGHT, WIDTH, "instances")
    _, found = Augmenter(policy, 0).with_objects(pixels(1, HEIGHT, WIDTH), objects_of((2, 3, 10, 9), masks=True), 0, 0)
    np.testing.assert_array_equal(found.boxes, [[2, 3, 10, 9]])


def test_for_classes_alone_nothing_of_a_policy_has_changed() -> None:
    assert '"bbox_params": null' in to_json(build(presets()["photo"], 32, 32))
    assert isinstance(build(presets()["photo"], 32, 32), A.Compose)
    assert choose(Augmentation(), 64, 64, 3)[0] == "photo"


@pytest.mark.parametrize("kind", ["boxes", "masks", "instances"])
def test_auto_spares_the_objects(kind: Kind) -> None:
    assert choose(Augmentation(), 256, 256, 3, kind)[0] == "objects"
    assert choose(Augmentation(), 32, 32, 1, kind)[0] == "objects"


def test_presets_do_not_mirror_the_masks_of_objects() -> None:
    for name in presets():
        build(choose(Augmentation(preset=name), 64, 64, 3, "instances")[1], 64, 64, "instances")  # type: ignore[arg-type]


# overlays


def test_an_overlay_leaves_the_background_and_tints_classes_and_ignored_pixels() -> None:
    image = np.full((8, 8, 1), 100, np.uint8)
    classes = np.zeros((8, 8), np.uint8)
    classes[1:6, 1:6] = 1
    classes[7] = IGNORED
    drawn = overlays.with_map(image, classes)
    assert drawn.shape == (8, 8, 3)
    assert (drawn[0] == 100).all()
    inner, edge = drawn[3, 3], drawn[1, 1]
    np.testing.assert_allclose(edge, overlays.COLOURS[0], atol=0.5)
    np.testing.assert_allclose(inner, 0.6 * 100 + 0.4 * overlays.COLOURS[0], atol=0.5)
    np.testing.assert_array_equal(drawn[7, 4], [128, 128, 128])


def test_a_box_is_drawn_on_its_first_and_last_pixels() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    drawn = overlays.with_objects(image, Objects(np.array([[2, 3, 10, 12]], np.float32), np.zeros(1, np.int64)))
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 11, 2, 9)
    assert not drawn[5, 5].any()
    assert not image.any(), "the image itself is not changed"
