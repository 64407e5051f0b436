"""What can be known of a source's images before anything is fetched: by name, by an earlier run, by a short look."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from recognition import datasets, first_look
from recognition.access import UNRESTRICTED, Access
from recognition.data_settings import Data
from recognition.errors import DataError
from recognition.families import Kind
from recognition.records import Expected, PreparedData
from recognition.settings import home
from recognition.sources import SOURCES, check_source
from recognition.sources.idx import FASHION_MNIST, MNIST
from recognition.store.survey import Survey, target_shape

ASSUMED_SIDE, ASSUMED_CLASSES, ASSUMED_IMAGES = 224, 10, 10_000
MOST_EARLIER = 100


@dataclass(frozen=True)
class _Named:
    images: int
    test: int
    side: int
    channels: int
    class_names: tuple[str, ...]
    classes: int


NAMED = {
    "digits": _Named(1_797, 0, 8, 1, tuple("0123456789"), 10),
    "mnist": _Named(70_000, 10_000, 28, 1, MNIST.class_names, 10),
    "fashion_mnist": _Named(70_000, 10_000, 28, 1, FASHION_MNIST.class_names, 10),
    # their archives hold the names
    "cifar10": _Named(60_000, 10_000, 32, 3, (), 10),
    "cifar100": _Named(60_000, 10_000, 32, 3, (), 100),
}
"""What is published of the named data sets."""


def expect(data: Data, access: Access = UNRESTRICTED) -> Expected:
    """What is known of a source's images, within a second or two; nothing is fetched, nothing is written.

    Args:
        data: which images, and how they are prepared.
        access: what may be read.

    Raises:
        ConfigurationError, DataError: the source cannot be one, or may not be read.
    """
    check_source(data, access)
    if data.source in NAMED:
        return _named(data, NAMED[data.source])
    found = None if data.source in SOURCES else _looked_at(data, access)
    return found or _earlier(data) or _assumed(data)


def as_prepared(expected: Expected) -> PreparedData:
    """A record of prepared data for what chooses by images; there are no files behind it."""
    names = expected.class_names or tuple(f"class {number + 1}" for number in range(expected.classes))
    counts = {"train": expected.train_images, "val": expected.val_images}
    counts["test"] = max(0, expected.images - sum(counts.values()))
    return PreparedData(
        path=Path(),
        images=Path(),
        digest="",
        test_digest="",
        source=expected.source,
        kind=expected.kind,
        class_names=names,
        height=expected.height,
        width=expected.width,
        channels=expected.channels,
        counts=counts,
        class_counts={split: dict.fromkeys(names, count // len(names)) for split, count in counts.items()},
        mean=(0.5,) * expected.channels,
        std=(0.25,) * expected.channels,
    )


def of_prepared(data: PreparedData) -> Expected:
    """What is known of data that are prepared already."""
    return Expected(
        source=data.source,
        known="earlier run",
        kind_is_sure=True,
        size_is_sure=True,
        kind=data.kind,
        classes=data.num_classes,
        class_names=data.class_names,
        images=sum(data.counts.values()),
        train_images=data.counts["train"],
        val_images=data.counts["val"],
        height=data.height,
        width=data.width,
        channels=data.channels,
    )


def _expected(
    data: Data,
    known: str,
    seen: Survey,
    given: Counter[str],
    *,
    classes: int,
    class_names: tuple[str, ...] = (),
    kind: Kind = "classes",
    kind_is_sure: bool = True,
    size_is_sure: bool = True,
) -> Expected:
    height, width, channels = target_shape(seen, data)
    train, val = _split_counts(data, given, classes)
    return Expected(
        source=data.source,
        known=known,
        kind_is_sure=kind_is_sure,
        size_is_sure=size_is_sure,
        kind=kind,
        classes=classes,
        class_names=class_names,
        images=given.total(),
        train_images=train,
        val_images=val,
        height=height,
        width=width,
        channels=channels,
    )


def _split_counts(data: Data, given: Counter[str], classes: int) -> tuple[int, int]:
    """About how many images are for training and validation, from how many the source gives each split ('': none)."""
    pool = given["train"] + given[""]
    if not given["test"]:
        pool -= round(pool * data.test_fraction)
    val = given["val"] or round(pool * (1 / data.folds if data.folds else data.val_fraction))
    train = pool if given["val"] else pool - val
    # few-shot learning is for classes, which a wrong kind is refused for elsewhere
    return (min(train, data.per_class * classes) if data.per_class else train), val


def _named(data: Data, what: _Named) -> Expected:
    seen = Survey(Counter({(what.side, what.side): what.images}), what.channels == 1)
    given = Counter({"train": what.images - what.test, "test": what.test} if what.test else {"": what.images})
    return _expected(data, "data set", seen, given, classes=what.classes, class_names=what.class_names)


def _assumed(data: Data) -> Expected:
    seen = Survey(Counter({(ASSUMED_SIDE, ASSUMED_SIDE): ASSUMED_IMAGES}), False)
    given = Counter({"": ASSUMED_IMAGES})
    return _expected(data, "assumed", seen, given, classes=ASSUMED_CLASSES, kind_is_sure=False, size_is_sure=False)


def _earlier(data: Data) -> Expected | None:
    """What the newest earlier run of this state folder with such settings found; it may have changed since."""
    records = sorted(
        (home() / "datasets").glob(f"*/{datasets.RECORD}"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for path in records[:MOST_EARLIER]:
        if "-" in path.parent.name:  # a draw of few images
            continue
        try:
            found = datasets.load(path.parent)
        except DataError:
            continue
        channels = {"gray": 1, "rgb": 3, "auto": found.channels}[data.channels]
        sides = {found.height, found.width}
        if found.source == data.source and found.channels == channels and sides <= {data.image_size or found.height}:
            splits = _split_counts(data, Counter(found.counts), found.num_classes) if data.per_class else ()
            train = splits[0] if splits else found.counts["train"]
            return of_prepared(found).model_copy(
                update={"train_images": train, "kind_is_sure": False, "size_is_sure": False}
            )
    return None


def _looked_at(data: Data, access: Access) -> Expected | None:
    """What names and headers tell of images on this machine; none where that would take long."""
    opened = first_look.open_quickly(data, access)
    if opened is None:
        return None
    with closing(opened) as images:
        chosen = first_look.spread(images)
        seen, coloured = first_look.headers(images, chosen)
        looked = seen.sizes.total()
        if not looked:
            return None
        everything = looked + len(seen.unreadable) == len(images)
        sure_colour = data.channels != "auto" or coloured or (seen.all_gray and everything)
        return _expected(
            data,
            f"looked at {looked} files",
            seen,
            Counter(images.splits),
            classes=len(images.object_names),
            class_names=images.object_names,
            kind=images.kind,
            size_is_sure=sure_colour and (everything or data.image_size > 0),
        )
