"""Named sets, folders and archives become labelled images; what cannot be one is refused by name."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sample_images import encoded, folder_of, pixels, tarred, write, zipped
from sklearn.datasets import load_digits

from recognition.access import Access
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DataError
from recognition.pixels import NotAnImageError
from recognition.sources import SOURCES, Images, archives, check_source, cifar, idx, open_source, signature

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
needs_fashion = pytest.mark.skipif(not (SHARED / "fashion_mnist").is_dir(), reason="../shared/data is absent")


def opened(path: Path | str, tmp_path: Path) -> Images:
    return open_source(Data(source=str(path)), tmp_path / "downloads")


def described(images: Images) -> list[tuple[str, str, str]]:
    """Sample id, class and split of each image."""
    names = [images.class_names[label] for label in images.labels]
    return list(zip(images.sample_ids, names, images.splits, strict=True))


# named sets


def test_digits_are_scikit_learns_scaled_to_eight_bits(tmp_path: Path) -> None:
    images = opened("digits", tmp_path)
    bunch = load_digits()
    assert images.pixels is not None
    assert images.pixels.shape == (1797, 8, 8, 1)
    assert images.pixels.dtype == np.uint8
    np.testing.assert_array_equal(
        images.pixels[..., 0], np.array([round(v * 255 / 16) for v in range(17)])[bunch.images.astype(int)]
    )
    np.testing.assert_array_equal(images.labels, bunch.target)
    assert images.class_names == tuple("0123456789")
    assert set(images.splits) == {""}


@needs_fashion
def test_fashion_mnist_is_read_from_its_original_files(tmp_path: Path) -> None:
    images = open_source(Data(source="fashion_mnist", mirror=str(SHARED)), tmp_path)
    assert images.pixels is not None
    assert images.pixels.shape == (70_000, 28, 28, 1)
    for split, count in (("train", 6000), ("test", 1000)):
        chosen = np.array(images.splits) == split
        assert np.bincount(images.labels[chosen]).tolist() == [count] * 10
    first = images.sample_ids.index("train/00000")
    assert images.class_names[images.labels[first]] == "Ankle boot"  # the first picture on the data set's page
    with gzip.open(SHARED / "fashion_mnist" / "train-images-idx3-ubyte.gz") as file:
        assert images.pixels[first].tobytes() == file.read(16 + 784)[16:]
    assert (tmp_path / "fashion_mnist" / "t10k-labels-idx1-ubyte.gz").is_file()


def test_an_idx_file_is_read_in_the_shape_of_its_header(tmp_path: Path) -> None:
    content = struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(range(6))
    path = write(tmp_path / "a.gz", gzip.compress(content))
    np.testing.assert_array_equal(idx.read_idx(path), [[0, 1, 2], [3, 4, 5]])
    for wrong in (content, gzip.compress(content)[:-9], gzip.compress(content + b"x"), gzip.compress(b"no")):
        with pytest.raises(DataError, match=r"a\.gz is no"):
            idx.read_idx(write(tmp_path / "a.gz", wrong))


def cifar_archive(path: Path, what: cifar._CifarSet, leave_out: str = "") -> dict[str, np.ndarray]:
    """A small archive in the binary format; returns its records (labels, then red, green and blue planes)."""
    rng = np.random.default_rng(0)
    records = {}
    with tarfile.open(path, "w:gz") as archive:
        members = {what.names: b"ape\nbee\ncat\n"}
        for name in (*what.train, *what.test):
            records[name] = rng.integers(0, 256, (4, what.label_bytes + 3072), dtype=np.uint8)
            records[name][:, : what.label_bytes] = rng.integers(0, 3, (4, what.label_bytes))
            members[name] = records[name].tobytes()
        for name, content in members.items():
            if name != leave_out:
                info = tarfile.TarInfo(f"cifar-binary/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return records


@pytest.mark.parametrize("what", [cifar.CIFAR10, cifar.CIFAR100])
def test_cifars_binary_records_are_planes_of_red_green_and_blue(tmp_path: Path, what: cifar._CifarSet) -> None:
    records = cifar_archive(tmp_path / what.archive, what)
    images = cifar._read(what, tmp_path / what.archive)
    assert images.pixels is not None
    assert images.class_names == ("ape", "bee", "cat")
    assert images.pixels.shape == (4 * len(records), 32, 32, 3)
    for start, names in (("test", what.test), ("train", what.train)):
        for number, record in enumerate(np.concatenate([records[name] for name in names])):
            index = images.sample_ids.index(f"{start}/{number:05d}")
            assert images.splits[index] == start
            assert images.labels[index] == record[what.label_bytes - 1]  # the fine label comes last
            np.testing.assert_array_equal(
                images.pixels[index], np.dstack(np.split(record[what.label_bytes :].reshape(96, 32), 3))
            )


def test_another_archive_in_cifars_place_is_refused(tmp_path: Path) -> None:
    cifar_archive(tmp_path / "c.tar.gz", cifar.CIFAR10, leave_out="data_batch_3.bin")
    with pytest.raises(DataError, match=r"c\.tar\.gz holds no data_batch_3\.bin"):
        cifar._read(cifar.CIFAR10, tmp_path / "c.tar.gz")


# what a source may be


def test_an_unknown_data_set_is_refused_with_the_nearest_right_name() -> None:
    with pytest.raises(ConfigurationError, match=r"'fashon_mnist' is no known .* did you mean 'fashion_mnist'"):
        check_source(Data(source="fashon_mnist"))
    with pytest.raises(ConfigurationError, match=r"'zebras' is no known data set \(digits, mnist"):
        check_source(Data(source="zebras"))


def test_all_named_sets_pass_the_check_without_a_network() -> None:
    for name in SOURCES:
        check_source(Data(source=name))


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere/flowers\.zip does not exist"):
        check_source(Data(source=str(tmp_path / "nowhere" / "flowers.zip")))


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "flowers.zip", b"not a zip")
    with pytest.raises(DataError, match=r"flowers\.zip is neither a zip nor a tar"):
        check_source(Data(source=str(path)))


@pytest.mark.parametrize("name", ["pets.zip", "pets.tar", "pets.tar.gz", "pets.tar.bz2", "pets.tar.xz"])
def test_an_archive_without_its_end_is_told_from_other_files(tmp_path: Path, name: str) -> None:
    root = folder_of(tmp_path / "pets", "cat", "dog", count=2)
    whole = (zipped if name == "pets.zip" else tarred)(root, tmp_path / name).read_bytes()
    path = write(tmp_path / name, whole[: 200 if name == "pets.tar" else 40])
    message = "neither a zip nor a tar" if name == "pets.tar" else "its end is missing: fetch or make it again"
    with pytest.raises(DataError, match=message):
        check_source(Data(source=str(path)))


def test_what_is_compressed_but_no_archive_is_not_called_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv.gz", gzip.compress(b"path,label\n"))
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        check_source(Data(source=str(path)))


COLUMNS = ["path_column", "label_column", "split_column", "group_column"]


@pytest.mark.parametrize("setting", COLUMNS)
def test_columns_are_refused_where_there_are_none(tmp_path: Path, setting: str) -> None:
    root = folder_of(tmp_path / "pets", "cat", "dog", count=1)
    for source, what in (
        (str(root), "is a folder"),
        (str(zipped(root, tmp_path / "pets.zip")), "is an archive"),
        ("https://example.org/pets.tar.gz", "is an archive"),
        ("digits", "is a named data set"),
    ):
        with pytest.raises(ConfigurationError, match=rf"data\.{setting} is for manifests.*, and .*{what}: .*remove it"):
            check_source(Data.model_validate({"source": source, setting: "patient"}))


def test_groups_of_a_folder_are_found_by_their_pattern_and_the_refusal_says_so(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets", "cat", "dog", count=1)
    with pytest.raises(ConfigurationError) as caught:
        open_source(Data(source=str(root), group_column="patient"), tmp_path)
    assert str(caught.value) == (
        f"data.group_column is for manifests and Hugging Face data sets, and {root} is a folder: use"
        " data.group_pattern, or remove it."
    )


def test_hugging_face_data_sets_have_no_column_of_splits_and_their_groups_one_source() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.split_column is for manifests, and hf:a/b is a Hugging Face"):
        check_source(Data(source="hf:a/b", split_column="fold"))
    with pytest.raises(ConfigurationError, match=r"data\.group_column and data\.group_pattern both say"):
        check_source(Data(source="hf:a/b", group_column="patient", group_pattern=r"p\d+"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["p1_0", "0", "1"], "2 of 4 paths do not match data.group_pattern, such as 'cat/0.png': each of these is a"),
        (["p1_0", "p1_1", "1"], "1 of 4 paths does not match data.group_pattern, such as 'cat/1.png': it is a"),
    ],
)
def test_paths_without_a_group_are_a_finding(tmp_path: Path, names: list[str], message: str) -> None:
    for number, name in enumerate(names):
        write(tmp_path / "cat" / f"{name}.png", encoded(pixels(number)))
    write(tmp_path / "dog" / "p2_0.png", encoded(pixels(9)))
    images = open_source(Data(source=str(tmp_path), group_pattern=r"p\d+"), tmp_path)
    (finding,) = images.findings
    alone = tuple(f"cat/{name}.png" for name in names if not name.startswith("p"))
    assert (finding.kind, finding.policy, finding.count, finding.files) == ("ungrouped", "warn", len(alone), alone)
    assert finding.message == f"{message} group of its own."
    assert [group for group in images.groups if not group] == [""] * len(alone)


def test_a_pattern_that_finds_every_group_is_no_finding(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets", "cat", "dog", count=2)
    assert open_source(Data(source=str(root), group_pattern=r"\d+"), tmp_path).findings == ()


def test_an_address_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"ftp:// cannot be fetched from"):
        check_source(Data(source="ftp://host/flowers.zip"))


def test_a_checksum_where_none_is_compared_is_refused(tmp_path: Path) -> None:
    for source in ("digits", str(tmp_path)):
        with pytest.raises(ConfigurationError, match=r"data\.checksum is for archives"):
            check_source(Data(source=source, checksum="md5:" + "0" * 32))


def test_a_local_archive_with_another_checksum_is_refused_and_kept(tmp_path: Path) -> None:
    path = zipped(folder_of(tmp_path / "a", "cat", "dog"), tmp_path / "a.zip")
    right = f"sha256:{archives.hash_of(path)}"
    open_source(Data(source=str(path), checksum=right), tmp_path).close()
    with pytest.raises(DataError, match=r"a\.zip has the wrong checksum: expected md5:0+, got md5:") as caught:
        open_source(Data(source=str(path), checksum="md5:" + "0" * 32), tmp_path)
    assert "data.checksum" in str(caught.value)
    assert path.is_file()


# layouts


def test_class_folders_with_nested_images(tmp_path: Path) -> None:
    write(tmp_path / "dog" / "old" / "far" / "1.JPG", b"")
    folder_of(tmp_path, "cat", count=1)
    assert described(opened(tmp_path, tmp_path)) == [("cat/0.png", "cat", ""), ("dog/old/far/1.JPG", "dog", "")]


def test_leading_folders_are_stripped(tmp_path: Path) -> None:
    folder_of(tmp_path / "data" / "v2" / "pets", "cat", "dog", count=1)
    write(tmp_path / "data" / "LICENSE", b"free")
    write(tmp_path / "data" / "papers" / "read.txt", b"me")
    assert described(opened(tmp_path, tmp_path)) == [("cat/0.png", "cat", ""), ("dog/0.png", "dog", "")]


@pytest.mark.parametrize(
    ("train", "val", "test"), [("train", "val", "test"), ("Training", "valid", "TESTING"), ("TRAIN", "Validation", "")]
)
def test_split_folders_are_recognised(tmp_path: Path, train: str, val: str, test: str) -> None:
    given = {name: split for name, split in ((train, "train"), (val, "val"), (test, "test")) if name}
    for name in given:
        folder_of(tmp_path / "pets" / name, "cat", "dog", count=1)
    seen = described(opened(tmp_path / "pets", tmp_path))
    assert sorted(seen) == sorted((f"{n}/{c}/0.png", c, s) for n, s in given.items() for c in ("cat", "dog"))


def test_only_a_training_folder_is_a_leading_folder(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", "cat", "dog", count=1)
    assert described(opened(tmp_path, tmp_path)) == [("cat/0.png", "cat", ""), ("dog/0.png", "dog", "")]


def test_hidden_and_system_files_are_ignored_and_other_files_noted(tmp_path: Path) -> None:
    folder_of(tmp_path, "cat", "dog", count=1)
    for name in (".DS_Store", "cat/._0.png", "__MACOSX/cat/0.png", "dog/Thumbs.db", ".git/dog/1.png"):
        write(tmp_path / name, b"x")
    write(tmp_path / "cat" / "notes.txt", b"x")
    write(tmp_path / "cat" / "box.xml", b"x")
    images = opened(tmp_path, tmp_path)
    assert images.sample_ids == ("cat/0.png", "dog/0.png")
    (finding,) = images.findings
    assert (finding.kind, finding.count, finding.files) == ("not_images", 2, ("cat/box.xml", "cat/notes.txt"))
    assert finding.message == "Files that are no images (1 .xml, 1 .txt): left out."


def test_images_outside_the_class_folders_are_noted(tmp_path: Path) -> None:
    folder_of(tmp_path, "cat", "dog", count=1)
    write(tmp_path / "cover.png", b"x")
    images = opened(tmp_path, tmp_path)
    assert len(images) == 2
    assert [(finding.kind, finding.files) for finding in images.findings] == [("unlabelled", ("cover.png",))]


def test_a_test_folder_without_classes_is_left_out_and_noted(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", "cat", "dog", count=1)
    write(tmp_path / "test" / "1.png", b"x")
    images = opened(tmp_path, tmp_path)
    assert set(images.splits) == {"train"}
    assert [finding.kind for finding in images.findings] == ["unlabelled"]


def test_accents_are_spelt_the_same_on_every_system(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    folder_of(tmp_path / "train", composed, "dog", count=1)
    folder_of(tmp_path / "test", decomposed, "dog", count=1)
    assert opened(tmp_path, tmp_path).class_names == (composed, "dog")


@pytest.mark.parametrize(
    ("filled", "empty", "message"),
    [
        (["cat", "dog"], ["emu"], r"class folder 'emu' holds no images"),
        (["cat"], ["emu"], r"class folder 'emu' holds no images"),
        (["cat"], [], r"holds a single class, 'cat'"),
        (["pets/cat"], [], r"holds a single class, 'cat'"),
        ([], ["cat", "dog"], r"holds no files\. Expected is one sub-folder per class"),
        (["."], [], r"images lie in no class folder, such as '0\.png'"),
        (["train/cat", "train/dog", "test/cat"], [], r"'test' has no class folder 'dog'"),
        (["train/cat", "train/dog", "test/cat", "test/dog"], ["train/emu"], r"class folder 'train/emu' holds no"),
        (["train/cat", "train/dog"], ["test"], r"the folder 'test' holds no images"),
        (["val/cat", "val/dog", "test/cat", "test/dog"], [], r"has no folder train beside"),
        (["train", "test"], [], r"images lie in no class folder"),
        (["train/cat", "training/cat", "test/cat"], [], r"two folders for train"),
    ],
)
def test_a_wrong_layout_is_refused(tmp_path: Path, filled: list[str], empty: list[str], message: str) -> None:
    root = folder_of(tmp_path / "root", *filled, count=1)
    for name in empty:
        (root / name).mkdir(parents=True)
    for source in (root, zipped(root, tmp_path / "root.zip"), tarred(root, tmp_path / "root.tgz")):
        with pytest.raises(DataError, match=message):
            opened(source, tmp_path)


# sets of other tasks


def touched(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name, b"")
    return root


@pytest.mark.parametrize(
    "names",
    [
        ["images/train/1.jpg", "images/val/2.jpg", "labels/train/1.txt", "labels/val/2.txt"],
        ["train/images/1.jpg", "train/labels/1.txt", "test/images/2.jpg", "test/labels/2.txt"],
        ["1.jpg", "1.txt", "2.jpg", "2.txt", "classes.txt"],
    ],
)
def test_boxes_of_a_format_that_is_not_read_are_refused_with_those_that_are(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(DataError, match=r"is a detection set: boxes in .*\*\.txt \(YOLO\)\. Read are boxes as COCO"):
        opened(touched(tmp_path / "set", *names), tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        # folders of classes with papers, boxes beside them, or words for masks in their names
        ["cat/1.jpg", "cat/1.xml", "dog/2.jpg", "dog/2.xml"],
        ["Images/cat/1.jpg", "Images/dog/2.jpg", "Annotation/cat/1.xml", "Annotation/dog/2.xml"],
        ["cat/1.jpg", "cat/1.txt", "dog/2.jpg", "dog/2.txt"],
        ["with_mask/1.png", "without_mask/1.png", "mask_worn_wrong/1.png"],
        ["mask/1.png", "no_mask/1.png"],
        ["label/1.png", "barcode/1.png"],
        ["cat/a/images/1.png", "dog/masks/1.png"],
    ],
)
def test_folders_of_classes_with_boxes_beside_them_are_read(tmp_path: Path, names: list[str]) -> None:
    images = opened(touched(tmp_path / "set", *names), tmp_path)
    assert len(images) == sum(name.endswith((".jpg", ".png")) for name in names)
    assert len(images.class_names) >= 2


# archives


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_gives_the_same_as_its_folder(tmp_path: Path, kind: str) -> None:
    root = folder_of(tmp_path / "root", "train/cat", "train/dog", "test/cat", "test/dog", count=2)
    path = tmp_path / "archive"  # judged by its content, not by its name
    archive = zipped(root, path, "deep/er/") if kind == "zip" else tarred(root, path, "deep/er", kind)
    from_folder, from_archive = opened(root, tmp_path), opened(archive, tmp_path)
    assert described(from_archive) == described(from_folder)
    assert from_archive.read is not None
    assert from_folder.read is not None
    for index in from_archive.reading_order:
        assert from_archive.read(index) == from_folder.read(index)
    from_archive.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "root"]


def test_links_and_devices_in_archives_are_left_out_and_noted(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "root", "cat", "dog", count=1)
    secret = write(tmp_path / "secret.png", encoded(pixels(9)))
    (root / "cat" / "link.png").symlink_to(secret)
    tar = tarred(root, tmp_path / "a.tar", "x", "w")
    with tarfile.open(tar, "a") as archive:
        device = tarfile.TarInfo("x/dog/device.png")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    images = opened(tar, tmp_path)
    images.close()
    assert "cat/link.png" not in images.sample_ids
    (finding,) = [finding for finding in images.findings if finding.kind == "special_files"]
    assert finding.files == ("x/cat/link.png", "x/dog/device.png")

    archive_path = zipped(folder_of(tmp_path / "plain", "cat", "dog", count=1), tmp_path / "a.zip")
    with zipfile.ZipFile(archive_path, "a") as zip_file:
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = 0o120777 << 16
        zip_file.writestr(link, str(secret))
    images = opened(archive_path, tmp_path)
    images.close()
    assert images.sample_ids == ("cat/0.png", "dog/0.png")
    assert [finding.files for finding in images.findings] == [("cat/link.png",)]


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "root", "cat", "dog", height=64, width=64)
    whole = tarred(root, tmp_path / "a.tar.gz").read_bytes()
    path = write(tmp_path / "cut.tar.gz", whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.tar\.gz is damaged"):
        opened(path, tmp_path)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(folder_of(tmp_path / "root", "cat", "dog", count=1), tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1) + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted"):
        opened(path, tmp_path)


# folders


def test_links_in_a_folder_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    folder_of(tmp_path / "elsewhere", "cat", count=1)
    folder_of(tmp_path / "root", "dog", count=1)
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (tmp_path / "root" / "dog" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "root" / "dog" / "pipe.png")
    images = opened(tmp_path / "root", tmp_path)
    assert images.sample_ids == ("cat/0.png", "dog/0.png")
    assert [finding.files for finding in images.findings] == [("dog/gone.png", "dog/pipe.png")]


def test_the_fingerprint_follows_the_content_not_the_place(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "root", "cat", "dog")
    first = opened(root, tmp_path).fingerprint
    shutil.copytree(root, tmp_path / "other" / "copy")
    assert opened(tmp_path / "other" / "copy", tmp_path).fingerprint == first
    write(root / "cat" / "0.png", encoded(pixels(77)))
    assert opened(root, tmp_path).fingerprint != first


def test_a_known_fingerprint_saves_reading_the_contents(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "root", "cat", "dog", count=1)
    seen: list[str] = []
    for source in (root, zipped(root, tmp_path / "a.zip"), tarred(root, tmp_path / "a.tgz")):
        data = Data(source=str(source))
        images = open_source(data, tmp_path, lambda done, total, what: seen.append(what), fingerprint="known")
        images.close()
        assert (images.fingerprint, seen) == ("known", [])


def test_the_signature_changes_with_any_file(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "root", "cat", "dog", count=1)
    for source, changed in ((root, root / "cat" / "0.png"), (archive := zipped(root, tmp_path / "a.zip"), archive)):
        data = Data(source=str(source))
        before = signature(data)
        assert signature(data) == before
        os.utime(changed, ns=(1, 1))
        assert signature(data) != before
    before = signature(Data(source=str(root)))
    (root / "cat" / "0.png").rename(root / "dog" / "1.png")
    assert signature(Data(source=str(root))) != before
    assert signature(Data(source="digits")) == signature(Data(source="digits")) != signature(Data(source="mnist"))
    mirrored = Data(source="mnist", mirror="https://host/")
    assert signature(mirrored) != signature(Data(source="mnist"))


def test_links_out_of_the_allowed_folders_are_left_out(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "root", "cat", "dog", count=1)
    folder_of(tmp_path / "secret", "emu", count=1)
    (root / "emu").symlink_to(tmp_path / "secret" / "emu")
    (root / "cat" / "1.png").symlink_to(tmp_path / "secret" / "emu" / "0.png")
    (root / "dog" / "1.png").symlink_to(root / "dog" / "0.png")
    images = open_source(Data(source=str(root)), tmp_path, access=Access(restricted=True, roots=(root,)))
    assert images.sample_ids == ("cat/0.png", "dog/0.png", "dog/1.png")
    assert [(finding.kind, finding.files) for finding in images.findings] == [("special_files", ("cat/1.png", "emu"))]
    assert opened(root, tmp_path).class_names == ("cat", "dog", "emu")


def test_what_may_not_be_read_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    access = Access(restricted=True, schemes=("https",), roots=(tmp_path / "open",))
    for data in (
        Data(source="/etc"),
        Data(source="/nowhere/at-all.zip"),
        Data(source="file:///etc/passwd"),
        Data(source=f"{tmp_path}/open/../a.csv"),
        Data(source="s3://bucket/a.zip"),
        Data(source="mnist", mirror="/etc"),
        Data(source="mnist", mirror="http://host/"),
    ):
        with pytest.raises(ConfigurationError):
            check_source(data, access)
        with pytest.raises(ConfigurationError):
            open_source(data, tmp_path, access=access)


def test_names_that_only_differ_in_how_accents_are_written_stay_apart(tmp_path: Path) -> None:
    for number, name in enumerate(("cafe\u0301", "caf\u00e9")):
        write(tmp_path / "cat" / f"{name}.png", encoded(pixels(number)))
    folder_of(tmp_path, "dog", count=1)
    images = opened(tmp_path, tmp_path)
    assert images.sample_ids == ("cat/caf\u00e9.png", "cat/caf\u00e9.png#2", "dog/0.png")


def test_an_address_is_fetched_and_read_as_an_archive(tmp_path: Path) -> None:
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    zipped(folder_of(tmp_path / "root", "cat", "dog", count=1), tmp_path / "pets.zip")
    write(tmp_path / "page.zip", b"<html>sign in first</html>")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        images = opened(f"{address}/pets.zip", tmp_path)
        images.close()
        assert images.sample_ids == ("cat/0.png", "dog/0.png")
        with pytest.raises(DataError, match=r"page\.zip gives is neither a zip nor a tar"):
            opened(f"{address}/page.zip", tmp_path)
        assert not list((tmp_path / "downloads").rglob("page.zip"))
        write(tmp_path / "cut.zip", (tmp_path / "pets.zip").read_bytes()[:100])
        with pytest.raises(DataError, match=r"cut\.zip gives begins as a zip, but its end is missing"):
            opened(f"{address}/cut.zip", tmp_path)
        assert not list((tmp_path / "downloads").rglob("cut.zip"))
        write(tmp_path / "nameless", (tmp_path / "pets.zip").read_bytes())
        with pytest.raises(ConfigurationError, match=r"/nameless is an archive: use data\.group_pattern"):
            open_source(Data(source=f"{address}/nameless", group_column="patient"), tmp_path / "downloads")
        write(tmp_path / "root" / "pets.csv", b"path,label\ncat/0.png,cat\ndog/0.png,dog\ndog/7.png,dog\n")
        images = opened(f"{address}/root/pets.csv", tmp_path)
        assert images.sample_ids == ("cat/0.png", "dog/0.png", "dog/7.png")
        assert images.read is not None
        assert images.read(1) == (tmp_path / "root" / "dog" / "0.png").read_bytes()
        with pytest.raises(NotAnImageError, match=r"dog/7\.png cannot be fetched \(HTTP 404"):
            images.read(2)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
