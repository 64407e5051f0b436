"""The audit as a page with pictures, as JSON with every name, and as a summary in Markdown.

Names of files and classes are whatever somebody has given: each is made visible (see `recognition.audit.names`) and
escaped, the page runs no script, and its policy forbids the browser to run any or to load anything.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from recognition.audit.audited import Audited, Groups
from recognition.audit.inspected import Inspected
from recognition.audit.names import visible
from recognition.families import Kind
from recognition.pixels import Pixels
from recognition.records import Finding
from recognition.splits import SPLITS

THUMBNAILS = 24
"""Pictures for each finding at most."""
THUMBNAIL_SIDE = 96
ROOM = 3_500_000
"""Bytes of all pictures and names of a page together; what else is on it stays below 1.2 MB."""

_FINDINGS = 60
_COPIES_SHOWN = 4
_NAMES = 100
_CLASSES = 300
_MARKDOWN_FINDINGS = 40
_COUNTED: dict[Kind, str] = {
    "classes": "",
    "boxes": "boxes",
    "instances": "masks",
    "masks": "images that show it",
}
"""What the table of classes counts where it is not images."""
_MARKUP = " " * 100
"""About as much as the page has around a name or a fact."""


def write_report(audited: Audited, inspected: Inspected, folder: Path, source: str) -> None:
    """Write ``report.html`` (one page that needs nothing else, at most 5 MB) and ``audit.json`` (all names)."""
    (folder / "report.html").write_text(_page(audited, inspected, source), encoding="utf-8")
    with (folder / "audit.json").open("w", encoding="ascii") as file:
        for part in json.JSONEncoder(indent=1).iterencode(_content(audited, inspected, source)):
            file.write(part)


def markdown(audited: Audited, source: str) -> str:
    """A summary for where pages cannot be shown; what comes from names is no Markdown and no HTML."""
    counts = ", ".join(f"{count:,} {name}" for name, count in audited.counts.items())
    lines = [f"# Audit of {_plain(source)}", "", f"{counts}, {len(audited.left_out):,} left out.", ""]
    if audited.failures:
        lines += ["**The images cannot be used as they are**, by the policies of `data.audit`.", ""]
    if not audited.findings:
        return "\n".join([*lines, "Nothing wrong was found.", ""])
    lines += ["| finding | policy | count | |", "| --- | --- | ---: | --- |"]
    for finding in audited.findings[:_MARKDOWN_FINDINGS]:
        message = _plain(visible(finding.message, 1000))
        lines.append(f"| {_plain(finding.kind)} | {finding.policy} | {finding.count:,} | {message} |")
    hidden = len(audited.findings) - _MARKDOWN_FINDINGS
    if hidden > 0:
        lines += ["", f"And {hidden:,} more findings, see the report."]
    return "\n".join([*lines, ""])


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: whatever has a meaning in it becomes a character reference."""
    escaped = re.sub(r"[\\`*_{}\[\]<>#|~&@$]", lambda found: f"&#{ord(found[0])};", visible(text, 2000))
    # bare addresses become links
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;")


def _content(audited: Audited, inspected: Inspected, source: str) -> dict[str, Any]:
    """What audit.json holds."""
    names = inspected.sample_ids

    def image(index: int) -> dict[str, str]:
        told = {"file": names[index], "class": inspected.class_names[inspected.labels[index]]}
        told |= {"given_split": inspected.splits[index], "split": str(audited.split[index])}
        if index in audited.left_out:
            told["left_out"] = audited.left_out[index]
        if index in inspected.unreadable:
            told["reason"] = inspected.unreadable[index]
        return told

    def content(finding: Finding, members: Groups) -> dict[str, Any]:
        copies = any(len(group) > 1 for group in members)
        return {
            "kind": finding.kind,
            "policy": finding.policy,
            "count": finding.count,
            "message": finding.message,
            "files": [names[index] for group in members for index in group] if members else list(finding.files),
            "groups": [[image(index) for index in group] for group in members] if copies else [],
        }

    return {
        "source": source,
        "images": len(inspected),
        "failures": audited.failures,
        "counts": audited.counts,
        "class_counts": audited.object_counts or audited.class_counts,
        "findings": [content(*entry) for entry in zip(audited.findings, audited.members, strict=True)],
        "left_out": [image(index) for index in sorted(audited.left_out)],
    }


@dataclass(frozen=True)
class _Picture:
    name: str
    url: str
    """Empty where there is no picture."""
    facts: tuple[str, ...]


@dataclass(frozen=True)
class _Section:
    number: int
    title: str
    policy: str
    count: int
    message: str
    groups: list[list[_Picture]]
    names: list[str]
    unnamed: int


def _page(audited: Audited, inspected: Inspected, source: str) -> str:
    pictures = _Pictures(audited, inspected)
    entries = list(zip(audited.findings, audited.members, strict=True))
    sections = [
        _section(number, finding, members, pictures)
        for number, (finding, members) in enumerate(entries[:_FINDINGS], start=1)
    ]
    folder = resources.files("recognition.audit")
    style = (folder / "report.css").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    per_class = audited.object_counts or audited.class_counts
    class_names = sorted(per_class["train"], key=lambda name: -sum(per_class[split][name] for split in SPLITS))
    rows = [(visible(name), [per_class[split][name] for split in SPLITS]) for name in class_names[:_CLASSES]]
    return template.render(
        source=visible(source, 300),
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        images=len(inspected),
        left_out=len(audited.left_out),
        failures=[visible(line, 600) for line in audited.failures.split("\n")[:60]] if audited.failures else [],
        sections=sections,
        more_findings=len(entries) - len(sections),
        splits=list(SPLITS),
        counts=[audited.counts[name] for name in SPLITS],
        rows=rows,
        more_classes=len(class_names) - len(rows),
        counted=_COUNTED[inspected.annotated.kind if inspected.annotated else "classes"],
    )


def _section(number: int, finding: Finding, members: Groups, pictures: _Pictures) -> _Section:
    shown: list[tuple[int, ...]] = []
    room = THUMBNAILS
    for group in members:
        shown.append(group[: min(_COPIES_SHOWN, room)])
        room -= len(shown[-1])
        if room <= 0:
            break
    groups = pictures.of(shown)
    names = [name for name in map(visible, finding.files[:_NAMES]) if pictures.room_for(name)]
    total = sum(len(group) for group in members) or len(finding.files)
    return _Section(
        number=number,
        title=visible(finding.kind.replace("_", " ")),
        policy=finding.policy,
        count=finding.count,
        message=visible(finding.message, 2000),
        groups=groups,
        names=names,
        unnamed=total - len(names),
    )


class _Pictures:
    """Makes small pictures, until the page is large enough."""

    def __init__(self, audited: Audited, inspected: Inspected) -> None:
        self.audited, self.inspected, self.left = audited, inspected, ROOM

    def room_for(self, *texts: str) -> bool:
        """Whether the page has room for these texts, which is then taken."""
        size = sum(len(html.escape(text).encode("utf-8")) for text in texts) + 20
        if size > self.left:
            return False
        self.left -= size
        return True

    def of(self, groups: list[tuple[int, ...]]) -> list[list[_Picture]]:
        indices = [index for group in groups for index in group]
        if not indices:
            return []
        pixels = self.inspected.images[np.array(indices, np.int64)]
        made = {index: self._picture(index, image) for index, image in zip(indices, pixels, strict=True)}
        return [[picture for index in group if (picture := made[index])] for group in groups if made[group[0]]]

    def _picture(self, index: int, image: Pixels) -> _Picture | None:
        inspected = self.inspected
        url = "" if index in inspected.unreadable else _data_url(image)
        given, split = inspected.splits[index], str(self.audited.split[index])
        where = f"{given} → {split}" if given and split and given != split else split or given
        shown = inspected.annotated.told(index) if inspected.annotated else ""
        facts = [shown.rpartition(" (")[0] or inspected.class_names[inspected.labels[index]], where]
        row = inspected.measures[index]
        if index in inspected.unreadable:
            facts.append(inspected.unreadable[index])
        else:
            facts.append(f"{int(row['width'])} × {int(row['height'])}")
        if index in self.audited.left_out:
            facts.append("left out")
        name = visible(inspected.sample_ids[index])
        told = tuple(visible(fact) for fact in facts if fact)
        return _Picture(name, url, told) if self.room_for(name, name, url, *told, *[_MARKUP] * 4) else None


def _data_url(image: Pixels) -> str:
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    small = max(picture.size) <= THUMBNAIL_SIDE // 2
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    out = io.BytesIO()
    if small:
        picture.save(out, "PNG")
    else:
        picture.save(out, "JPEG", quality=80)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
