"""What is known of images before anything is fetched: by name, by an earlier run, by a short look; else assumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from object_images import instance_folder, voc_folder
from sample_images import encoded, folder_of, pixels, tarred, write, zipped

from recognition.access import Access
from recognition.disk_space import check_disk, store_bytes
from recognition.errors import ConfigurationError, DataError
from recognition.expectations import NAMED, as_prepared, expect
from recognition.experiment import Data
from recognition.preparation import prepare
from recognition.records import Expected
from recognition.sources import SOURCES


def _shape(found: Expected) -> tuple[int, int, int]:
    return found.height, found.width, found.channels


def test_every_named_data_set_is_known_without_its_files(state: Path) -> None:
    assert set(NAMED) == set(SOURCES)
    published = {name: expect(Data(source=name)) for name in NAMED}
    assert {name: (found.images, found.classes, *_shape(found)) for name, found in published.items()} == {
        "digits": (1_797, 10, 8, 8, 1),
        "mnist": (70_000, 10, 28, 28, 1),
        "fashion_mnist": (70_000, 10, 28, 28, 1),
        "cifar10": (60_000, 10, 32, 32, 3),
        "cifar100": (60_000, 100, 32, 32, 3),
    }
    assert published["fashion_mnist"].class_names[9] == "Ankle boot"
    assert all(found.known == "data set" and found.size_is_sure for found in published.values())


def test_what_is_expected_of_digits_is_about_what_is_prepared(state: Path) -> None:
    found, real = expect(Data()), prepare(Data())
    assert _shape(found) == (real.height, real.width, real.channels)
    assert found.class_names == real.class_names
    assert found.images == sum(real.counts.values())
    assert found.train_images == pytest.approx(real.counts["train"], rel=0.05)
    assert found.val_images == pytest.approx(real.counts["val"], rel=0.25)


def test_given_test_images_are_not_trained_on(state: Path) -> None:
    found = expect(Data(source="mnist", val_fraction=0.25))
    assert (found.train_images, found.val_images) == (45_000, 15_000)
    assert sum(as_prepared(found).counts.values()) == 70_000
    folds = expect(Data(source="mnist", folds=3))
    assert (folds.train_images, folds.val_images) == (40_000, 20_000)


def test_few_images_of_each_class_are_counted(state: Path) -> None:
    assert expect(Data(source="cifar100", per_class=5)).train_images == 500


def test_size_and_channels_of_the_settings_go_first(state: Path) -> None:
    assert _shape(expect(Data(source="cifar10", image_size=64, channels="gray"))) == (64, 64, 1)


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "manifest"])
def test_a_local_source_is_looked_at(state: Path, tmp_path: Path, form: str) -> None:
    root = folder_of(tmp_path / "pets", "cat", "dog", "eel", count=4, height=20, width=14)
    if form == "zip":
        root = zipped(root, tmp_path / "pets.zip")
    elif form == "tar":
        root = tarred(root, tmp_path / "pets.tgz")
    elif form == "manifest":
        rows = [f"{path},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
        root = write(tmp_path / "pets.csv", "\n".join(["path,label", *rows]).encode())
    found = expect(Data(source=str(root)))
    assert found.known == "looked at 12 files"
    assert (found.images, found.class_names, *_shape(found)) == (12, ("cat", "dog", "eel"), 20, 14, 3)
    assert (found.kind_is_sure, found.size_is_sure) == (True, True)
    assert list(state.rglob("*")) == []


def test_of_many_images_some_are_looked_at_and_their_size_is_not_sure(state: Path, tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets", "cat", "dog", count=200, height=8, width=8)
    found = expect(Data(source=str(root)))
    assert (found.known, found.images, found.kind_is_sure, found.size_is_sure) == (
        "looked at 48 files",
        400,
        True,
        False,
    )
    assert expect(Data(source=str(root), image_size=16)).size_is_sure


def test_images_of_several_sizes_get_the_size_that_preparing_gives_them(state: Path, tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets", "cat", count=6, height=70, width=90)
    folder_of(root, "dog", count=6, height=200, width=300)
    data = Data(source=str(root))
    real = prepare(data)
    assert _shape(expect(data)) == (real.height, real.width, real.channels) == (64, 64, 3)


def test_gray_pictures_stored_as_colour_leave_the_channels_open(state: Path, tmp_path: Path) -> None:
    gray = np.repeat(pixels(1, channels=1), 3, axis=2)
    for name in ("a", "b"):
        write(tmp_path / "set" / name / "1.png", encoded(gray))
    assert not expect(Data(source=str(tmp_path / "set"))).size_is_sure
    assert expect(Data(source=str(tmp_path / "set"), channels="rgb")).size_is_sure


def test_boxes_and_masks_are_told_apart(state: Path, tmp_path: Path) -> None:
    boxes = expect(Data(source=str(voc_folder(tmp_path / "boxes", 6))))
    masks = expect(Data(source=str(instance_folder(tmp_path / "masks", 6))))
    assert (boxes.kind, boxes.class_names, boxes.height) == ("boxes", ("disc", "square"), 64)
    assert (masks.kind, masks.images) == ("instances", 6)


@pytest.mark.parametrize("source", ["https://example.org/pets.zip", "s3://bucket/pets/", "hf:someone/pets"])
def test_what_lies_elsewhere_is_assumed_and_says_so(state: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("something is fetched"))
    found = expect(Data(source=source))
    assert (found.known, found.kind_is_sure, found.size_is_sure) == ("assumed", False, False)
    assert (found.classes, *_shape(found)) == (10, 224, 224, 3)


def test_a_manifest_of_addresses_is_not_fetched(state: Path, tmp_path: Path) -> None:
    rows = "path,label\nhttps://example.org/1.png,cat\nhttps://example.org/2.png,dog\n"
    assert expect(Data(source=str(write(tmp_path / "far.csv", rows.encode())))).known == "assumed"


def test_an_earlier_run_knows_what_lies_elsewhere(state: Path, tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets", "cat", "dog", count=12, height=20, width=20)
    real = prepare(Data(source=str(root)))
    # as if it had been fetched from there
    record = json.loads((real.path / "dataset.json").read_text()) | {"source": "https://example.org/pets.zip"}
    (real.path / "dataset.json").write_text(json.dumps(record))
    found = expect(Data(source="https://example.org/pets.zip"))
    assert (found.known, found.class_names, *_shape(found)) == ("earlier run", ("cat", "dog"), 20, 20, 3)
    # what an address gives may have changed since
    assert (found.kind_is_sure, found.size_is_sure) == (False, False)
    assert expect(Data(source="https://example.org/pets.zip", image_size=32)).known == "assumed"


def test_a_source_that_cannot_be_one_is_refused(state: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        expect(Data(source=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match="a single class, 'cat'"):
        expect(Data(source=str(folder_of(tmp_path / "pets", "cat"))))


def test_a_look_honours_what_a_worker_may_read(state: Path, tmp_path: Path) -> None:
    allowed, other = (folder_of(tmp_path / name, "cat", "dog") for name in ("allowed", "other"))
    access = Access(restricted=True, roots=(allowed,))
    assert expect(Data(source=str(allowed)), access).images == 10
    with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_ROOTS"):
        expect(Data(source=str(other)), access)
    manifest = write(allowed / "list.csv", f"path,label\n{other}/cat/0.png,cat\n{other}/dog/0.png,dog\n".encode())
    with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_ROOTS"):
        expect(Data(source=str(manifest)), access)


def test_more_names_than_are_listed_leave_the_source_unknown(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recognition.first_look.MOST_NAMES", 5)
    root = folder_of(tmp_path / "pets", "cat", "dog", count=5)
    assert expect(Data(source=str(root))).known == "assumed"
    assert expect(Data(source=str(zipped(root, tmp_path / "pets.zip")))).known == "assumed"


def test_images_that_fit_on_no_disk_are_refused_by_name_where_their_size_is_sure(state: Path) -> None:
    data = Data(source="mnist", image_size=1024, storage="array")
    found = expect(data).model_copy(update={"images": 10**12})
    assert store_bytes(data, found) == 10**12 * 1024**2
    with pytest.raises(ConfigurationError, match=r"data.image_size: 1,000,000,000,000 images of 1024x1024x1 take"):
        check_disk(data, found)
    unsure = found.model_copy(update={"size_is_sure": False, "known": "assumed"})
    assert "not known yet (assumed)" in check_disk(data, unsure)[0]
    assert check_disk(Data(), expect(Data())) == []
