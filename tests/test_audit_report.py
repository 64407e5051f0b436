"""The audit's report: what it shows, that nothing in it can run, and that it stays small."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inspected_images import inspected, photo
from PIL import Image

from flows.commands.summaries import print_audit
from recognition.audit import Audited, audit, markdown, write_report
from recognition.audit.inspected import Inspected
from recognition.data_settings import Audit, Data
from recognition.records import AuditedData, Finding

PHOTOS = [photo(seed) for seed in range(40)]
HOSTILE = [
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "' onmouseover='alert(1)' x='.png",
    "javascript:alert(1).png",
    "</style><script>alert(1)</script>",
    "</title><svg onload=alert(1)>",
    "line\nbreak\r\ttab\0nul\x1b[31m.png",
    "\u202egnp.exe\u2066\u200b.png",
    "{{ 7 * 7 }}{% raw %}.png",
    "bad\udcff\ud800.png",
    "&lt;script&gt;&#60;b&#62;.png",
    "名前 ü é 🙂.png",
    "x" * 5000,
]


class Page(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def written(
    audited: Audited, source: Inspected, folder: Path, name: str = "photos"
) -> tuple[Page, dict[str, Any], str]:
    write_report(audited, source, folder, name)
    content = (folder / "report.html").read_text(encoding="utf-8")
    return Page(content), json.loads((folder / "audit.json").read_text(encoding="ascii")), content


def hostile() -> Inspected:
    """Images and classes with hostile names, in every kind of finding that shows names."""
    names = [f"{index}.png" for index in range(40)]
    names[: len(HOSTILE)] = HOSTILE
    every = list(range(len(HOSTILE)))
    return inspected(
        [*PHOTOS[:20], *PHOTOS[:20]],
        [*([0, 1] * 10), *([0, 1] * 8), 1, 0, 1, 0],
        names=names,
        class_names=HOSTILE[:2],
        splits=["train"] * 20 + ["test"] * 20,
        groups=[HOSTILE[0]] * 40,
        remarks={"animated": every, "wrong_extension": every, "palette": every},
        findings=(Finding(kind="<b>kind", message="\n".join(HOSTILE[:9]), files=tuple(HOSTILE[:9]), count=9),),
    )


def test_no_name_becomes_markup_and_the_page_can_run_nothing(tmp_path: Path) -> None:
    source = hostile()
    for policies in (Audit(), Audit(animated="fail", conflicting_labels="fail", leaks="warn")):
        page, _, content = written(audit(source, Data(audit=policies)), source, tmp_path, HOSTILE[0])
        allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "table", "thead", "tbody"}
        allowed |= {"tfoot", "tr", "th", "td", "a", "span", "section", "figure", "figcaption", "img", "bdi", "details"}
        assert {tag for tag, _ in page.elements} <= allowed | {"summary", "ul", "li"}
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
            for name in ("href", "src", "action"):
                if name in attributes:
                    pattern = r"#finding-\d+" if tag == "a" else r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+"
                    assert re.fullmatch(pattern, attributes[name])
        assert len(page.all("style")) == 1
        assert content.count("<style>") == 1
        policy = page.all("meta")[1]
        assert policy["http-equiv"] == "Content-Security-Policy"
        assert "default-src 'none'" in policy["content"]
        assert "script-src 'none'" in policy["content"]


def test_the_page_allows_its_own_style_by_digest(tmp_path: Path) -> None:
    source = inspected(PHOTOS)
    page, _, content = written(audit(source, Data()), source, tmp_path)
    style = content.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page.all("meta")[1]["content"]


def test_hostile_names_are_shown_visibly(tmp_path: Path) -> None:
    source = hostile()
    page, content, _ = written(audit(source, Data()), source, tmp_path)
    for name in HOSTILE[:6]:
        assert name in page.text
    assert r"line\nbreak\r\ttab\x00nul\x1b[31m.png" in page.text
    assert r"\u202egnp.exe\u2066\u200b.png" in page.text
    assert r"bad\udcff\ud800.png" in page.text
    assert "名前 ü é 🙂.png" in page.text
    assert "{{ 7 * 7 }}" in page.text
    unprintable = {character for character in page.text if not character.isprintable()}
    assert unprintable <= {"\n"}
    assert "x" * 1000 not in page.text

    animated = next(finding for finding in content["findings"] if finding["kind"] == "animated")
    assert animated["files"] == HOSTILE, "the JSON file has names as they are"


def test_every_picture_can_be_decoded_and_has_a_name(tmp_path: Path) -> None:
    images = [*PHOTOS, PHOTOS[3], None]
    source = inspected(images, [*([0, 1] * 20), 0, 1], splits=["train"] * 36 + ["test"] * 6, side=200)
    audited = audit(source, Data(audit=Audit(unreadable="quarantine")))
    page, _, content = written(audited, source, tmp_path)
    pictures = page.all("img")
    assert len(pictures) == 2, "the two copies; a file that cannot be read has no picture"
    for attributes in pictures:
        assert attributes["alt"] in ("dog/00003.png", "cat/00040.png")
        data = base64.b64decode(attributes["src"].split(",")[1])
        assert max(Image.open(BytesIO(data)).size) <= 96
    assert "is cut off: its end is missing" in page.text
    assert "conflicting labels" in page.text
    assert content.index("dog/00003.png") < content.index("cat/00040.png")


def test_small_images_are_shown_pixel_by_pixel(tmp_path: Path) -> None:
    images = [photo(seed, 12, 12, 1) for seed in range(40)]
    source = inspected(images, remarks={"animated": [4]}, side=12)
    page, _, _ = written(audit(source, Data()), source, tmp_path)
    shown = next(attributes for attributes in page.all("img") if attributes["alt"] == "cat/00004.png")
    decoded = np.asarray(Image.open(BytesIO(base64.b64decode(shown["src"].split(",")[1]))))
    assert (decoded == images[4][:, :, 0]).all()


def test_findings_and_classes_are_tables(tmp_path: Path) -> None:
    source = inspected(PHOTOS, remarks={"animated": [1, 2]}, splits=["train"] * 20 + ["val"] * 10 + ["test"] * 10)
    page, content, _ = written(audit(source, Data()), source, tmp_path)
    assert re.search(r"animated\s*warn\s*2", page.text)
    assert re.search(r"cat\s*10\s*5\s*5\s*20", page.text)
    assert re.search(r"All classes\s*20\s*10\s*10\s*40", page.text)
    assert content["counts"] == {"train": 20, "val": 10, "test": 10}
    assert content["class_counts"]["val"] == {"cat": 5, "dog": 5}


def test_the_json_file_has_all_names_with_label_and_split(tmp_path: Path) -> None:
    images = [photo(seed, 32, 32) for seed in range(150)]
    source = inspected([*images, *images])
    audited = audit(source, Data(audit=Audit(exact_duplicates="quarantine")))
    _, content, _ = written(audited, source, tmp_path)
    finding = next(finding for finding in content["findings"] if finding["kind"] == "exact_duplicates")
    assert (finding["count"], len(finding["files"]), len(finding["groups"])) == (150, 300, 150)
    first, second = finding["groups"][0]
    assert (first["file"], first["class"]) == ("cat/00000.png", "cat")
    assert first["split"] in ("train", "val", "test")
    assert (second["split"], second["left_out"]) == ("", "exact_duplicates")
    assert len(content["left_out"]) == 150


def test_failures_are_shown(tmp_path: Path) -> None:
    source = inspected([*PHOTOS, None])
    page, content, _ = written(audit(source, Data()), source, tmp_path)
    assert "data.audit.unreadable=quarantine" in page.text
    assert "data.audit.unreadable=quarantine" in content["failures"]


def test_a_clean_set_says_so(tmp_path: Path) -> None:
    source = inspected(PHOTOS, splits=["train"] * 20 + ["val"] * 10 + ["test"] * 10)
    audited = audit(source, Data())
    page, content, _ = written(audited, source, tmp_path)
    assert "Nothing wrong was found." in page.text
    assert content["findings"] == []
    assert "Nothing wrong was found." in markdown(audited, "photos")


def test_the_page_stays_below_5_mb_whatever_the_data(tmp_path: Path) -> None:
    count, classes = 600, 3000
    random = np.random.default_rng(0)
    few = inspected([random.integers(0, 256, (48, 48, 3), dtype=np.uint8) for _ in range(60)])
    source = replace(
        few,
        class_names=tuple(f"{label} " + "<&\"'>" * 60 for label in range(classes)),
        sample_ids=["<&\"'>" * 80 + str(index) for index in range(count)],
        labels=np.arange(count) % classes,
        splits=[""] * count,
        groups=[""] * count,
        measures=np.resize(few.measures, count),
        images=np.broadcast_to(random.integers(0, 256, (96, 96, 3), dtype=np.uint8), (count, 96, 96, 3)),
    )
    every = tuple((index,) for index in range(count))
    names = tuple(source.sample_ids[:100])
    finding = Finding(kind="<&\"'>" * 50, message="<&\"'>" * 1000, files=names, count=count, groups=(names, names))
    audited = Audited(
        findings=(finding,) * 200,
        members=(every, (tuple(range(count)),)) * 100,
        left_out=dict.fromkeys(range(count), "dark"),
        split=np.array(["train"] * count, "<U5"),
        unit=np.arange(count),
        class_counts={name: dict.fromkeys(source.class_names, 10**9) for name in ("train", "val", "test")},
        failures="<&\"'>" * 100_000,
    )
    write_report(audited, source, tmp_path, "<&\"'>" * 10_000)
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    assert len(markdown(audited, "<&\"'>" * 10_000)) < 500_000


def test_the_summary_in_markdown_holds_no_markup_from_names() -> None:
    source = hostile()
    audited = audit(source, Data(audit=Audit(animated="fail")))
    text = markdown(audited, "a|b`c`<b>*d*\n# e [f](http://g) ![h](i)")
    title, *rest = text.split("\n")
    assert title.startswith("# Audit of a&#124;b&#96;c&#96;&#60;b&#62;")
    assert not re.search(r"[<>`|*\[\]]", title)
    rows = [line for line in rest if line.startswith("|")]
    assert len(rows) == 2 + len(audited.findings)
    for row in rows[2:]:
        assert row.count("|") == 5
        assert not re.search(r"[<>`*\[\]\\]", row)
    assert "http://" not in text
    assert "**The images cannot be used as they are**" in text


@pytest.mark.parametrize("channels", [1, 3])
def test_wrong_labels_can_be_added_to_what_was_found(tmp_path: Path, channels: int) -> None:
    source = inspected([photo(seed, channels=channels) for seed in range(40)])
    likely = Finding(kind="wrong_labels", message="1 label is likely wrong.", files=("cat/00004.png",), count=1)
    audited = audit(source, Data()).with_finding(likely, ((4,),))
    page, content, _ = written(audited, source, tmp_path)
    assert "1 label is likely wrong." in page.text
    assert content["findings"][-1]["files"] == ["cat/00004.png"]
    assert [attributes["alt"] for attributes in page.all("img")] == ["cat/00004.png"]


def test_the_command_line_joins_copies_by_an_equals_sign_and_images_of_a_parted_group_by_a_comma(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = ("a.png (train)", "b.png (test)")
    findings = [Finding(kind=kind, message=kind, groups=(pair,), count=1) for kind in ("parted_groups", "leaks")]
    none = Finding(kind="not_images", message="x", files=tuple(f"{index}.txt" for index in range(11)), count=11)
    print_audit(
        AuditedData(
            path=tmp_path,
            store=tmp_path,
            source="x",
            class_names=("cat", "dog"),
            images=2,
            left_out=0,
            findings=(*findings, none),
        )
    )
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "a.png (train), b.png (test)"
    assert lines[3] == "a.png (train) = b.png (test)"
    assert "and more, see the report" in lines
