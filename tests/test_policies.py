"""Policies are checked by name before they are used, and every draw is a function of (seed, epoch, index)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from sample_images import folder_of, pixels
from torch.utils.data import DataLoader, Dataset

from recognition import policies
from recognition.errors import ConfigurationError
from recognition.experiment import PRESETS, Augmentation, Data
from recognition.policies import Augmenter, build, choose, from_json, to_json
from recognition.preparation import prepare
from recognition.records import PreparedData

NAMES = [name for name in PRESETS if name != "auto"]
RANDOM = [name for name in NAMES if name != "none"]


def preset(name: str, side: int, channels: int = 3) -> A.Compose:
    return build(choose(Augmentation(preset=name), side, side, channels)[1], side, side)  # type: ignore[arg-type]


def refused(item: Any, side: int = 32) -> str:
    with pytest.raises(ConfigurationError) as caught:
        build([item], side, side)
    return str(caught.value)


# presets


def test_the_schema_names_exactly_the_presets_of_the_file() -> None:
    assert set(policies.presets()) == set(NAMES)


@pytest.mark.parametrize("side", [8, 28, 32, 64, 224])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_keeps_shape_and_type(name: str, channels: int, side: int) -> None:
    augmenter = Augmenter(preset(name, side, channels), seed=0)
    image = pixels(1, side, side, channels)
    before = image.copy()
    for index in range(12):
        result = augmenter(image, 0, index)
        assert result.shape == (side, side, channels)
        assert result.dtype == np.uint8
    np.testing.assert_array_equal(image, before, err_msg="the stored image is not changed")


def test_no_policy_leaves_the_image_as_it_is() -> None:
    image = pixels(1)
    np.testing.assert_array_equal(Augmenter(preset("none", 12), 0)(image, 3, 4), image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", RANDOM)
def test_a_draw_does_not_depend_on_what_was_drawn_before(name: str, channels: int) -> None:
    image = pixels(2, 24, 24, channels)
    forwards, backwards = Augmenter(preset(name, 24, channels), 7), Augmenter(preset(name, 24, channels), 7)
    keys = [(epoch, index) for epoch in range(2) for index in range(12)]
    first = {key: forwards(image, *key) for key in keys}
    # the other way round, with draws for other images in between
    other = pixels(3, 24, 24, channels)
    second = {}
    for key in reversed(keys):
        backwards(other, 99, key[1])
        second[key] = backwards(image, *key)
    for key in keys:
        np.testing.assert_array_equal(first[key], second[key], err_msg=f"{name} {key}")


@pytest.mark.parametrize("name", RANDOM)
def test_draws_differ_between_epochs_between_images_and_between_seeds(name: str) -> None:
    image = pixels(2, 24, 24)

    def drawn(seed: int, epoch: int) -> list[bytes]:
        augmenter = Augmenter(preset(name, 24), seed)
        return [augmenter(image, epoch, index).tobytes() for index in range(20)]

    reference = drawn(0, 0)
    # flip_crop has 2 x 7 x 7 outcomes, so that a few of 20 may agree
    assert len(set(reference)) > 10
    for seed, epoch in ((0, 1), (0, 2), (1, 0)):
        same = sum(one == other for one, other in zip(reference, drawn(seed, epoch), strict=True))
        assert same < 10, (seed, epoch)


def test_flips_happen_half_of_the_time() -> None:
    augmenter = Augmenter(build([{"HorizontalFlip": {"p": 0.5}}], 4, 4), 0)
    image = pixels(1, 4, 4)
    flipped = sum(not np.array_equal(augmenter(image, 0, index), image) for index in range(1000))
    assert abs(flipped - 500) < 80  # five standard deviations of 15.8


# what is refused


def test_an_unknown_transform_is_refused_with_the_nearest_one() -> None:
    message = refused({"HorizontlFlip": {}})
    assert "augmentation.transforms[0]" in message
    assert "'HorizontlFlip'; did you mean HorizontalFlip?" in message


def test_an_unknown_argument_is_refused_with_the_nearest_one() -> None:
    message = refused({"GaussNoise": {"std_rnge": [0.1, 0.2]}})
    assert "GaussNoise has no argument 'std_rnge'; did you mean std_range?" in message
    # an argument of older releases, which Albumentations itself would only warn about
    assert "CoarseDropout has no argument 'max_holes'" in refused({"CoarseDropout": {"max_holes": 8}})


@pytest.mark.parametrize(
    "item",
    [
        {"HorizontalFlip": {"p": 2}},
        {"Rotate": {"limit": "much"}},
        {"RandomCrop": {"height": -4, "width": 4}},
        {"GaussNoise": {"std_range": [0.9, 0.1]}},
    ],
)
def test_a_bad_value_is_refused_by_transform(item: dict[str, dict[str, Any]]) -> None:
    name = next(iter(item))
    assert f"{name} does not take" in refused(item)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"HorizontalFlip": {}, "VerticalFlip": {}}, "one transform an item"),
        ({}, "one transform an item"),
        ({"OneOf": {"transforms": ["HorizontalFlip"]}}, "one transform an item"),
        ({"OneOf": {"transforms": [{"HorizontalFlip": 0.5}]}}, "takes {argument: value}, not 0.5"),
        ({"OneOf": {"transforms": "HorizontalFlip"}}, "OneOf.transforms is a list"),
        ({"OneOf": {"transforms": [{"Flipp": {}}]}}, "augmentation.transforms[0].OneOf[0]"),
        ({"RandomCrop": {"height": "@hight", "width": "@width"}}, "@hight is none of @height, @width, @pad"),
        ({"print": {}}, "no transform 'print'"),
    ],
)
def test_a_transform_written_wrongly_is_refused(item: Any, words: str) -> None:
    assert words in refused(item)


def test_sizes_are_filled_in() -> None:
    wide = build([{"Resize": {"height": "@height", "width": "@width"}}, {"Pad": {"padding": "@pad"}}], 20, 40)
    resize, pad = wide.transforms
    assert (resize.height, resize.width) == (20, 40)
    assert pad.padding == 2  # an eighth of the shorter side, rounded down
    assert build([{"Pad": {"padding": "@pad"}}], 5, 5).transforms[0].padding == 1
    nested = build([{"RandomResizedCrop": {"size": ["@height", "@width"]}}], 20, 40).transforms[0]
    assert nested.size == (20, 40)


@pytest.mark.parametrize("container", ["OneOf", "SomeOf", "Sequential", "RandomOrder", "SelectiveChannelTransform"])
def test_containers_hold_checked_transforms(container: str) -> None:
    parts = [{"GaussianBlur": {"p": 1.0}}, {"RandomBrightnessContrast": {"p": 1.0}}]
    policy = build([{container: {"transforms": parts, "p": 1.0}}], 16, 16)
    assert [type(part).__name__ for part in policy.transforms[0].transforms] == [
        "GaussianBlur",
        "RandomBrightnessContrast",
    ]
    assert Augmenter(policy, 0)(pixels(1, 16, 16), 0, 0).shape == (16, 16, 3)


# choosing


@pytest.mark.parametrize(
    ("height", "width", "channels", "expected"),
    [
        (8, 8, 1, "shift_rotate"),
        (28, 28, 1, "shift_rotate"),
        (32, 32, 3, "flip_crop"),
        (48, 48, 3, "flip_crop"),
        (49, 49, 3, "photo"),
        (49, 49, 1, "photo"),
        (224, 40, 3, "flip_crop"),
    ],
)
def test_auto_is_decided_by_size_and_channels(height: int, width: int, channels: int, expected: str) -> None:
    assert choose(Augmentation(), height, width, channels)[0] == expected


def test_transforms_replace_the_preset() -> None:
    name, transforms = choose(Augmentation(preset="strong", transforms=({"VerticalFlip": {}},)), 64, 64, 3)
    assert name == "custom"
    assert list(transforms) == [{"VerticalFlip": {}}]


def test_gray_images_are_spared_the_colour_transforms_of_a_preset() -> None:
    for name in ("photo", "strong"):
        colour = [next(iter(item)) for item in choose(Augmentation(preset=name), 64, 64, 3)[1]]  # type: ignore[arg-type]
        gray = [next(iter(item)) for item in choose(Augmentation(preset=name), 64, 64, 1)[1]]  # type: ignore[arg-type]
        assert set(colour) - set(gray) == {"HueSaturationValue"}


# writing and reading


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_read_back_gives_the_same_pixels(name: str) -> None:
    policy = preset(name, 24)
    again = from_json(to_json(policy))
    assert to_json(again) == to_json(policy)
    one, other = Augmenter(policy, 3), Augmenter(again, 3)
    for index in range(10):
        image = pixels(index, 24, 24)
        np.testing.assert_array_equal(one(image, 1, index), other(image, 1, index))


@pytest.mark.parametrize(
    "name", ["os.system", "subprocess.Popen", "albumentations.core.composition.os", "HorizontalFlipp", "", "Flip.call"]
)
def test_a_class_that_is_not_albumentations_is_refused(name: str) -> None:
    content = json.loads(to_json(build([{"OneOf": {"transforms": [{"HorizontalFlip": {}}]}}], 8, 8)))
    content["transform"]["transforms"][0]["transforms"][0]["__class_fullname__"] = name
    with pytest.raises(ConfigurationError, match="no class of Albumentations"):
        from_json(json.dumps(content))


# on a data set


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Two classes of 20 colour images of 12x12 pixels."""
    base = tmp_path_factory.mktemp("photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(base / "state"))
        return prepare(Data(source=str(folder_of(base / "source", "cat", "dog", count=20))))


def augmentation_of(*transforms: dict[str, dict[str, Any]]) -> Augmentation:
    return Augmentation(transforms=transforms)


def test_a_policy_is_tried_previewed_and_written_in_a_form_that_rebuilds_it(
    photos: PreparedData, tmp_path: Path
) -> None:
    policy = policies.augment(photos, Augmentation(preset="strong", preview=4), 0, tmp_path)
    assert policy.name == "strong"
    assert policy.transforms[:2] == ("RandomResizedCrop", "HorizontalFlip")
    assert policy.preview.read_bytes().startswith(b"\x89PNG")
    rebuilt = Augmenter(from_json(policy.path.read_text()), 0)
    image = pixels(0)
    np.testing.assert_array_equal(rebuilt(image, 0, 0), Augmenter(preset("strong", 12), 0)(image, 0, 0))
    written = yaml.safe_load((tmp_path / "policy.yaml").read_text())["strong"]
    assert to_json(build(written, 12, 12)) == policy.path.read_text()


def test_a_policy_that_changes_the_shape_is_refused(photos: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"into uint8 of shape \(6, 5, 3\): end it with a crop or resize"):
        policies.augment(photos, augmentation_of({"CenterCrop": {"height": 6, "width": 5}}), 0, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_policy_that_changes_the_type_is_refused(photos: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"into float32 of shape .*augmentation.normalization"):
        policies.augment(photos, augmentation_of({"Normalize": {}}), 0, tmp_path)
    with pytest.raises(ConfigurationError, match=r"augmentation.normalization"):
        policies.augment(photos, augmentation_of({"ToTensorV2": {}}), 0, tmp_path)


def test_a_policy_that_fails_on_the_images_is_refused(photos: PreparedData, tmp_path: Path) -> None:
    too_large = augmentation_of({"RandomCrop": {"height": 64, "width": 64}})
    with pytest.raises(ConfigurationError, match="the policy custom fails on images of 12x12x3"):
        policies.augment(photos, too_large, 0, tmp_path)


# why draws are keyed


class _Plain(Dataset[NDArray[np.uint8]]):
    """Albumentations as its documentation uses it: the pipeline draws from its own stream."""

    def __init__(self) -> None:
        self.policy = A.Compose([A.RandomBrightnessContrast(p=1.0)], seed=0)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.policy(image=np.full((4, 4, 3), 128, np.uint8))["image"]  # type: ignore[no-any-return]


class _Keyed(_Plain):
    def __init__(self) -> None:
        self.augmenter = Augmenter(build([{"RandomBrightnessContrast": {"p": 1.0}}], 4, 4), 0)
        self.epoch = 0

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.augmenter(np.full((4, 4, 3), 128, np.uint8), self.epoch, index)


def _epoch(dataset: Dataset[NDArray[np.uint8]]) -> list[bytes]:
    torch.manual_seed(0)
    return [bytes(image.numpy().tobytes()) for image in DataLoader(dataset, batch_size=None, num_workers=2)]


def test_albumentations_alone_repeats_its_stream_in_workers_and_ours_does_not() -> None:
    plain = _Plain()
    first = _epoch(plain)
    assert _epoch(plain) == first, "each epoch draws the same"
    assert first[0::2] == first[1::2], "two workers draw the same"
    keyed = _Keyed()
    epochs = []
    for keyed.epoch in range(2):
        epochs.append(_epoch(keyed))
    assert epochs[0] != epochs[1]
    assert epochs[0][0::2] != epochs[0][1::2]
    keyed.epoch = 0
    assert _epoch(keyed) == epochs[0]
