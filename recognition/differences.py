"""What is different between two versions of data, told from the tables of their images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pydantic import Field

from recognition.records import Record
from recognition.versions import Samples

_SHOWN = 10
_NAMED = 100


class Change(Record):
    """Images that one kind of change is about."""

    count: int = 0
    files: tuple[str, ...] = ()
    """The first hundred, by name."""
    kinds: dict[str, int] = Field(default_factory=dict)
    """What changed into what, or why, and how many of each."""


class Difference(Record):
    """How a later version of data differs from an earlier one. All but ``left_out`` is about images in use.

    An image is known by its pixels, so that a file with the same content under another name is renamed. Of several
    copies each counts. The digests of two versions are equal if, and only if, nothing is added, removed or relabelled.
    """

    before: int
    after: int
    """Images in use."""
    added: Change
    removed: Change
    """Gone, or now left out."""
    relabelled: Change
    renamed: Change
    moved: Change
    """In another split than before, relabelled and renamed images too."""
    left_out: Change
    """Left out now, and not before; new ones too."""
    same_test: bool
    """Whether the test images and their classes are the same, so that scores can be compared."""

    @property
    def same_data(self) -> bool:
        """Whether images and classes are the same, as the digests say."""
        return not (self.added.count or self.removed.count or self.relabelled.count)


def diff(before: Samples, after: Samples) -> Difference:
    """Say what was added, removed, relabelled, renamed and moved between splits from one version to another."""
    old, new = _in_use(before), _in_use(after)
    unchanged = old & new
    pairs, removed, added = _paired(old - unchanged, new - unchanged)
    relabelled = [(a, b) for a, b in pairs if a.class_name != b.class_name]
    moved = [(a, b) for a, b in pairs if a.split != b.split]
    return Difference(
        before=old.total(),
        after=new.total(),
        added=_change([(row.name, row.class_name) for row in added]),
        removed=_change([(row.name, row.class_name) for row in removed]),
        relabelled=_change([(b.name, f"{a.class_name} → {b.class_name}") for a, b in relabelled]),
        renamed=_change([(f"{a.name} → {b.name}", "") for a, b in pairs if a.name != b.name]),
        moved=_change([(b.name, f"{a.split} → {b.split}") for a, b in moved]),
        left_out=_change(_newly_left_out(before, after)),
        same_test=_test_images(old) == _test_images(new),
    )


def as_text(difference: Difference) -> str:
    """The difference in a few lines, the first names of each kind with it; unprintable characters are escaped."""
    lines = [f"{difference.before:,} images in use before, {difference.after:,} after."]
    for title, change in (
        ("added", difference.added),
        ("removed", difference.removed),
        ("relabelled", difference.relabelled),
        ("renamed", difference.renamed),
        ("moved between splits", difference.moved),
        ("newly left out", difference.left_out),
    ):
        if not change.count:
            continue
        kinds = [f"{_printable(kind)} {count:,}" for kind, count in list(change.kinds.items())[:_SHOWN]]
        if len(change.kinds) > _SHOWN:
            kinds.append(f"{len(change.kinds) - _SHOWN} more kinds")
        lines.append(f"{change.count:,} {title}{': ' if kinds else ''}{', '.join(kinds)}")
        lines += [f"  {_printable(name)}" for name in change.files[:_SHOWN]]
        if change.count > _SHOWN:
            lines.append(f"  and {change.count - _SHOWN:,} more")
    if difference.same_data:
        lines.append("Images and classes are the same.")
    lines.append(
        "The test images are the same: scores can be compared."
        if difference.same_test
        else "The test images are not the same: scores cannot be compared."
    )
    return "\n".join(lines)


class _Row(NamedTuple):
    content: bytes
    name: str
    class_name: str
    split: str


def _paired(old: Counter[_Row], new: Counter[_Row]) -> tuple[list[tuple[_Row, _Row]], list[_Row], list[_Row]]:
    """Pair rows of one content, those first that have most in common; then what is left of the old, and of the new.

    As many as can be keep their class, so that what is relabelled, removed and added is as little as can be.
    """
    pairs: list[tuple[_Row, _Row]] = []
    left, right = sorted(old.elements()), sorted(new.elements())
    alike: tuple[Callable[[_Row], tuple[str, ...]], ...] = (
        lambda row: (row.class_name, row.name),
        lambda row: (row.class_name, row.split),
        lambda row: (row.class_name,),
        lambda row: (row.name,),
        lambda row: (row.split,),
        lambda row: (),
    )
    for key in alike:
        waiting: defaultdict[tuple[bytes, tuple[str, ...]], list[_Row]] = defaultdict(list)
        for row in reversed(left):
            waiting[row.content, key(row)].append(row)
        unpaired = []
        for row in right:
            same = waiting.get((row.content, key(row)))
            if same:
                pairs.append((same.pop(), row))
            else:
                unpaired.append(row)
        left, right = sorted(row for rows in waiting.values() for row in rows), unpaired
    return pairs, left, right


def _in_use(samples: Samples) -> Counter[_Row]:
    columns = zip(samples.digests(), samples.sample_ids, samples.class_names, samples.split, strict=True)
    return Counter(_Row(*row) for row in columns if row[3])


def _test_images(rows: Counter[_Row]) -> Counter[tuple[bytes, str]]:
    result: Counter[tuple[bytes, str]] = Counter()
    for row, count in rows.items():
        if row.split == "test":
            result[row.content, row.class_name] += count
    return result


def _newly_left_out(before: Samples, after: Samples) -> list[tuple[str, str]]:
    # unreadable files have no content of their own, so that their names must do
    def key(samples: Samples, index: int, digest: bytes) -> tuple[bytes, str]:
        return digest, "" if any(digest) else samples.sample_ids[index]

    known = Counter(key(before, i, digest) for i, digest in enumerate(before.digests()) if not before.split[i])
    result = []
    for index, digest in enumerate(after.digests()):
        if after.split[index]:
            continue
        if known[key(after, index, digest)] > 0:
            known[key(after, index, digest)] -= 1
        else:
            result.append((after.sample_ids[index], after.left_out[index]))
    return result


def _change(images: Sequence[tuple[str, str]]) -> Change:
    kinds = Counter(kind for _, kind in images if kind)
    ranked = dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
    return Change(count=len(images), files=tuple(sorted(name for name, _ in images)[:_NAMED]), kinds=ranked)


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)
