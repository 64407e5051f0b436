"""Archives made to do harm, or damaged, are refused or read as far as they are whole; nothing else ever happens."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_images import encoded, folder_of, pixels, tarred, write, zipped

from recognition.data_settings import Data, Limits
from recognition.errors import DataError, RecognitionError
from recognition.pixels import NotAnImageError
from recognition.sources import Images, open_source

PICTURES = [encoded(pixels(seed)) for seed in range(4)]
NAMES = ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
WHOLE = list(zip(NAMES, PICTURES, strict=True))
MILLION = 1_000_000


def opened(path: Path, limits: Limits = Limits()) -> Images:  # noqa: B008  # frozen
    return open_source(Data(source=str(path), limits=limits), path.parent / "downloads")


def zip_of(path: Path, members: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, content)
    return path


def tar_of(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def both(tmp_path: Path, members: list[tuple[str, bytes]]) -> list[Path]:
    return [zip_of(tmp_path / "a.zip", members), tar_of(tmp_path / "a.tar", members)]


def reads_of(images: Images) -> dict[str, bytes | str]:
    """For each image its content, or why it cannot be read."""
    assert images.read is not None
    found: dict[str, bytes | str] = {}
    try:
        for index in images.reading_order:
            try:
                found[images.sample_ids[index]] = images.read(index)
            except NotAnImageError as error:
                found[images.sample_ids[index]] = error.reason
    finally:
        images.close()
    assert sorted(found) == list(images.sample_ids)
    return found


# names


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "cat/../../evil.png", "/etc/evil.png", "C:/evil.png", "C:\\evil.png", "..\\evil.png", "cat/.."],
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    for path in both(tmp_path, [*WHOLE, (name, PICTURES[0])]):
        with pytest.raises(DataError, match="leads outside of it"):
            opened(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "a.zip"]


@pytest.mark.parametrize(
    "name", ["new\nline", '"quo\'tes"', "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "日本語 🐈", "a..b", "%00"]
)
def test_odd_names_are_only_labels(tmp_path: Path, name: str) -> None:
    name = name.replace("/", "|")
    for path in both(tmp_path, [(f"{name}/{name}.png", PICTURES[0]), ("dog/0.png", PICTURES[1])]):
        images = opened(path)
        assert set(images.class_names) == {"dog", name}
        assert reads_of(images)[f"{name}/{name}.png"] == PICTURES[0]


def test_a_zero_byte_ends_a_name_in_a_zip_and_nothing_else(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", [("cat/0.pngX.txt", PICTURES[0]), ("dog/0.png", PICTURES[1])])
    path.write_bytes(path.read_bytes().replace(b"0.pngX.txt", b"0.png\0.txt"))
    assert reads_of(opened(path)) == {"cat/0.png": PICTURES[0], "dog/0.png": PICTURES[1]}


def test_names_that_are_no_text_are_marked_and_stay_apart(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", [("cat/XX0.png", PICTURES[0]), ("cat/XX1.png", PICTURES[1]), NAMED_DOG])
    content = path.read_bytes()
    for number, raw in ((0, b"\xff\xfe"), (1, b"\xfe\xff")):
        start = content.index(f"cat/XX{number}.png".encode()) // 512 * 512
        header = bytearray(content[start : start + 512])
        header[:11] = b"cat/" + raw + b".png\0"
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        content = content[:start] + header + content[start + 512 :]
    path.write_bytes(content)
    assert sorted(reads_of(opened(path))) == ["cat/\ufffd\ufffd.png", "cat/\ufffd\ufffd.png#2", "dog/0.png"]


NAMED_DOG = ("dog/0.png", PICTURES[2])


def test_names_without_end_are_refused(tmp_path: Path) -> None:
    for name in ("a/" * 30_000 + "0.png", "cat/" + "x" * 5000 + ".png"):
        for path in both(tmp_path, [*WHOLE, (name, PICTURES[0])]):
            with pytest.raises(DataError, match=r"a name of [\d,]+ characters"):
                opened(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_names_that_come_twice_the_last_is_used_and_it_is_said(tmp_path: Path) -> None:
    for path in both(tmp_path, [*WHOLE, ("./cat/0.png", PICTURES[3])]):
        images = opened(path)
        assert [(finding.kind, finding.files) for finding in images.findings] == [("repeated_names", ("cat/0.png",))]
        assert reads_of(images)["cat/0.png"] == PICTURES[3]


def test_backslashes_of_windows_programs_part_folders(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in zip(NAMES, PICTURES, strict=True):
            info = zipfile.ZipInfo(name.replace("/", "\\"))
            info.create_system = 0
            archive.writestr(info, content)
    assert list(reads_of(opened(path))) == NAMES


# limits


def test_more_files_than_the_limit_are_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "root", "cat", "dog", count=4)
    few = Limits(files=7)
    for path in (root, zipped(root, tmp_path / "a.zip"), tarred(root, tmp_path / "a.tgz")):
        with pytest.raises(DataError, match=r"more than 7 files.*data\.limits\.files"):
            opened(path, few)
        opened(path, Limits(files=11)).close()


def test_a_directory_of_more_entries_than_it_says_is_counted(tmp_path: Path) -> None:
    path = zipped(folder_of(tmp_path / "root", "cat", "dog", count=4), tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    struct.pack_into("<2H", content, len(content) - 14, 1, 1)
    path.write_bytes(content)
    with pytest.raises(DataError, match="more than 7 files"):
        opened(path, Limits(files=7))


def test_a_zip_with_a_64_bit_directory_is_counted_too(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in zip(NAMES, PICTURES, strict=True):
            archive.writestr(name, content)
        start, end = archive.start_dir, archive.fp.tell() if archive.fp else 0
    content = path.read_bytes()
    start, size = content.index(b"PK\x01\x02"), len(content) - 22 - content.index(b"PK\x01\x02")
    end = start + size
    record = b"PK\x06\x06" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, 4, 4, size, start)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, end, 1)
    path.write_bytes(
        content[:end] + record + locator + b"PK\x05\x06" + struct.pack("<4H2LH", *[0xFFFF] * 4, *[2**32 - 1] * 2, 0)
    )
    with pytest.raises(DataError, match="more than 3 files"):
        opened(path, Limits(files=3))
    assert list(reads_of(opened(path))) == NAMES


def test_more_content_than_the_limit_is_refused(tmp_path: Path) -> None:
    noise = [(name, pixels(seed, 300, 300).tobytes()) for seed, name in enumerate(NAMES)]
    packed = [tar_of(tmp_path / f"a.tar.{kind}", noise, f"w:{kind}") for kind in ("gz", "bz2", "xz")]
    for path in (*both(tmp_path, noise), *packed):
        with pytest.raises(DataError, match=r"more than 0\.001.*data\.limits\.gigabytes"):
            opened(path, Limits(gigabytes=0.001))


def test_a_file_above_the_limit_is_no_image(tmp_path: Path) -> None:
    members = [("cat/0.png", bytes(2 * MILLION)), *zip(NAMES[1:], PICTURES[1:], strict=True)]
    for path in both(tmp_path, members):
        found = reads_of(opened(path, Limits(file_megabytes=1)))
        assert found.pop("cat/0.png") == "is too large for an image file (2 MB, data.limits.file_megabytes is 1)"
        assert list(found.values()) == PICTURES[1:]


@contextmanager
def in_little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 30 * MILLION
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_tar_that_unpacks_without_end_is_refused_while_it_is_read(tmp_path: Path, kind: str) -> None:
    open_packed = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}[kind]
    path = tar_of(tmp_path / "a.tar", WHOLE)
    info = tarfile.TarInfo("cat/bomb.png")
    info.size = 400 * MILLION
    bomb = tmp_path / f"a.tar.{kind}"
    with open_packed(bomb, "wb") as file:
        file.write(path.read_bytes()[:-10240] + info.tobuf())
        for _ in range(400):
            file.write(bytes(MILLION))
    assert bomb.stat().st_size < MILLION
    with (
        in_little_memory(),
        pytest.raises(DataError, match=r"times its size, as a decompression bomb does.*data\.limits\.compression"),
    ):
        opened(bomb, Limits(compression=100))


def test_a_header_that_claims_to_be_huge_does_not_fill_the_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XHDTYPE
    info.size = 300 * MILLION
    path = tmp_path / "a.tar.gz"
    for first in (b"", tar_of(tmp_path / "a.tar", WHOLE).read_bytes()[:-10240]):
        with gzip.open(path, "wb") as file:
            file.write(first + info.tobuf())
            for _ in range(300):
                file.write(bytes(MILLION))
        with in_little_memory(), pytest.raises(DataError):
            opened(path)


def test_zip_members_compressed_more_than_the_limit_are_refused(tmp_path: Path) -> None:
    members = [*WHOLE, ("cat/bomb.png", bytes(50 * MILLION))]
    path = zip_of(tmp_path / "a.zip", members, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"'cat/bomb\.png' in the archive .* decompression bomb"):
        opened(path)
    many = [*WHOLE, *((f"cat/{number}.png", bytes(MILLION)) for number in range(10, 30))]
    with pytest.raises(DataError, match=r"The archive .* unpacks to .* decompression bomb"):
        opened(zip_of(tmp_path / "b.zip", many, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_member_larger_than_it_says_is_not_unpacked_further(tmp_path: Path, method: int) -> None:
    bomb = bytes(200 * MILLION)
    path = zip_of(tmp_path / "a.zip", [("cat/0.png", bomb), NAMED_DOG], method)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", len(bomb)), struct.pack("<I", 1000)))
    del bomb
    images = opened(path)
    with in_little_memory():
        found = reads_of(images)
    assert found == {
        "cat/0.png": "cannot be read from the archive (its size is not what the directory says)",
        "dog/0.png": PICTURES[2],
    }


# structure


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", WHOLE)
    content = bytearray(path.read_bytes())
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    struct.pack_into("<I", content, second + 42, 0)
    path.write_bytes(content)
    with pytest.raises(DataError, match="members that overlap"):
        opened(path)


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", WHOLE)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted: unpack it"):
        opened(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_compressed_members_are_read_whole_and_damaged_ones_named(tmp_path: Path, method: int) -> None:
    path = zip_of(tmp_path / "a.zip", WHOLE, method)
    assert reads_of(opened(path)) == dict(WHOLE)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("dog/0.png").header_offset
    content[place + 60] ^= 0xFF
    path.write_bytes(content)
    found = reads_of(opened(path))
    assert str(found.pop("dog/0.png")).startswith("cannot be read from the archive (")
    assert list(found.values()) == [PICTURES[0], PICTURES[1], PICTURES[3]]


def test_a_compression_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", WHOLE, zipfile.ZIP_LZMA)
    assert set(reads_of(opened(path)).values()) == {
        "cannot be read from the archive (it is compressed by lzma; pack it as an ordinary zip)"
    }


def test_a_tar_damaged_in_the_middle_loses_nothing_silently(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", WHOLE)
    content = bytearray(path.read_bytes())
    content[content.index(b"dog/0.png") + 150] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged behind 2 files"):
        opened(path)


def test_a_tar_header_of_negative_size_is_refused(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", WHOLE)
    content = bytearray(path.read_bytes())
    start = content.index(b"dog/0.png")
    content[start + 124 : start + 136] = b"\xff" * 10 + b"\xf0\x00"
    content[start + 148 : start + 156] = b" " * 8
    content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        opened(path)


def test_sparse_members_and_links_of_a_tar_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in zip(NAMES, PICTURES, strict=True):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        sparse = tarfile.TarInfo("cat/sparse.png")
        sparse.pax_headers = {"GNU.sparse.size": str(10**12), "GNU.sparse.map": "0,0"}
        archive.addfile(sparse)
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE):
            info = tarfile.TarInfo(f"cat/{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    images = opened(path)
    assert list(reads_of(images)) == NAMES
    (finding,) = images.findings
    assert finding.kind == "special_files"
    assert finding.files == ("cat/1.png", "cat/2.png", "cat/4.png", "cat/6.png", "cat/sparse.png")


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "inner.zip", [("emu/0.png", PICTURES[0])]).read_bytes()
    path = tar_of(tmp_path / "a.tar", [*WHOLE, ("inner.zip", inner)])
    assert zipfile.is_zipfile(path)
    assert list(reads_of(opened(path))) == NAMES
    assert list(reads_of(opened(zip_of(tmp_path / "a.zip", [("inner.tar", path.read_bytes()), *WHOLE])))) == NAMES


# anything


KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
PARTS = st.sampled_from(
    ["cat", "dog", "train", "test", "images", "masks", ".", "..", "", "C:", "a.png", "b.jpg", "c.xml"]
)
PATHS = st.one_of(
    st.lists(PARTS, min_size=1, max_size=4).map("/".join),
    st.tuples(st.sampled_from(["cat/", "dog/"]), st.text(max_size=8)).map(lambda pair: f"{pair[0]}{pair[1]}.png"),
)
CONTENTS = st.one_of(st.binary(max_size=60), st.sampled_from(PICTURES), st.just(bytes(100_000)))
DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=3)
BOUNDED = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def is_handled(path: Path, limits: Limits) -> None:
    """Only our own errors come out of it, and only images or reasons."""
    try:
        images = opened(path, limits)
    except RecognitionError:
        return
    reads_of(images)


def damaged(content: bytes, damage: list[tuple[float, bytes]], kept: float) -> bytes:
    changed = bytearray(content)
    for place, raw in damage:
        start = int(place * len(changed))
        changed[start : start + len(raw)] = raw
    return bytes(changed[: int(kept * len(changed))])


@BOUNDED
@given(
    whole=st.booleans(),
    members=st.lists(st.tuples(PATHS, CONTENTS), max_size=6),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
    damage=DAMAGE,
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_any_zip_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    whole: bool,
    members: list[tuple[str, bytes]],
    method: int,
    damage: list[tuple[float, bytes]],
    kept: float,
) -> None:
    folder = tmp_path_factory.mktemp("zip", numbered=True)
    try:
        path = zip_of(folder / "a.zip", (WHOLE if whole else []) + members, method)
    except (UnicodeEncodeError, ValueError):
        return
    is_handled(write(path, damaged(path.read_bytes(), damage, kept)), Limits(files=9, gigabytes=0.001))
    assert {path.name for path in folder.iterdir()} <= {"a.zip"}


@BOUNDED
@given(
    whole=st.booleans(),
    members=st.lists(st.tuples(PATHS, CONTENTS, KINDS, st.sampled_from([None, 0, 7, 10**12])), max_size=8),
    kind=st.sampled_from(["", "gz", "bz2", "xz"]),
    damage=DAMAGE,
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
    inside=st.booleans(),
)
def test_any_tar_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    whole: bool,
    members: list[tuple[str, bytes, bytes, int | None]],
    kind: str,
    damage: list[tuple[float, bytes]],
    kept: float,
    inside: bool,
) -> None:
    """``inside``: what is damaged is the tar, before it is compressed."""
    raw = b""
    plain = [(*member, tarfile.REGTYPE, None) for member in WHOLE] if whole else []
    for name, content, type_, size in plain + members:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = type_, "../x"
        info.size = len(content) if size is None else size
        raw += info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogatepass") + content + bytes(-len(content) % 512)
    raw += bytes(1024)
    pack = {"": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind]
    content = pack(damaged(raw, damage, kept)) if inside else damaged(pack(raw), damage, kept)
    folder = tmp_path_factory.mktemp("tar", numbered=True)
    is_handled(write(folder / "a.tar", content), Limits(files=9, gigabytes=0.001))
    assert {path.name for path in folder.iterdir()} <= {"a.tar"}


@BOUNDED
@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0"]),
    rest=st.binary(),
)
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, start: bytes, rest: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes", numbered=True) / "a.zip"
    with pytest.raises(RecognitionError):
        opened(write(path, start + rest))


def test_the_smallest_deflated_content_is_read(tmp_path: Path) -> None:
    """An empty member has no bytes to unpack."""
    path = zip_of(tmp_path / "a.zip", [("cat/0.png", b""), NAMED_DOG], zipfile.ZIP_DEFLATED)
    assert reads_of(opened(path))["cat/0.png"] == b""
    assert zlib.crc32(b"") == 0
