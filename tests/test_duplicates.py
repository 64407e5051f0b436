"""Copies are found, whatever was done to them, and what only looks alike is not taken for a copy."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from conftest import SHARED_DATA
from inspected_images import mirrored, photo, resized
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from recognition.audit import duplicates
from recognition.audit.duplicates import Duplicates
from recognition.audit.measures import MEASURES, measure
from recognition.pixels import Pixels


def jpeg(pixels: Pixels, quality: int = 60) -> Pixels:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=quality)
    return np.array(Image.open(content))


def rows(images: Sequence[Pixels]) -> NDArray[Any]:
    measured = np.zeros(len(images), MEASURES)
    for index, image in enumerate(images):
        measured[index] = measure(image)
    return measured


def find(images: Sequence[Pixels]) -> Duplicates:
    return duplicates.find(rows(images))


def groups(found: Sequence[NDArray[np.int64]]) -> list[list[int]]:
    return [group.tolist() for group in found]


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "half the size": lambda image: resized(image, image.shape[0] // 2, image.shape[1] // 2),
    "twice the size": lambda image: resized(image, image.shape[0] * 2, image.shape[1] * 2),
    "1.3 times the size": lambda image: resized(image, round(image.shape[0] * 1.3), round(image.shape[1] * 1.3)),
    "JPEG of quality 60": jpeg,
    "mirrored": mirrored,
    "mirrored and JPEG": lambda image: jpeg(mirrored(image)),
    "mirrored, resized and JPEG": lambda image: jpeg(resized(mirrored(image), 50, 50)),
}
SETS = {side: [photo(100 * side + seed, side, side) for seed in range(60)] for side in (32, 96)}


@pytest.mark.parametrize("side", SETS)
@pytest.mark.parametrize("kind", COPIES)
def test_a_near_copy_of_each_kind_is_found(kind: str, side: int) -> None:
    images = SETS[side]
    found = find([*images, *[COPIES[kind](image) for image in images[:10]]])
    assert groups(found.near) == [[index, 60 + index] for index in range(10)]
    assert found.exact == []


def test_different_photographs_are_no_copies() -> None:
    found = find([*SETS[32], *SETS[96], *[photo(seed, 64, 64) for seed in range(1000, 1060)]])
    assert (found.exact, found.near) == ([], [])
    assert len(set(found.unit.tolist())) == 180


def test_textures_of_one_kind_are_no_copies() -> None:
    noise = [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8) for seed in range(50)]
    stripes = [
        np.repeat(((np.sin(np.arange(64) / period)[np.newaxis] + 1) * 120).astype(np.uint8), 64, axis=0)[
            :, :, np.newaxis
        ]
        for period in (2, 3, 4, 5, 6, 8, 11)
    ]
    assert find([*noise, *stripes]).near == []


def test_equal_pixels_are_an_exact_group_and_no_near_one() -> None:
    images = SETS[32]
    found = find([*images[:5], images[1], images[3], images[1]])
    assert groups(found.exact) == [[1, 5, 7], [3, 6]]
    assert found.near == []
    assert found.unit[1] == found.unit[5] == found.unit[7] != found.unit[3]


def test_a_near_group_holds_the_exact_copies_of_its_members() -> None:
    images = SETS[96]
    small = resized(images[0], 48, 48)
    found = find([images[0], images[1], small, small, images[0]])
    assert groups(found.exact) == [[0, 4], [2, 3]]
    assert groups(found.near) == [[0, 2, 3, 4]]
    assert len(set(found.unit[[0, 2, 3, 4]].tolist())) == 1


def test_another_colour_or_another_brightness_is_no_copy() -> None:
    image = photo(5, 64, 64)
    recoloured = image[:, :, ::-1].copy()
    darker = (image * 0.8).astype(np.uint8)
    assert find([image, recoloured, darker]).near == []


def test_turned_upside_down_is_no_copy() -> None:
    assert find([SETS[96][0], SETS[96][0][::-1]]).near == []


def test_a_small_mark_tells_two_images_apart() -> None:
    shirt = np.zeros((28, 28, 1), np.uint8)
    shirt[4:26, 7:21] = 200
    shirt[6:10, 2:26] = 190
    printed = shirt.copy()
    printed[11:15, 10:14] = 60
    assert find([shirt, printed]).near == []


def test_flat_and_dark_images_are_not_thrown_together() -> None:
    random = np.random.default_rng(0)
    gray = [np.full((64, 64, 1), level, np.uint8) for level in range(40)]
    noisy = [random.integers(100, 103, (64, 64, 1), dtype=np.uint8) for _ in range(40)]
    cells = []
    for _ in range(40):  # a bright spot each in the dark, as under a microscope
        image = random.integers(0, 4, (64, 64, 1), dtype=np.uint8)
        top, left = random.integers(8, 40, 2)
        image[top : top + 6, left : left + 6] = 90
        cells.append(image)
    found = find([*gray, *noisy, *cells])
    assert (found.exact, found.near) == ([], [])


def test_images_that_change_step_by_step_do_not_chain() -> None:
    first, last = photo(1, 64, 64).astype(np.float64), photo(2, 64, 64).astype(np.float64)
    frames = [(first + (last - first) * share).astype(np.uint8) for share in np.linspace(0, 1, 200)]
    measured = rows(frames)
    found = duplicates.find(measured)
    assert len(found.near) >= 5
    for group in found.near:
        gray = measured["gray"][group].astype(np.float64)
        spread = gray - gray.mean(axis=(1, 2), keepdims=True)
        farthest = max(np.sqrt(((spread - one) ** 2).mean(axis=(1, 2))).max() for one in spread)
        assert farthest <= 2 * duplicates.FARTHEST


def test_the_largest_leads_and_copies_of_it_join_it_alone() -> None:
    original = photo(9, 256, 256)
    copies = [resized(original, side, side) for side in (40, 64, 100, 180)]
    found = find([*copies, original, *SETS[96]])
    assert groups(found.near) == [[0, 1, 2, 3, 4]]
    assert set(found.unit[:5].tolist()) == {4}


def test_the_order_of_images_does_not_matter() -> None:
    images = [*SETS[32], *SETS[96]]
    images += [copy(image) for copy in COPIES.values() for image in (*SETS[32][:8], *SETS[96][:8])] + images[:6]
    measured = rows(images)
    order = np.random.default_rng(0).permutation(len(images))
    straight, shuffled = duplicates.find(measured), duplicates.find(measured[order])

    def as_sets(found: Sequence[NDArray[np.int64]], names: NDArray[np.int64]) -> set[frozenset[int]]:
        return {frozenset(names[group].tolist()) for group in found}

    numbers = np.arange(len(images))
    assert as_sets(straight.exact, numbers) == as_sets(shuffled.exact, order)
    assert as_sets(straight.near, numbers) == as_sets(shuffled.near, order)
    assert len(straight.near) == 16


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = rows([*SETS[32], *[jpeg(image) for image in SETS[32][:20]]])
    whole = duplicates.find(measured)
    monkeypatch.setattr(duplicates, "_ROWS", 7)
    monkeypatch.setattr(duplicates, "_LEADERS", 3)
    assert groups(duplicates.find(measured).near) == groups(whole.near)
    assert len(whole.near) == 20


def test_digits_of_8_by_8_pixels_have_exact_copies_only() -> None:
    digits = (load_digits().images * 15).astype(np.uint8)[:, :, :, np.newaxis]
    found = find([*digits, digits[3]])
    assert groups(found.exact) == [[3, len(digits)]]
    assert found.near == []


def test_two_small_images_have_no_near_copies_but_a_large_one_may_have_a_small() -> None:
    image = photo(4, 96, 96)
    small, smaller = resized(image, 20, 20), resized(image, 18, 18)
    assert find([small, smaller]).near == []
    assert groups(find([image, small, smaller]).near) == [[0, 1, 2]]
    assert find([image, resized(image, 12, 12)]).near == []


def test_images_that_could_not_be_read_are_copies_of_nothing() -> None:
    measured = rows([SETS[32][0], SETS[32][1], SETS[32][0]])
    found = duplicates.find(np.concatenate([np.zeros(2, MEASURES), measured, np.zeros(1, MEASURES)]))
    assert groups(found.exact) == [[2, 4]]
    assert found.near == []
    assert found.unit.tolist() == [0, 1, 2, 3, 2, 5]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_no_image_and_unreadable_images_have_no_groups(count: int) -> None:
    found = duplicates.find(np.zeros(count, MEASURES))
    assert (found.exact, found.near, found.unit.tolist()) == ([], [], list(range(count)))


def test_a_single_image_is_its_own_unit() -> None:
    assert find([SETS[32][0]]).unit.tolist() == [0]


FASHION = SHARED_DATA / "fashion_mnist" / "t10k-images-idx3-ubyte.gz"


@pytest.mark.skipif(not FASHION.is_file(), reason="Fashion-MNIST is not at hand")
def test_fashion_articles_that_look_alike_are_seldom_near_copies() -> None:
    articles = np.frombuffer(gzip.decompress(FASHION.read_bytes())[16:], np.uint8).reshape(-1, 28, 28, 1)
    near = find(list(articles)).near
    assert sum(map(len, near)) <= 0.002 * len(articles)
    assert max(map(len, near), default=0) <= 4
