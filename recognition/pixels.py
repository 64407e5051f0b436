"""From the bytes of an image file to the array a network sees; needs only numpy and Pillow.

Every registered model carries a copy of this file, and the preparation of training images calls the same functions:
what a model is asked about is prepared bit for bit as what it has learned from. ``prepare(content, ...)`` is
``prepare_array(decode(content), ...)``, so that a file and its decoded pixels give the same answer too.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]
Fit = Literal["crop", "pad", "stretch"]

FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
"""What is read, by Pillow's names. Formats that start other programs (EPS) or have no signature (TGA) are left out."""

MAX_PIXELS = 89_478_485
"""Pillow's own limit: a larger image is taken for a decompression bomb."""

GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


class NotAnImageError(ValueError):
    """Content that is no whole image. ``reason`` says what it is, as the rest of a sentence that begins with a name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[NotAnImageError], tuple[str, str]]:
        return type(self), (self.name, self.reason)


def prepare(content: bytes, name: str, height: int, width: int, channels: int, how: Fit) -> Pixels:
    """Turn the bytes of an image file into an array of the given size.

    Returns:
        uint8 of shape (height, width, channels), 0 to 255.

    Raises:
        NotAnImageError: the content is no whole image.
    """
    return prepare_array(decode(content, name), height, width, channels, how)


def prepare_array(array: Pixels, height: int, width: int, channels: int, how: Fit) -> Pixels:
    """Bring decoded pixels to the given size and number of channels.

    Args:
        array: uint8, HxW or HxWx1 (gray), HxWx3 (RGB) or HxWx4 (RGB and alpha, put on white).

    Returns:
        uint8 of shape (height, width, channels).

    Raises:
        ValueError: the array has another shape or dtype.
    """
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"an image is an array of uint8 with shape HxW, HxWx1, HxWx3 or HxWx4, not {array.dtype} {array.shape}"
        )
    if 0 in array.shape:
        raise ValueError(f"an image of shape {array.shape} holds no pixels")
    if array.ndim != 3 or array.shape[2] != channels:
        array = to_array(_as_image(array), channels)
    return fit(array, height, width, how)


def decode(content: bytes, name: str) -> Pixels:
    """Decode the first frame of an image file, turned upright by its EXIF orientation.

    Transparent pixels are put on white, CMYK and palettes become RGB, 16 bits are scaled to 8.

    Returns:
        uint8 of shape (height, width, 1) for gray files and (height, width, 3) for all others.

    Raises:
        NotAnImageError: the content is empty, cut off, damaged, no image at all, or too large.
    """
    image = open_image(content, name)
    try:
        image.load()
        upright = ImageOps.exif_transpose(image) if orientation(image) != 1 else image
        return to_array(upright, 1 if image.mode in GRAY_MODES else 3)
    except NotAnImageError as error:
        raise NotAnImageError(name, error.reason) from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise NotAnImageError(name, _damage(error)) from error


def open_image(content: bytes, name: str) -> Image.Image:
    """Read the header of an image file; pixels stay undecoded.

    Raises:
        NotAnImageError: the content has no header of an image, or claims more than `MAX_PIXELS` pixels.
    """
    if not content:
        raise NotAnImageError(name, "is empty (0 bytes)")
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=_available_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise NotAnImageError(name, f"is too large: it claims more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:
        raise NotAnImageError(name, _what_it_is(content)) from error
    if image.width * image.height > MAX_PIXELS:
        reason = f"is too large: {image.width} x {image.height} are more than {MAX_PIXELS:,} pixels"
        raise NotAnImageError(name, reason)
    return image


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 where it is missing or makes no sense."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a damaged EXIF block does not make the pixels unusable
        return 1
    return value if value in range(1, 9) else 1


def to_array(image: Image.Image, channels: int) -> Pixels:
    """Convert a loaded image of any mode to uint8 of shape (height, width, channels), with 1 or 3 channels.

    Raises:
        NotAnImageError: pixels are floating-point or wider than 16 bits, so that black and white are not known.
    """
    if image.mode in SIXTEEN_BIT_MODES:
        image = Image.fromarray(_sixteen_to_eight(np.asarray(image)))
    elif image.mode == "F":
        raise NotAnImageError("image", "holds floating-point pixels: save it with 8 or 16 bits")
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    wanted = "L" if channels == 1 else "RGB"
    array = np.array(image if image.mode == wanted else image.convert(wanted))
    return array[:, :, np.newaxis] if channels == 1 else array


def fit(array: Pixels, height: int, width: int, how: Fit) -> Pixels:
    """Resize uint8 (H, W, C) to (height, width, C) with an antialiasing bicubic filter.

    Args:
        how: crop keeps the largest middle part of the wanted shape; pad keeps everything and fills with black;
            stretch ignores the shape.
    """
    rows, columns = array.shape[:2]
    if (rows, columns) == (height, width):
        return array
    return _placed(array, geometry(rows, columns, height, width, how), Image.Resampling.BICUBIC)


def fit_mask(mask: Pixels, height: int, width: int, how: Fit) -> Pixels:
    """Bring a mask to size as `fit` brings its image: uint8 (H, W) to (height, width), by nearest neighbour.

    What is padded is 0.
    """
    rows, columns = mask.shape
    if (rows, columns) == (height, width):
        return mask
    placed = geometry(rows, columns, height, width, how)
    return _placed(mask[:, :, np.newaxis], placed, Image.Resampling.NEAREST)[:, :, 0]


class Geometry(NamedTuple):
    """Where the pixels of an image come to lie when it is brought to size: part of it, scaled, on part of the result.

    Coordinates are those of edges: 0 is the left (upper) edge of the first pixel.
    """

    rows: int
    columns: int
    """Of the original image."""
    height: int
    width: int
    """Of the prepared image."""
    part: tuple[float, float, float, float]
    """Left, top, right and bottom of what is kept of the original."""
    place: tuple[int, int, int, int]
    """Left, top, right and bottom of where that lies on the prepared image; the rest is padded."""

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the prepared image for one of the original, along x and y."""
        left, top, right, bottom = self.part
        on_left, on_top, on_right, on_bottom = self.place
        return (on_right - on_left) / (right - left), (on_bottom - on_top) / (bottom - top)

    def to_prepared(self, boxes: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Boxes of the original on the prepared image, clipped to it.

        Args:
            boxes: (n, 4): left, top, right, bottom.

        Returns:
            float32 (n, 4); a box of which nothing is left has no width or no height.
        """
        scale, part, place = self._pairs()
        moved = (np.asarray(boxes, np.float64).reshape(-1, 4) - part) * scale + place
        low, high = np.array(self.place[:2] * 2), np.array(self.place[2:] * 2)
        return np.clip(moved, low, high).astype(np.float32)

    def to_original(self, boxes: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Boxes on the prepared image, (n, 4), as float32 boxes of the original, clipped to it."""
        scale, part, place = self._pairs()
        moved = (np.asarray(boxes, np.float64).reshape(-1, 4) - place) / scale + part
        return np.clip(moved, 0, np.array([self.columns, self.rows] * 2)).astype(np.float32)

    def _pairs(self) -> tuple[NDArray[np.float64], ...]:
        """Scale, start on the original and start on the prepared image, each for left, top, right and bottom."""
        return tuple(np.array(pair * 2, np.float64) for pair in (self.scale, self.part[:2], self.place[:2]))


def geometry(rows: int, columns: int, height: int, width: int, how: Fit) -> Geometry:
    """How `fit` brings an image of rows x columns pixels to height x width.

    Args:
        rows: the original's height.
        columns: its width.
        height: wanted.
        width: wanted.
        how: as for `fit`.
    """
    part, place = (0.0, 0.0, float(columns), float(rows)), (0, 0, width, height)
    if how == "pad":
        scale = min(height / rows, width / columns)
        inner = (max(1, round(rows * scale)), max(1, round(columns * scale)))
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        place = (left, top, left + inner[1], top + inner[0])
    elif how == "crop":
        scale = max(height / rows, width / columns)
        margin_x, margin_y = (columns - width / scale) / 2, (rows - height / scale) / 2
        part = (max(0.0, margin_x), max(0.0, margin_y), columns - max(0.0, margin_x), rows - max(0.0, margin_y))
    return Geometry(rows, columns, height, width, part, place)


def _placed(array: Pixels, geometry: Geometry, resampling: Image.Resampling) -> Pixels:
    left, top, right, bottom = geometry.place
    resized = _as_array(_as_image(array).resize((right - left, bottom - top), resampling, box=geometry.part))
    if resized.shape[:2] == (geometry.height, geometry.width):
        return resized
    padded = np.zeros((geometry.height, geometry.width, array.shape[2]), np.uint8)
    padded[top:bottom, left:right] = resized
    return padded


@cache
def _available_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _as_image(array: Pixels) -> Image.Image:
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _as_array(image: Image.Image) -> Pixels:
    array = np.array(image)
    return array[:, :, np.newaxis] if array.ndim == 2 else array


def _sixteen_to_eight(values: NDArray[np.int32 | np.uint16]) -> Pixels:
    """0 to 65535 onto 0 to 255, rounded."""
    if values.min() < 0 or values.max() > 65_535:
        raise NotAnImageError("image", "holds 32-bit pixels: save it with 8 or 16 bits")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _what_it_is(content: bytes) -> str:
    start = content[:1024].lstrip()
    if content.startswith(_SIGNATURES) or content[4:8] == b"ftyp":
        return "is cut off or damaged: its header cannot be read"
    try:
        text = start.decode("utf-8", "strict") if len(content) <= 1024 else start[:-3].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        text = "\0"
    if text and all(character.isprintable() or character.isspace() for character in text):
        return "is a drawing in SVG, not an image of pixels" if "<svg" in text else "is text, not an image"
    return f"is no image that can be read ({', '.join(FORMATS)})"


def _damage(error: Exception) -> str:
    text = str(error)
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "is cut off: its end is missing"
    return f"is damaged ({text or type(error).__name__})"
