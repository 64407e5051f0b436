"""Tables of paths and labels become labelled images; what is no such table is refused by its line."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_images import encoded, folder_of, pixels, write, zipped

from recognition import preparation, sources
from recognition.access import Access
from recognition.data_settings import Data, Limits
from recognition.errors import ConfigurationError, DataError, DownloadError, RecognitionError
from recognition.pixels import NotAnImageError
from recognition.sources import Images, check_source, open_source, signature
from recognition.sources.manifests import _joined

PETS = "path,label\ncat/0.png,cat\ncat/1.png,cat\ndog/0.png,dog\ndog/1.png,dog\n"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder with two images of cats and two of dogs."""
    return folder_of(tmp_path / "pets", "cat", "dog", count=2)


def opened(pets: Path, text: str | bytes, name: str = "pets.csv", **settings: object) -> Images:
    path = write(pets / name, text if isinstance(text, bytes) else text.encode())
    return open_source(Data.model_validate({"source": str(path), **settings}), pets.parent / "downloads")


def described(images: Images) -> list[tuple[str, str, str]]:
    """Sample id, class and split of each image."""
    names = [images.class_names[label] for label in images.labels]
    return list(zip(images.sample_ids, names, images.splits, strict=True))


def reason(images: Images, sample_id: str) -> str:
    assert images.read is not None
    with pytest.raises(NotAnImageError) as caught:
        images.read(images.sample_ids.index(sample_id))
    return caught.value.reason


# what is read


def test_paths_are_relative_to_the_manifest_and_labels_are_text(pets: Path) -> None:
    images = opened(pets, PETS)
    assert described(images) == [
        ("cat/0.png", "cat", ""),
        ("cat/1.png", "cat", ""),
        ("dog/0.png", "dog", ""),
        ("dog/1.png", "dog", ""),
    ]
    assert images.read is not None
    assert [images.read(index) for index in images.reading_order] == [
        (pets / sample_id).read_bytes() for sample_id in images.sample_ids
    ]
    assert images.groups == ()
    assert images.metadata == {}


def test_absolute_paths_and_file_addresses_are_read(pets: Path) -> None:
    images = opened(pets, f"path,label\n{pets}/cat/0.png,cat\n{(pets / 'dog/0.png').as_uri()},dog\n")
    assert images.read is not None
    assert [images.read(0), images.read(1)] == [(pets / name).read_bytes() for name in ("cat/0.png", "dog/0.png")]


def test_splits_groups_and_all_other_columns_are_kept(pets: Path) -> None:
    images = opened(
        pets,
        'Image,Class,SPLIT,group,age,note\ncat/0.png,cat,Train,p1,3,"a, b"\ncat/1.png,cat,validation,p2,4,=1+1\n'
        "dog/0.png,dog,,p1,,\ndog/1.png,dog,TESTING,p3,007,x\n",
    )
    assert images.splits == ("train", "val", "", "test")
    assert images.groups == ("p1", "p2", "p1", "p3")
    assert images.metadata == {"age": ("3", "4", "", "007"), "note": ("a, b", "=1+1", "", "x")}


def test_columns_can_be_named(pets: Path) -> None:
    text = "a,b,c,d,label\ncat/0.png,cat,train,x,1\ndog/0.png,dog,train,y,1\n"
    images = opened(pets, text, path_column="a", label_column="B", split_column="c", group_column="d")
    assert described(images) == [("cat/0.png", "cat", "train"), ("dog/0.png", "dog", "train")]
    assert images.groups == ("x", "y")
    assert images.metadata == {"label": ("1", "1")}
    with pytest.raises(ConfigurationError, match=r"data\.path_column 'e' is no column .*; it has 'a', 'b', 'c', 'd'"):
        opened(pets, text, path_column="e")
    with pytest.raises(ConfigurationError, match=r"'a' .* cannot be two things"):
        opened(pets, text, path_column="a", label_column="a")


def test_columns_that_are_not_known_are_listed(pets: Path) -> None:
    with pytest.raises(DataError, match=r"no column is known as that of paths .* has 'a', 'label'.*data\.path_column"):
        opened(pets, "a,label\ncat/0.png,cat\n")
    with pytest.raises(DataError, match=r"no column is known as that of labels.*data\.label_column"):
        opened(pets, "path,b\ncat/0.png,cat\n")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_usual_ways_to_write_a_table_are_understood(pets: Path, separator: str, start: bytes, end: str) -> None:
    text = PETS.replace(",", separator).replace("\n", end) + end
    name = "pets.tsv" if separator == "\t" else "pets.csv"
    assert described(opened(pets, start + text.encode(), name)) == described(opened(pets, PETS))


def test_numbers_stay_as_they_are_written(pets: Path) -> None:
    images = opened(pets, "path,label\ncat/0.png,3\ncat/1.png,03\ndog/0.png,3.0\ndog/1.png,1e3\n")
    assert images.class_names == ("03", "1e3", "3", "3.0")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([3, 3, 10, 10], ("10", "3")),
        ([3.0, 3.0, 10.0, 2.5], ("10", "2.5", "3")),
        (np.array([1, 0, 1, 0], np.uint8), ("0", "1")),
        ([True, False, True, False], ("False", "True")),
        (pd.Categorical(["b", "b", "a", "a"]), ("a", "b")),
    ],
)
def test_labels_of_a_parquet_file_become_text(pets: Path, labels: Sequence[object], names: tuple[str, ...]) -> None:
    table = pd.DataFrame(
        {"path": ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"], "label": labels, "age": [1, 2, None, 4]}
    )
    table.to_parquet(pets / "pets.parquet")
    images = open_source(Data(source=str(pets / "pets.parquet")), pets)
    assert images.class_names == names
    assert images.metadata == {"age": ("1", "2", "", "4")}


def test_csv_and_parquet_give_the_same_images(pets: Path) -> None:
    from_text = opened(pets, PETS)
    pd.read_csv(pets / "pets.csv").to_parquet(pets / "pets.parquet")
    from_parquet = open_source(Data(source=str(pets / "pets.parquet")), pets)
    assert described(from_parquet) == described(from_text)
    assert from_parquet.fingerprint == from_text.fingerprint


def test_a_column_without_a_name_is_a_row_number(pets: Path) -> None:
    images = opened(pets, "," + PETS.replace("\ncat", "\n0,cat").replace("\ndog", "\n0,dog"))
    assert images.metadata == {}
    assert len(images) == 4


def test_names_with_quotes_newlines_and_formulas_are_only_text(pets: Path) -> None:
    names = ['say "hi"\n.png', "=HYPERLINK(0).png", "+1.png", "@x.png", "-a.png", "<script>.png", "日本 🐈.png"]
    target = io.StringIO()
    writer = csv.writer(target)
    writer.writerow(["path", "label"])
    for number, name in enumerate(names):
        write(pets / name, encoded(pixels(number)))
        writer.writerow([name, ["=cat", "@dog"][number % 2]])
    images = opened(pets, target.getvalue())
    assert images.class_names == ("=cat", "@dog")
    assert images.sample_ids == tuple(sorted(names))
    assert images.read is not None
    assert all(images.read(index) for index in range(len(names)))


def test_paths_written_on_windows_are_found(pets: Path) -> None:
    images = opened(pets, PETS.replace("/", "\\"))
    assert images.read is not None
    assert images.read(0) == (pets / "cat/0.png").read_bytes()


# rows that disagree


def test_rows_that_repeat_another_are_taken_once_and_noted(pets: Path) -> None:
    images = opened(pets, PETS + "cat/0.png,cat\ncat/0.png,cat\n")
    assert len(images) == 4
    (finding,) = images.findings
    assert (finding.kind, finding.count, finding.files) == ("repeated_rows", 2, ("cat/0.png", "cat/0.png"))


def test_an_audit_says_that_rows_repeat_also_after_one_of_the_same_rows_without_repeats(
    pets: Path, house: Path
) -> None:
    path = write(pets / "pets.csv", PETS.encode())
    # so few images are found wanting otherwise
    data = Data.model_validate({"source": str(path), "audit": {"missing_class": "warn"}})

    def repeats() -> list[tuple[int, str]]:
        audited = preparation.examine(data, preparation.locate(data))
        return [(found.count, found.message) for found in audited.findings if found.kind == "repeated_rows"]

    assert repeats() == []
    write(path, (PETS + "cat/0.png,cat\n" * 3).encode())
    assert repeats() == [(3, "Rows that repeat another row (3): taken once.")]
    write(path, PETS.encode())
    assert repeats() == []


def test_a_path_under_two_labels_stays_twice_for_the_audit_to_find(pets: Path) -> None:
    rows = PETS.splitlines(keepends=True)
    images = opened(pets, PETS + "cat/0.png,dog\n")
    assert described(images)[:2] == [("cat/0.png", "cat", ""), ("cat/0.png#2", "dog", "")]
    assert images.read is not None
    assert images.read(0) == images.read(1)
    turned = opened(pets, rows[0] + "cat/0.png,dog\n" + "".join(rows[:0:-1]))
    assert (described(turned), turned.fingerprint) == (described(images), images.fingerprint)


def test_missing_files_are_unreadable_images(pets: Path) -> None:
    images = opened(pets, PETS + "cat/7.png,cat\ncat,cat\n")
    assert reason(images, "cat/7.png") == "does not exist"
    assert reason(images, "cat") == "is no regular file"
    assert len(images) == 6


def test_a_file_above_the_limit_is_no_image(pets: Path) -> None:
    write(pets / "cat" / "1.png", bytes(2_000_000))
    images = opened(pets, PETS, limits={"file_megabytes": 1})
    assert reason(images, "cat/1.png") == "is too large for an image file (2 MB, data.limits.file_megabytes is 1)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PETS + "cat/2.png,\ncat/3.png, \n", r"lines 6, 7: column 'label' is empty"),
        (PETS + ",cat\n", r"line 6: column 'path' is empty"),
        ("path,label\ncat/0.png,cat\ncat/1.png,cat\n", r"all images have the label 'cat': at least two"),
        (
            "path,label,split\ncat/0.png,cat,train\ndog/0.png,dog,train\ndog/1.png,emu,test\n",
            r"line 4: unknown label 'emu'. No row for training",
        ),
        ("path,label,split\ncat/0.png,cat,train\ndog/0.png,dog,dev\n", r"line 3: 'dev' in column 'split' is no split"),
        ("path,label,split\ncat/0.png,cat,val\ndog/0.png,dog,test\n", r"no row is for training"),
        ("", r"is empty"),
        (" \n\n", r"is empty"),
        ("path,label\n", r"has a header but no rows"),
        ("path,label,label\na,b,c\n", r"has 2 columns 'label'"),
        ("path,label\ncat/0.png\n", r"line 2: 1 cells, but the header has 2"),
        (PETS + "\ncat/0.png,cat,big\n", r"line 7: 3 cells, but the header has 2"),
        (PETS + '"cat/0.png,cat\n', r"line 6: a double quote is opened, but never closed"),
        (PETS + '"cat/0.png"x,cat\n', r"line 6: text follows a closing double quote"),
        (PETS + f"{'x' * 200_000},cat\n", r"line 6: a cell is longer than 131,072 characters"),
        (PETS + "cat/\0.png,cat\n", r"line 6 holds a NUL byte"),
        (PETS.replace("\n", "\r"), r"line 1: a line ends with a carriage return alone"),
        (PETS + "ftp://host/0.png,cat\n", r"line 6: 'ftp://host/0.png': ftp:// cannot be fetched from"),
        (PETS.encode("utf-16"), r"line 1: it is UTF-16, not UTF-8. Save it as UTF-8"),
        (PETS.encode() + "cat/ü.png,cat\n".encode("latin-1"), r"line 6: byte 0xfc is not UTF-8. Save it as UTF-8"),
    ],
)
def test_what_is_no_table_of_images_is_refused_by_line(pets: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(pets, text)


def test_a_manifest_of_more_rows_than_the_limit_is_refused(pets: Path) -> None:
    with pytest.raises(DataError, match=r"more than 3 rows.*data\.limits\.files"):
        opened(pets, PETS, limits={"files": 3})
    pd.read_csv(pets / "pets.csv").to_parquet(pets / "pets.parquet")
    with pytest.raises(DataError, match=r"more than 3 rows"):
        open_source(Data(source=str(pets / "pets.parquet"), limits=Limits(files=3)), pets)


def test_parquet_files_that_are_damaged_or_hold_the_images_themselves_are_refused(pets: Path) -> None:
    path = write(pets / "a.parquet", b"PAR1 but no more")
    with pytest.raises(DataError, match=r"a\.parquet is no whole Parquet file"):
        open_source(Data(source=str(path)), pets)
    pd.DataFrame({"image": [{"bytes": b"x"}] * 2, "label": [0, 1]}).to_parquet(path)
    with pytest.raises(DataError, match=r"no column is known as that of paths .*'image' holds values of type struct"):
        open_source(Data(source=str(path)), pets)


# identity


def test_the_fingerprint_follows_rows_and_files_but_not_order_or_place(pets: Path, tmp_path: Path) -> None:
    first = opened(pets, PETS).fingerprint
    rows = PETS.splitlines(keepends=True)
    assert opened(pets, "".join([rows[0], *reversed(rows[1:])])).fingerprint == first
    shutil.copytree(pets, tmp_path / "copy")
    assert opened(tmp_path / "copy", PETS).fingerprint == first
    assert opened(pets, PETS.replace("cat/1.png,cat", "cat/1.png,dog")).fingerprint != first
    write(pets / "cat" / "0.png", encoded(pixels(99)))
    assert opened(pets, PETS).fingerprint != first


def test_a_known_fingerprint_saves_reading_the_files(pets: Path) -> None:
    path = write(pets / "pets.csv", PETS.encode())
    seen: list[str] = []
    images = open_source(
        Data(source=str(path)), pets, lambda done, total, what: seen.append(what), fingerprint="manifest:known"
    )
    assert (images.fingerprint, seen) == ("manifest:known", [])


def test_the_signature_changes_with_the_manifest_and_the_files_it_names(pets: Path) -> None:
    path = write(pets / "pets.csv", PETS.encode())
    data = Data(source=str(path))
    first = signature(data)
    assert signature(data) == first
    write(pets / "cat" / "unlisted.png", b"x")
    assert signature(data) == first
    os.utime(pets / "cat" / "0.png", ns=(1, 1))
    second = signature(data)
    assert second != first
    write(path, PETS.replace("dog\n", "emu\n").encode())
    assert signature(data) not in (first, second)
    write(path, b"\xff")
    assert signature(data) not in (first, second)


# groups


def test_a_pattern_finds_groups_in_folders_archives_and_manifests(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number, name in enumerate(["cat/p1_0.png", "cat/p2_0.png", "dog/p1_1.png", "dog/none.png"]):
        write(root / name, encoded(pixels(number)))
    text = "path,label\ncat/p1_0.png,cat\ncat/p2_0.png,cat\ndog/p1_1.png,dog\ndog/none.png,dog\n"
    for source in (root, zipped(root, tmp_path / "a.zip"), write(root / "a.csv", text.encode())):
        for pattern, groups in ((r"(p\d+)_", ("p1", "p2", "", "p1")), (r"p\d+", ("p1", "p2", "", "p1"))):
            images = open_source(Data(source=str(source), group_pattern=pattern), tmp_path)
            images.close()
            assert images.sample_ids == ("cat/p1_0.png", "cat/p2_0.png", "dog/none.png", "dog/p1_1.png")
            assert images.groups == groups
        with pytest.raises(ConfigurationError, match=r"data\.group_pattern 'patient' is found in none of 4 paths"):
            open_source(Data(source=str(source), group_pattern="patient"), tmp_path)


def test_groups_given_twice_are_refused(pets: Path) -> None:
    text = PETS.replace(",", ",x,").replace("x", "group", 1)
    assert opened(pets, text).groups == ("x",) * 4
    assert opened(pets, text, group_pattern=r"^\w+").groups == ("cat", "cat", "dog", "dog")
    with pytest.raises(ConfigurationError, match=r"data\.group_column and data\.group_pattern"):
        opened(pets, text, group_pattern="cat", group_column="group")


# addresses


def test_images_are_fetched_from_their_addresses_once(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def fetch(addresses: Sequence[str], *rest: object, **more: object) -> list[Path | str]:
        asked.append(list(addresses))
        return [pets / "cat/1.png" if "1.png" in address else "HTTP 404 Not Found" for address in addresses]

    monkeypatch.setattr(sources, "fetch_objects", fetch)
    one, two = "https://host/1.png?size=2", "s3://bucket/gone.png"
    images = opened(pets, f"url,label\ncat/0.png,cat\n{one},cat\n{one},dog\n{two},dog\n")
    assert asked == [[one, two]]
    assert images.sample_ids == ("cat/0.png", one, f"{one}#2", two)
    assert images.read is not None
    assert images.read(1) == images.read(2) == (pets / "cat/1.png").read_bytes()
    assert reason(images, two) == "cannot be fetched (HTTP 404 Not Found)"
    with pytest.raises(DownloadError, match=r"None of 2 images could be fetched:\n  gs://a/0: HTTP 404 Not Found\n"):
        opened(pets, "url,label\ngs://a/0,cat\ngs://a/2,dog\n")


def test_paths_in_a_fetched_manifest_are_relative_to_its_address(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(addresses: Sequence[str], *rest: object, **more: object) -> list[Path | str]:
        asked.extend(addresses)
        return [pets / "cat/1.png"] * len(addresses)

    def manifest_of(text: str) -> None:
        monkeypatch.setattr(sources, "fetch_archive", lambda *a, **k: write(tmp_path / "m.csv", text.encode()))
        open_source(Data(source="https://host/a%20b/m.csv?key=1"), tmp_path)

    monkeypatch.setattr(Access, "check_address", lambda *arguments: None)
    monkeypatch.setattr(sources, "fetch_objects", fetch)
    manifest_of("path,label\ncat 1#?.png,cat\n../x/./é.png,dog\nhttps://other/1.png,cat\n")
    assert asked == [
        "https://host/a%20b/cat%201%23%3F.png",
        "https://host/x/%C3%A9.png",
        "https://other/1.png",
    ]
    for path in (f"{pets}/cat/0.png", (pets / "cat/0.png").as_uri(), "//other/1.png"):
        with pytest.raises(DataError, match=r"line 3: .*: a manifest that was fetched may name no local files"):
            manifest_of(f"path,label\ndog.png,dog\n{path},cat\n")
    with pytest.raises(DataError, match=r"line 2: '\.\./\.\./1\.png': it leads outside of where the manifest lies"):
        manifest_of("path,label\n../../1.png,dog\n2.png,cat\n")


def test_addresses_beside_a_manifest_in_a_bucket() -> None:
    assert _joined("s3://bucket/a/b/m.csv", "c/1 %.png") == "s3://bucket/a/b/c/1 %.png"
    assert _joined("s3://bucket/a/b/m.csv", "../../1.png") == "s3://bucket/1.png"
    assert _joined("gs://bucket/m.csv", "../other/1.png") == ""


# access


def test_a_manifest_names_nothing_outside_the_allowed_folders(pets: Path, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.png", encoded(pixels(1)))
    access = Access(restricted=True, roots=(pets,))
    path = write(pets / "pets.csv", PETS.encode())
    open_source(Data(source=str(path)), pets, access=access)
    (pets / "cat" / "link.png").symlink_to(secret)
    for name in ("../secret.png", str(secret), secret.as_uri(), "cat/link.png"):
        write(path, f"{PETS}{name},cat\n".encode())
        with pytest.raises(ConfigurationError):
            open_source(Data(source=str(path)), pets, access=access)
    with pytest.raises(ConfigurationError):
        check_source(Data(source=str(write(tmp_path / "a.csv", PETS.encode()))), access)


# anything


CELLS = st.one_of(
    st.sampled_from(
        ["", "cat", "dog", "cat/0.png", "dog/0.png", "train", "test", "=1+1", "-1", "@x", "3", "3.0", "NaN"]
    ),
    st.sampled_from(
        ["../x.png", "/etc/passwd", "file:///etc/passwd", "x\x00.png", "a\nb", '"', "C:\\x.png", "~/x", "x" * 5000]
    ),
    st.text(max_size=12),
)
HEADERS = st.lists(
    st.one_of(st.sampled_from(["path", "label", "split", "group", "Path", "LABEL", "", "a"]), st.text(max_size=5)),
    min_size=1,
    max_size=5,
)
BOUNDED = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def is_handled(path: Path) -> None:
    """Only our own errors come out of it, and only images or reasons."""
    data = Data(source=str(path), limits=Limits(files=20))
    signature(data)
    try:
        images = open_source(data, path.parent)
    except RecognitionError:
        return
    assert len(set(images.sample_ids)) == len(images)
    assert images.read is not None
    for index in images.reading_order:
        try:
            images.read(index)
        except NotAnImageError:
            continue


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("manifests"), "cat", "dog", count=1)


@BOUNDED
@given(
    known=st.booleans(),
    header=HEADERS,
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=5), max_size=8),
    square=st.booleans(),
    kind=st.sampled_from([",", ";", "\t"]),
)
def test_any_rows_are_read_or_refused(
    folder: Path, known: bool, header: list[str], rows: list[list[str]], square: bool, kind: str
) -> None:
    if known:
        header = ["path", "label", "split", "group", *header][: max(2, len(header))]
    if square:
        rows = [(row * len(header))[: len(header)] for row in rows]
    target = io.StringIO(newline="")
    csv.writer(target, delimiter=kind).writerows([header, *rows])
    is_handled(write(folder / "any.csv", target.getvalue().encode("utf-8", "surrogatepass")))


@BOUNDED
@given(
    start=st.sampled_from([b"", b"\xef\xbb\xbf", b"path,label\n", PETS.encode(), b"PAR1"]),
    rest=st.one_of(st.binary(max_size=80), st.text(alphabet='catdog/.,;"\n\r\t\x00é', max_size=60).map(str.encode)),
    name=st.sampled_from(["any.csv", "any.tsv", "any.parquet"]),
)
def test_any_bytes_are_read_or_refused(folder: Path, start: bytes, rest: bytes, name: str) -> None:
    is_handled(write(folder / name, start + rest))


@BOUNDED
@given(
    rows=st.lists(st.tuples(CELLS, st.one_of(st.none(), CELLS, st.just("cat"))), min_size=1, max_size=8),
    damage=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=2),
)
def test_any_parquet_file_is_read_or_refused(
    folder: Path, rows: list[tuple[str, str | None]], damage: list[tuple[float, bytes]]
) -> None:
    path = folder / "rows.parquet"
    pd.DataFrame(rows, columns=["path", "label"]).to_parquet(path)
    content = bytearray(path.read_bytes())
    for place, raw in damage:
        start = int(place * len(content))
        content[start : start + len(raw)] = raw
    is_handled(write(path, bytes(content)))
