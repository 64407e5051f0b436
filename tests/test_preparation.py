"""Prepared data sets hold what the source held, are built once or not at all, and say what was done to the images."""

from __future__ import annotations

import errno
import hashlib
import logging
import multiprocessing
import pickle
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sample_images import encoded, folder_of, pixels, tarred, write, zipped

from recognition import datasets
from recognition.errors import AuditError, DataError, StorageError
from recognition.experiment import Data
from recognition.images import prepare as prepare_image
from recognition.preparation import prepare
from recognition.records import PreparedData
from recognition.store import decoding
from recognition.store.array_file import ArrayWriter

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of each test's own."""
    monkeypatch.setenv("RECOGNITION_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "pets", "cat", "dog", count=10)


def prepared(source: Path | str, **settings: object) -> PreparedData:
    return prepare(Data(source=str(source), **settings))  # type: ignore[arg-type]


def images_by_id(record: PreparedData) -> dict[str, np.ndarray]:
    arrays = datasets.open_arrays(record.path)
    return dict(zip(arrays.sample_ids(), np.asarray(arrays.images), strict=True))


def left_in(state: Path, folder: str = "datasets") -> list[str]:
    """What lies in a folder of the state folder, except locks."""
    here = state / folder
    return sorted(path.name for path in here.iterdir() if path.suffix != ".lock") if here.is_dir() else []


# what is written


def test_the_arrays_hold_the_images_labels_and_splits_of_the_source(pets: Path) -> None:
    record = prepared(pets)
    arrays = datasets.open_arrays(record.path)
    assert arrays.images.shape == (20, 12, 12, 3)
    assert arrays.images.dtype == np.uint8
    assert isinstance(arrays.images, np.memmap)
    assert arrays.labels.dtype == np.int64
    for sample_id, label, image in zip(arrays.sample_ids(), arrays.labels, arrays.images, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(pets / sample_id)))
        assert sample_id.split("/")[0] == record.class_names[label]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(arrays.indices.values()))), np.arange(20))
    table = pd.read_parquet(record.path / "samples.parquet")
    assert list(table["sample_id"]) == list(arrays.sample_ids())
    assert list(table["class_name"]) == [record.class_names[label] for label in arrays.labels]
    for name, indices in arrays.indices.items():
        assert (table["split"].iloc[indices] == name).all()
        assert record.counts[name] == len(indices)
    for name, indices in arrays.indices.items():
        by_class = {label: int((arrays.labels[indices] == number).sum()) for number, label in enumerate(("cat", "dog"))}
        assert record.class_counts[name] == by_class
        assert min(by_class.values()) >= 1


def test_mean_and_deviation_are_those_of_the_training_images(pets: Path) -> None:
    record = prepared(pets)
    arrays = datasets.open_arrays(record.path)
    training = arrays.images[arrays.indices["train"]] / 255
    np.testing.assert_allclose(record.mean, training.mean(axis=(0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(record.std, training.std(axis=(0, 1, 2)), atol=1e-12)


def test_digits_are_prepared_without_a_network() -> None:
    record = prepared("digits")
    assert (record.height, record.width, record.channels, sum(record.counts.values())) == (8, 8, 1, 1797)
    assert record.class_names == tuple("0123456789")


def test_folder_zip_and_tar_prepare_to_the_same_digest_and_splits(pets: Path, tmp_path: Path) -> None:
    sources = [pets, zipped(pets, tmp_path / "a.zip", "deep/"), tarred(pets, tmp_path / "a.tar.gz", "pets")]
    records = [prepared(source) for source in sources]
    assert len({record.digest for record in records}) == 1
    assert len({record.test_digest for record in records}) == 1
    assert len({record.path for record in records}) == 3
    expected = images_by_id(records[0])
    for record in records[1:]:
        seen = images_by_id(record)
        assert seen.keys() == expected.keys()
        assert all((seen[name] == expected[name]).all() for name in seen)


def test_the_digest_follows_pixels_and_class_names_only(pets: Path, tmp_path: Path) -> None:
    first = prepared(pets)
    renamed = tmp_path / "renamed"
    for number, path in enumerate(sorted(pets.rglob("*.png"))):
        write(renamed / path.parent.name / f"other-{99 - number}.png", path.read_bytes())
    assert prepared(renamed).digest == first.digest
    swapped = shutil.copytree(pets, tmp_path / "swapped")
    (swapped / "cat" / "0.png").rename(swapped / "dog" / "99.png")
    assert prepared(swapped).digest != first.digest
    write(renamed / "cat" / "other-99.png", encoded(pixels(4711)))
    assert prepared(renamed).digest != first.digest


def test_given_splits_are_used_and_keep_their_test_digest(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "root", "train/cat", "train/dog", "test/cat", "test/dog", count=6)
    first, second = prepared(root), prepared(root, split_seed=1, val_fraction=0.5)
    assert (first.counts["test"], first.counts["train"] + first.counts["val"]) == (12, 12)
    assert (second.counts["test"], second.counts["train"] + second.counts["val"]) == (12, 12)
    assert first.test_digest == second.test_digest


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_a_prediction_on_a_file_sees_the_bits_that_training_saw(tmp_path: Path, resize: str) -> None:
    root = tmp_path / "mixed"
    for number in range(8):
        image = Image.fromarray(pixels(number, 40 + number, 60 - 2 * number))
        other = Image.fromarray(pixels(100 + number, 40 + number, 60 - 2 * number))
        write(root / "a" / f"{number}.jpg", encoded(image, "JPEG"))
        write(root / "b" / f"{number}.png", encoded(other.convert("P")))
    for channels, settings in ((3, {"channels": "auto"}), (1, {"channels": "gray"})):
        record = prepared(root, image_size=32, resize=resize, **settings)
        for sample_id, image in images_by_id(record).items():
            content = (root / sample_id).read_bytes()
            np.testing.assert_array_equal(
                image,
                prepare_image(content, sample_id, 32, 32, channels, resize),  # type: ignore[arg-type]
            )


# size and channels


def test_images_of_one_size_keep_it(tmp_path: Path) -> None:
    record = prepared(folder_of(tmp_path / "a", "x", "y", height=10, width=17))
    assert (record.height, record.width) == (10, 17)


@pytest.mark.parametrize(
    ("sides", "expected"),
    [((100, 120, 130), 96), ((10, 20, 25), 20), ((31, 32, 40), 32), ((300, 400, 500), 224)],
)
def test_images_of_several_sizes_become_squares_fitted_to_them(
    tmp_path: Path, sides: tuple[int, ...], expected: int
) -> None:
    for first, name in enumerate("xy"):
        for number, side in enumerate(sides):
            write(tmp_path / "a" / name / f"{number}.png", encoded(pixels(10 * first + number, side, side + 7)))
    record = prepared(tmp_path / "a")
    assert (record.height, record.width) == (expected, expected)


def test_an_asked_for_size_and_colour_are_given(pets: Path) -> None:
    record = prepared(pets, image_size=9, channels="gray")
    assert (record.height, record.width, record.channels) == (9, 9, 1)
    assert datasets.open_arrays(record.path).images.shape == (20, 9, 9, 1)
    record = prepared("digits", image_size=16, channels="rgb")
    assert datasets.open_arrays(record.path).images.shape == (1797, 16, 16, 3)


def test_gray_files_and_gray_stored_as_colour_become_one_channel(tmp_path: Path) -> None:
    gray = folder_of(tmp_path / "gray", "x", "y", channels=1)
    for path in gray.rglob("*.png"):
        write(tmp_path / "colour" / path.relative_to(gray), encoded(Image.open(path).convert("RGB")))
    first, second = prepared(gray), prepared(tmp_path / "colour")
    assert first.channels == second.channels == 1
    assert first.digest == second.digest
    write(tmp_path / "colour" / "x" / "red.png", encoded(Image.new("RGB", (12, 12), "red")))
    assert prepared(tmp_path / "colour").channels == 3


# built once


def test_a_second_call_decodes_nothing_and_says_so(
    pets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = prepared(pets)

    def fail(*args: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoding.pixels, "decode", fail)
    monkeypatch.setattr(decoding, "survey", fail)
    with caplog.at_level(logging.INFO, logger="recognition"):
        assert prepared(pets) == first
    assert "prepared already" in caplog.text


def test_other_content_or_settings_are_prepared_apart(pets: Path) -> None:
    first = prepared(pets)
    other_split = prepared(pets, split_seed=1)
    assert other_split.path != first.path
    assert other_split.images == first.images, "another split decodes nothing again"
    assert prepared(pets, image_size=8).images != first.images
    write(pets / "cat" / "new.png", encoded(pixels(5)))
    assert prepared(pets).path != first.path


@pytest.mark.parametrize("damage", ["missing", "cut", "record"])
def test_a_damaged_data_set_is_built_again(pets: Path, damage: str) -> None:
    first = prepared(pets)
    if damage == "missing":
        (first.path / "test.npy").unlink()
    elif damage == "cut":
        (first.images / "images.npy").write_bytes((first.images / "images.npy").read_bytes()[:-100])
    else:
        (first.path / "dataset.json").write_text("{")
    assert prepared(pets) == first
    assert datasets.load(first.path) == first


def _prepare_in_a_process(source: str) -> tuple[str, int]:
    writes = []
    original = ArrayWriter.put

    def counted(self: ArrayWriter, index: int, pixels: np.ndarray) -> None:
        if pixels.ndim == 3:
            writes.append(index)
        original(self, index, pixels)

    ArrayWriter.put = counted  # type: ignore[method-assign]
    return prepare(Data(source=source)).digest, len(writes)


def test_two_processes_prepare_once(pets: Path, state: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(_prepare_in_a_process, [str(pets), str(pets)], chunksize=1)
    assert results[0][0] == results[1][0]
    assert sorted(count for _, count in results) == [0, 20]
    assert len(left_in(state)) == 1


def test_two_threads_prepare_once(pets: Path, state: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(prepared, [pets, pets])
    assert first == second
    assert len(left_in(state)) == 1


def test_what_a_killed_process_left_is_removed(pets: Path, state: Path) -> None:
    record = prepared(pets)
    shutil.rmtree(record.path)
    write(state / "datasets" / f".{record.path.name}.12345" / "images.npy", b"half")
    prepared(pets)
    assert left_in(state) == [record.path.name]


def test_a_moved_data_set_is_found_where_it_is(pets: Path, tmp_path: Path) -> None:
    record = prepared(pets)
    record.path.rename(tmp_path / "elsewhere")
    assert datasets.load(tmp_path / "elsewhere").path == tmp_path / "elsewhere"
    with pytest.raises(DataError, match="holds no prepared data set"):
        datasets.load(record.path)


def test_arrays_travel_to_other_processes_as_their_path(pets: Path) -> None:
    arrays = datasets.open_arrays(prepared(pets, image_size=64).path)
    sent = pickle.dumps(arrays)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).images, arrays.images)


def test_progress_ends_with_all_images(pets: Path) -> None:
    told: list[tuple[int, int, str]] = []
    prepare(Data(source=str(pets)), lambda *args: told.append(args))
    for what in ("reading files", "looking at images", "decoding images"):
        assert [args for args in told if args[2] == what][-1][:2] == (20, 20)


# bad input


def bad_files() -> dict[str, tuple[bytes, str]]:
    photo = encoded(pixels(1, 64, 64), "JPEG")
    return {
        "cat/empty.jpg": (b"", "is empty (0 bytes)"),
        "cat/cut.jpg": (photo[: len(photo) // 2], "is cut off: its end is missing"),
        "dog/text.jpg": (b"not found\n", "is text, not an image"),
    }


def test_files_that_are_no_images_are_named_with_the_fix(pets: Path, state: Path) -> None:
    for name, (content, _) in bad_files().items():
        write(pets / name, content)
    for source in (pets, zipped(pets, pets.parent / "pets.zip"), tarred(pets, pets.parent / "pets.tar.gz")):
        with pytest.raises(AuditError) as caught:
            prepared(source)
        text = str(caught.value)
        assert "3 files cannot be read" in text
        for name, (_, reason) in bad_files().items():
            assert f"{name} {reason}" in text
        assert "data.audit.unreadable=quarantine" in text
        assert (caught.value.report / "report.html").is_file()
    assert left_in(state) == []


def test_of_many_unreadable_files_ten_are_named(pets: Path) -> None:
    for number in range(13):
        write(pets / "cat" / f"bad{number:02d}.png", b"")
    with pytest.raises(DataError, match=r"13[\s\S]*bad09[\s\S]*3 more") as caught:
        prepared(pets)
    assert "bad10" not in str(caught.value)


def test_unreadable_files_are_left_out_when_asked_and_recorded(pets: Path, tmp_path: Path) -> None:
    clean = prepared(pets)
    dirty = shutil.copytree(pets, tmp_path / "dirty")
    for name, (content, _) in bad_files().items():
        write(dirty / name, content)
    record = prepared(dirty, audit={"unreadable": "quarantine"})
    assert record.digest == clean.digest
    assert record.test_digest == clean.test_digest
    assert record.counts == clean.counts
    (finding,) = [finding for finding in record.findings if finding.kind == "unreadable"]
    assert (finding.policy, sorted(finding.files)) == ("quarantine", sorted(bad_files()))
    seen, expected = images_by_id(record), images_by_id(clean)
    assert all((seen[name] == image).all() for name, image in expected.items())
    arrays = datasets.open_arrays(record.path)
    used = {sample_id for name in arrays.indices for sample_id in arrays.split(name).sample_ids()}
    assert used == expected.keys()


def test_a_class_whose_images_are_all_unreadable_is_named(pets: Path) -> None:
    for number in range(10):
        write(pets / "emu" / f"{number}.jpg", b"")
    with pytest.raises(DataError, match="'emu' has 0"):
        prepared(pets, audit={"unreadable": "quarantine"})


def test_nothing_but_unreadable_files_is_an_error_even_with_skip(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(4):
            write(tmp_path / "a" / name / f"{number}.jpg", b"text")
    with pytest.raises(DataError, match="None of the 8 files is a whole image:"):
        prepared(tmp_path / "a", audit={"unreadable": "quarantine"})


def test_converted_images_are_recorded_by_name(pets: Path) -> None:
    frames = [Image.new("P", (12, 12), colour) for colour in (0, 1)]
    for frame in frames:
        frame.putpalette([255, 0, 0, 0, 0, 255])
    frames[0].save(pets / "cat" / "moving.gif", save_all=True, append_images=frames[1:])
    write(pets / "cat" / "print.jpg", encoded(Image.new("CMYK", (12, 12), (0, 99, 99, 0)), "JPEG"))
    write(pets / "cat" / "still.gif", encoded(Image.new("P", (12, 12)), "GIF"))
    write(pets / "dog" / "scan.png", encoded(Image.fromarray(np.full((12, 12), 40_000, np.uint16))))
    write(pets / "dog" / "logo.png", encoded(Image.new("RGBA", (12, 12), (1, 2, 3, 4))))
    record = prepared(pets)
    files = {finding.kind: set(finding.files) for finding in record.findings}
    assert files["converted"] == {"cat/moving.gif", "cat/print.jpg", "cat/still.gif", "dog/logo.png", "dog/scan.png"}
    assert files["animated"] == {"cat/moving.gif"}
    assert images_by_id(record)["dog/scan.png"].max() == round(40_000 / 257)


@pytest.mark.parametrize(("folders", "message"), [(("cat",), "single class, 'cat'"), (("cat", "dog"), "has 2")])
def test_what_cannot_be_split_is_refused_and_leaves_nothing(
    tmp_path: Path, state: Path, folders: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepared(folder_of(tmp_path / "a", *folders, count=2))
    assert left_in(state) == []


def test_an_empty_class_folder_is_named_and_leaves_nothing(pets: Path, state: Path) -> None:
    (pets / "emu").mkdir()
    with pytest.raises(DataError, match="class folder 'emu' holds no images"):
        prepared(pets)
    assert left_in(state) == []


# the state folder


def test_a_full_disk_is_told_and_leaves_nothing(pets: Path, state: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StorageError, match=r"no space is left .* RECOGNITION_HOME"):
            prepared(pets, image_size=256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left_in(state) == []


def test_no_space_left_while_writing_is_told_and_leaves_nothing(
    pets: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ArrayWriter, index: int, pixels: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ArrayWriter, "put", full)
    with pytest.raises(StorageError, match=rf"{state}/images cannot be written: no space is left"):
        prepared(pets)
    assert left_in(state) == []


def test_too_little_space_is_told_before_decoding(pets: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="has no space for this"):
        prepared(pets)
    assert left_in(state) == []


def test_a_state_folder_that_cannot_be_written_is_told(pets: Path, state: Path) -> None:
    state.mkdir()
    write(state / "images", b"in the way")
    with pytest.raises(StorageError, match="RECOGNITION_HOME"):
        prepared(pets)


def test_an_interrupt_leaves_nothing(pets: Path, state: Path) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if what == "decoding images":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(Data(source=str(pets)), stop)
    assert left_in(state, "images") == left_in(state) == []


# real images


@pytest.mark.skipif(not (SHARED / "fashion_mnist").is_dir(), reason="../shared/data is absent")
def test_fashion_mnist_is_prepared_through_the_download_path() -> None:
    record = prepared("fashion_mnist", mirror=SHARED.as_uri())
    assert record.counts["test"] == 10_000
    assert record.counts["train"] + record.counts["val"] == 60_000
    assert record.counts["val"] == pytest.approx(6_000, abs=300)
    assert record.class_counts["test"] == dict.fromkeys(record.class_names, 1000)
    assert (record.height, record.width, record.channels) == (28, 28, 1)
    # the mean over all 60,000 that is usually given for this data set is 0.2860
    assert record.mean[0] == pytest.approx(0.2860, abs=0.001)
    assert record.std[0] == pytest.approx(0.3530, abs=0.001)


@pytest.mark.skipif(not (SHARED / "flowers-128px.zip").is_file(), reason="../shared/data is absent")
def test_an_archive_of_photos_is_prepared() -> None:
    record = prepared(SHARED / "flowers-128px.zip")
    assert record.class_names == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert (record.height, record.width, record.channels) == (128, 128, 3)
    # four photos are filed both as rose and as tulip
    assert sum(record.counts.values()) == 4317 - 8
    contents = datasets.open_arrays(record.path).images
    hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in contents]
    assert len(hashes) - len(set(hashes)) == 6  # pairs of identical files
