"""Image files of the user: decoded, or refused with an `ImageError` that names the file and says what it is."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple

from PIL import Image

from recognition import pixels
from recognition.errors import ImageError
from recognition.pixels import Fit, NotAnImageError, Pixels, fit, prepare_array, to_array

__all__ = ["Fit", "Header", "Pixels", "decode", "fit", "prepare", "prepare_array", "read_header", "to_array"]


_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
_ENDINGS = {
    "JPEG": _JPEG,
    "MPO": _JPEG,
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
}
"""The endings of names that fit a format; formats that are not here go by many."""
_KNOWN_ENDINGS = tuple(ending for endings in _ENDINGS.values() for ending in endings)


class Header(NamedTuple):
    """What the header of an image file tells, without decoding: size as seen upright, in pixels."""

    height: int
    width: int
    gray: bool
    remarks: tuple[str, ...]
    """What decoding will convert, or what is odd: some of cmyk, palette, 16_bit, transparent, animated,
    wrong_extension."""


def decode(content: bytes, name: str) -> Pixels:
    """Decode an image file: uint8 of shape (height, width, 1 or 3); see `recognition.pixels.decode`.

    Raises:
        ImageError: the content is no whole image; the message names the file and says what it is.
    """
    try:
        return pixels.decode(content, name)
    except NotAnImageError as error:
        raise ImageError(str(error)) from error


def prepare(content: bytes, name: str, height: int, width: int, channels: int, how: Fit) -> Pixels:
    """Decode an image file and bring it to size: uint8 of shape (height, width, channels).

    Raises:
        ImageError: the content is no whole image.
    """
    try:
        return pixels.prepare(content, name, height, width, channels, how)
    except NotAnImageError as error:
        raise ImageError(str(error)) from error


def read_header(content: bytes, name: str) -> Header:
    """Read size and kind of an image file without decoding its pixels.

    Raises:
        NotAnImageError: the content has no header of an image.
    """
    image = pixels.open_image(content, name)
    remarks = []
    if image.mode == "CMYK":
        remarks.append("cmyk")
    if image.mode in ("P", "PA"):
        remarks.append("palette")
    if image.mode in pixels.SIXTEEN_BIT_MODES or (image.format == "PNG" and content[24:25] == b"\x10"):
        remarks.append("16_bit")
    if image.has_transparency_data:
        remarks.append("transparent")
    # the second picture of an MPO (a phone's JPEG) is a preview or the other eye's view, not a frame
    if image.format in ("GIF", "PNG", "WEBP", "AVIF", "TIFF") and _has_frames(image):
        remarks.append("animated")
    ending = PurePosixPath(name).suffix.lower()
    if ending in _KNOWN_ENDINGS and ending not in _ENDINGS.get(image.format or "", _KNOWN_ENDINGS):
        remarks.append("wrong_extension")
    turned = _may_be_turned(image.format, content) and pixels.orientation(image) >= 5
    height, width = (image.width, image.height) if turned else (image.height, image.width)
    return Header(height, width, image.mode in pixels.GRAY_MODES, tuple(remarks))


def _has_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame does not concern the first
        return False


def _may_be_turned(image_format: str | None, content: bytes) -> bool:
    """Whether to look at the EXIF block: Pillow decodes a whole PNG to find one, and tells a TIFF's upright size."""
    if image_format == "PNG":
        return b"eXIf" in content or b"tiff:Orientation" in content
    return image_format != "TIFF"
