"""What is measured on an image: figures that can be worked out by hand, and identity by content."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from inspected_images import blurred, mirrored, photo

from recognition.audit.measures import MEASURES, measure
from recognition.pixels import Pixels


def plain(*colour: int, height: int = 32, width: int = 32) -> Pixels:
    return np.full((height, width, len(colour)), colour, np.uint8)


def test_content_is_a_digest_of_shape_and_pixels() -> None:
    image = photo(0, 40, 30)
    expected = hashlib.sha256(b"40 30 3\n" + image.tobytes()).digest()
    assert measure(image)["content"].tobytes() == expected
    assert measure(np.asfortranarray(image))["content"].tobytes() == expected  # not of how memory holds them


def test_content_differs_with_one_pixel_one_step() -> None:
    image = photo(0)
    changed = image.copy()
    changed[-1, -1, -1] ^= 1
    assert (measure(image)["content"] != measure(changed)["content"]).any()


def test_the_same_bytes_in_another_shape_are_another_content() -> None:
    image = plain(7, height=20, width=30)
    assert (measure(image)["content"] != measure(image.reshape(30, 20, 1))["content"]).any()


def test_a_gray_image_saved_as_colour_is_the_same_image() -> None:
    gray = photo(3, channels=1)
    one, three = measure(gray), measure(np.repeat(gray, 3, axis=2))
    for name in ("content", "gray", "chroma", "brightness", "contrast", "sharpness", "p01", "p99"):
        assert (one[name] == three[name]).all()


def test_levels_of_half_black_half_white() -> None:
    image = plain(0)
    image[:, 16:] = 255
    row = measure(image)
    assert (row["brightness"], row["contrast"], row["p01"], row["p99"]) == (127.5, 127.5, 0, 255)
    assert not row["constant"]


def test_one_bright_pixel_of_a_thousand_does_not_make_a_dark_image_bright() -> None:
    image = plain(10)
    image[5, 5] = 255
    row = measure(image)
    assert (row["p01"], row["p99"]) == (10, 10)


@pytest.mark.parametrize("image", [plain(0), plain(200), plain(10, 20, 30), plain(255, 0, 0, height=1, width=1)])
def test_an_image_of_one_colour_is_constant(image: Pixels) -> None:
    row = measure(image)
    assert row["constant"]
    assert row["contrast"] == 0
    assert row["sharpness"] == 0


def test_colours_of_equal_brightness_are_not_constant() -> None:
    image = plain(255, 0, 0)
    image[:, 16:] = (0, 130, 0)
    row = measure(image)
    assert row["contrast"] < 1
    assert not row["constant"]


def test_sharpness_falls_with_blur() -> None:
    image = photo(1, 128, 128)
    sharpness = [float(measure(picture)["sharpness"]) for picture in (image, blurred(image, 2), blurred(image, 6))]
    assert sharpness[0] > 4 * sharpness[1] > 4 * sharpness[2]


def test_the_descriptor_holds_averages_of_parts() -> None:
    image = plain(0, height=64, width=64)
    image[:4, :4] = 200  # one of 16 x 16 parts
    image[4:8, :2] = 100  # half of another
    gray = measure(image)["gray"]
    assert (gray[0, 0], gray[1, 0], gray.sum()) == (200, 50, 250)


def test_the_descriptor_of_a_mirror_image_is_mirrored() -> None:
    for side in (32, 128, 1000):
        image = photo(2, side, side)
        one, other = measure(image), measure(mirrored(image))
        assert np.abs(one["gray"][:, ::-1].astype(int) - other["gray"]).max() <= 1
        assert np.abs(one["chroma"][:, :, ::-1].astype(int) - other["chroma"]).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3000, 3), (3000, 1, 1), (8, 8, 1), (513, 1025, 3), (255, 700, 1)])
def test_images_of_any_shape_are_measured(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    row = measure(image)
    assert row.dtype == MEASURES
    assert (row["height"], row["width"], row["file_bytes"]) == (shape[0], shape[1], 0)
    assert np.isfinite(row["sharpness"])
