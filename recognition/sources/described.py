"""What the readers of boxes and masks share: which images are described, by what, and in which split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from recognition.errors import DataError
from recognition.families import Kind
from recognition.pixels import NotAnImageError
from recognition.records import Finding
from recognition.sources.annotations import Annotation, Read
from recognition.sources.layout import clean, some

LONGEST_NAME = 200
"""Characters of a class's name."""


@dataclass(frozen=True)
class Described:
    """Images by their paths, and what is said of each."""

    kind: Kind
    class_names: tuple[str, ...]
    images: tuple[str, ...]
    read: Callable[[str], Annotation]
    """What is said of an image, by its path; threads may share it."""
    files: frozenset[str]
    """Those that say it."""
    contents: Read
    splits: Mapping[str, str] = field(default_factory=dict)
    """For an image the split that a list or description gives, where one does."""
    findings: tuple[Finding, ...] = ()


def class_name(text: object) -> str:
    """A class's name as it is used; empty text for what is none."""
    if not isinstance(text, str) or len(text) > LONGEST_NAME:
        return ""
    return clean(text.encode("utf-8", "replace").decode()).strip()


def told_length(text: object) -> str:
    """Why a long name is none, as words to add."""
    long = isinstance(text, str) and len(text) > LONGEST_NAME
    return f" of at most {LONGEST_NAME} characters" if long else ""


def text_of(read: Read, path: str) -> str:
    """A small text file beside the images, such as a list of names.

    Raises:
        DataError: it cannot be read, or is no text.
    """
    try:
        return read(path).decode("utf-8-sig")
    except (NotAnImageError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}).") from error


def without_image(paths: Collection[str], what: str) -> Iterable[Finding]:
    """The finding about descriptions of images that are not there."""
    if paths:
        message = f"{what} ({len(paths)}): left out, since their images are not there."
        yield Finding(kind="annotations_without_image", message=message, files=some(paths), count=len(paths))
