"""Image files become upright arrays of gray or RGB; what is none is refused by name."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image
from sample_images import encoded, pixels

from recognition import images
from recognition.errors import ImageError
from recognition.images import decode, fit, prepare, prepare_array, read_header


def test_a_lossless_file_decodes_to_its_own_pixels() -> None:
    colour, gray = pixels(1), pixels(2, channels=1)
    np.testing.assert_array_equal(decode(encoded(colour), "a.png"), colour)
    np.testing.assert_array_equal(decode(encoded(gray), "b.png"), gray)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation: int) -> None:
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation]
    stored = pixels(3, 8, 12)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF", "WEBP"):
        target = io.BytesIO()
        Image.fromarray(stored).save(target, kind, exif=exif, lossless=True)
        seen = decode(target.getvalue(), "turned")
        np.testing.assert_array_equal(seen, turn(stored), err_msg=kind)
        header = read_header(target.getvalue(), "turned")
        assert (header.height, header.width) == seen.shape[:2], kind


def test_transparent_pixels_are_put_on_white() -> None:
    half = np.zeros((1, 3, 4), np.uint8)
    half[0, :, 3] = (0, 128, 255)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(half)), "a.png")[0, :, 0], [255, 127, 0])
    gray = decode(encoded(Image.fromarray(half).convert("LA")), "b.png")
    np.testing.assert_array_equal(gray[..., 0], [[255, 127, 0]])


def test_a_transparent_palette_colour_is_put_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    target = io.BytesIO()
    image.save(target, "PNG", transparency=0)
    np.testing.assert_array_equal(decode(target.getvalue(), "p.png"), [[[255, 255, 255], [200, 100, 50]]])


def test_sixteen_bits_are_scaled_to_eight() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), kind), "x")[..., 0], expected)


def test_cmyk_becomes_rgb() -> None:
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 255  # full cyan
    seen = decode(encoded(Image.fromarray(ink, "CMYK"), "JPEG"), "print.jpg")
    assert seen.shape == (8, 8, 3)
    assert np.abs(seen[0, 0].astype(int) - [0, 255, 255]).max() <= 3


def test_only_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        target = io.BytesIO()
        frames[0].save(target, kind, save_all=True, append_images=frames[1:], lossless=True)
        np.testing.assert_array_equal(decode(target.getvalue(), kind)[0, 0], [255, 0, 0])
        assert "animated" in read_header(target.getvalue(), kind).remarks


def test_a_bilevel_image_is_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((0, 0), 1)
    np.testing.assert_array_equal(decode(encoded(image), "x.png")[..., 0], [[255, 0]])


def test_the_header_tells_what_decoding_will_convert() -> None:
    assert read_header(encoded(Image.new("CMYK", (4, 4)), "JPEG"), "x").remarks == ("cmyk",)
    assert read_header(encoded(Image.new("P", (4, 4)), "GIF"), "x").remarks == ("palette",)
    assert read_header(encoded(Image.new("I;16", (4, 4))), "x").remarks == ("16_bit",)
    assert read_header(encoded(Image.new("RGBA", (4, 4))), "x").remarks == ("transparent",)
    assert read_header(encoded(Image.new("RGB", (5, 4))), "x") == (4, 5, False, ())
    assert read_header(encoded(Image.new("L", (5, 4)), "JPEG"), "x") == (4, 5, True, ())


PHOTO = encoded(Image.fromarray(pixels(4, 64, 64)), "JPEG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (b"this is no image, whatever its name says\n", "is text, not an image"),
        ("ein Satz mit Umlauten: äöü\n".encode() * 200, "is text, not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "is a drawing in SVG"),
        (bytes(range(256)) * 8, "is no image that can be read"),
        (PHOTO[: len(PHOTO) // 2], "is cut off"),
        (PHOTO[:12], "is cut off"),
        (encoded(pixels(5, 64, 64))[:2000], "is cut off"),
        (encoded(pixels(5, 64, 64), "WEBP")[:500], "is "),
        (encoded(pixels(5, 64, 64), "GIF")[:900], "is cut off"),
        (encoded(pixels(5, 64, 64), "BMP")[:900], "is cut off"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "holds floating-point pixels"),
        (encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "holds 32-bit pixels"),
    ],
)
def test_what_is_no_whole_image_is_refused_by_name(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(content, "cats/7.jpg")
    assert str(caught.value).startswith(f"cats/7.jpg {reason}")


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_refused(side: int) -> None:
    bomb = encoded(Image.new("1", (side, side)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError, match=r"bomb\.png is too large"):
            decode(bomb, "bomb.png")


def test_a_file_and_its_decoded_pixels_are_prepared_to_the_same_bits() -> None:
    contents = [PHOTO, encoded(pixels(6, 20, 31)), encoded(Image.new("CMYK", (20, 9), (1, 99, 3, 40)), "JPEG")]
    for content in contents:
        for how in ("crop", "pad", "stretch"):
            for channels in (1, 3):
                from_file = prepare(content, "x", 16, 24, channels, how)  # type: ignore[arg-type]
                array = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
                from_array = prepare_array(array, 16, 24, channels, how)  # type: ignore[arg-type]
                assert from_file.shape == (16, 24, channels)
                np.testing.assert_array_equal(from_file, from_array)


def test_gray_stored_as_colour_prepares_to_the_same_bits_as_gray() -> None:
    gray = pixels(7, 40, 30, 1)
    as_colour = np.repeat(gray, 3, axis=2)
    np.testing.assert_array_equal(prepare_array(as_colour, 16, 16, 1, "crop"), prepare_array(gray, 16, 16, 1, "crop"))
    np.testing.assert_array_equal(prepare_array(gray, 16, 16, 3, "pad"), prepare_array(as_colour, 16, 16, 3, "pad"))


def test_arrays_of_all_documented_shapes_are_accepted() -> None:
    for shape in ((5, 4), (5, 4, 1), (5, 4, 3), (5, 4, 4)):
        array = np.full(shape, 255, np.uint8)
        np.testing.assert_array_equal(prepare_array(array, 5, 4, 3, "crop"), np.full((5, 4, 3), 255))


@pytest.mark.parametrize("array", [np.zeros((5, 4)), np.zeros((5, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_of_other_shapes_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"image of shape|an image is an array"):
        prepare_array(array, 5, 4, 3, "crop")


def test_crop_keeps_the_middle_and_the_shape_of_things() -> None:
    wide = np.zeros((10, 30, 1), np.uint8)
    wide[:, 10:20] = 255
    np.testing.assert_array_equal(fit(wide, 10, 10, "crop"), np.full((10, 10, 1), 255))
    np.testing.assert_array_equal(fit(wide.transpose(1, 0, 2), 10, 10, "crop"), np.full((10, 10, 1), 255))


def test_pad_keeps_everything_on_black() -> None:
    padded = fit(np.full((10, 20, 3), 200, np.uint8), 40, 40, "pad")
    np.testing.assert_array_equal(padded[10:30], np.full((20, 40, 3), 200))
    assert not padded[:10].any()
    assert not padded[30:].any()


def test_stretch_ignores_the_shape() -> None:
    half = np.zeros((4, 40, 1), np.uint8)
    half[:, 20:] = 255
    stretched = fit(half, 8, 8, "stretch")
    assert stretched[:, :3].max() < 30
    assert stretched[:, 5:].min() > 225


def test_shrinking_averages_instead_of_dropping_pixels() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(fit(stripes, 16, 16, "crop").astype(int) - 128).max() <= 20


def test_the_functions_a_model_carries_need_only_numpy_and_pillow() -> None:
    from pathlib import Path

    source = Path(images.pixels.__file__).read_text()
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported <= {"__future__", "functools", "io", "typing", "numpy", "PIL"}
