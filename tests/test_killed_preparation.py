"""Whatever ends a preparation half way, the next one gives what an undisturbed one gives, and clears up."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from sample_images import folder_of, zipped

from recognition import datasets, preparation, versions
from recognition.data_settings import Data
from recognition.errors import StorageError
from recognition.preparation import prepare
from recognition.records import PreparedData
from recognition.store.array_file import ArrayWriter
from recognition.store.shard_writing import ShardWriter

FOLDERS = ("images", "audits", "datasets")
NOTHING: dict[str, list[str]] = {"images": [], "audits": [], "datasets": []}


@pytest.fixture(autouse=True)
def own_state(state: Path) -> Path:
    return state


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of 300 images."""
    base = tmp_path_factory.mktemp("pets")
    return zipped(folder_of(base / "pets", "cat", "dog", "emu", count=100), base / "pets.zip")


def settings_of(source: Path, storage: str) -> Data:
    return Data.model_validate({"source": str(source), "storage": storage})


def left_in(state: Path) -> dict[str, list[str]]:
    """What lies in the state folder, except locks."""
    return {name: sorted(path.name for path in (state / name).glob("*") if path.suffix != ".lock") for name in FOLDERS}


def facts(record: PreparedData) -> dict[str, object]:
    """All that is known of a prepared data set, wherever it lies."""
    arrays = datasets.open_arrays(record.path)
    return {
        "record": json.dumps(record.model_dump(mode="json", exclude={"path", "images"}), sort_keys=True),
        "names": (record.path.name, record.images.name),
        "indices": {name: indices.tolist() for name, indices in arrays.indices.items()},
        "labels": arrays.labels.tolist(),
        "pixels": arrays.images[np.arange(len(arrays))].tobytes(),
        "samples": (record.path / versions.SAMPLES).read_bytes(),
    }


def assert_undisturbed(
    source: Path, storage: str, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepare here and in an empty state folder: both are the same, and nothing else is left here."""
    data = settings_of(source, storage)
    record = prepare(data)
    found = facts(record)
    assert left_in(state) == {
        "images": [record.images.name],
        "audits": [record.path.name],
        "datasets": [record.path.name],
    }
    monkeypatch.setenv("RECOGNITION_HOME", str(tmp_path / "another state"))
    assert found == facts(prepare(data))


# killed

PREPARE_AND_HANG = """
import sys, time
from pathlib import Path
from recognition import preparation, versions
from recognition.store import shards
from recognition.audit import report
from recognition.data_settings import Data
from recognition.store.shard_writing import ShardWriter

source, storage, moment, ready = sys.argv[1:]

def hang(*args, **options):
    Path(ready).touch()
    time.sleep(600)

def hang_while(done, total, what):
    if moment == "decoding" and what == "decoding images" and 0 < done < total:
        hang()

if moment == "sealing shards":
    ShardWriter.finish = hang
elif moment == "auditing":
    preparation.audit = hang
elif moment == "writing the report":
    preparation.markdown = hang
elif moment == "arranging":
    versions.dataset_digest = hang
preparation.prepare(Data(source=source, storage=storage), hang_while)
"""


def kill_while(moment: str, source: Path, storage: str, ready: Path) -> None:
    """Prepare in a process that is killed, without a chance to clear up, at some moment."""
    words = [sys.executable, "-c", PREPARE_AND_HANG, str(source), storage, moment, str(ready)]
    process = subprocess.Popen(words, cwd=ROOT)
    try:
        deadline = time.monotonic() + 120
        while not ready.exists():
            assert process.poll() is None, "it has ended before"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    ("moment", "storage", "whole", "half"),
    [
        ("decoding", "array", [], "images"),
        ("decoding", "shards", [], "images"),
        ("sealing shards", "shards", [], "images"),
        ("auditing", "array", ["images"], "audits"),
        ("writing the report", "array", ["images"], "audits"),
        ("arranging", "array", ["images", "audits"], "datasets"),
    ],
)
def test_after_a_kill_the_next_preparation_is_as_if_nothing_had_been(
    pets: Path,
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    storage: str,
    whole: list[str],
    half: str,
) -> None:
    kill_while(moment, pets, storage, tmp_path / "ready")
    left = left_in(state)
    (begun,) = left[half]
    assert begun.startswith("."), "what is half done has no name that anyone looks for"
    assert any((state / half / begun).iterdir()) or moment == "auditing"
    for name in whole:
        assert [path.startswith(".") for path in left[name]] == [False]
    kept = {path: path.stat().st_mtime_ns for name in whole for path in (state / name).glob("*/*") if path.is_file()}
    assert_undisturbed(pets, storage, state, tmp_path, monkeypatch)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "steps that were whole are not done again"


def test_after_a_kill_another_source_is_not_held_up(pets: Path, state: Path, tmp_path: Path) -> None:
    kill_while("decoding", pets, "array", tmp_path / "ready")
    other = folder_of(tmp_path / "other", "cat", "dog", count=10)
    assert sum(prepare(settings_of(other, "array")).counts.values()) == 20


# a full disk


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Nothing longer than so many bytes can be written, as on a disk that gets full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("storage", ["array", "shards"])
def test_a_disk_that_gets_full_while_decoding_leaves_nothing(
    pets: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    full = rf"{state}/images cannot be written: no space is left .* RECOGNITION_HOME"
    # the measures are longer than this, then shorter; the pixels are longer in both
    for size in (20_000, 100_000):
        with files_of_at_most(size), pytest.raises(StorageError, match=full):
            prepare(settings_of(pets, storage))
        assert left_in(state) == NOTHING
    assert_undisturbed(pets, storage, state, tmp_path, monkeypatch)


@pytest.mark.parametrize("writer", [ArrayWriter, ShardWriter])
def test_no_space_left_for_one_image_leaves_nothing(
    pets: Path, state: Path, monkeypatch: pytest.MonkeyPatch, writer: type[ArrayWriter] | type[ShardWriter]
) -> None:
    written: list[int] = []
    put = writer.put

    def put_some(self: ArrayWriter | ShardWriter, index: int, rows: np.ndarray) -> None:
        if len(written) == 200:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(index)
        put(self, index, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(writer, "put", put_some)
    with pytest.raises(StorageError, match=rf"{state}/images cannot be written: no space is left .* RECOGNITION_HOME"):
        prepare(settings_of(pets, "array" if writer is ArrayWriter else "shards"))
    assert left_in(state) == NOTHING


def test_a_disk_that_gets_full_while_auditing_leaves_the_images_alone(
    pets: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = prepare(settings_of(pets, "array")).images.name
    for name in ("audits", "datasets"):
        shutil.rmtree(state / name)
    full = rf"{state}/audits/\S+ cannot be written: no space is left .* RECOGNITION_HOME"
    with files_of_at_most(10_000), pytest.raises(StorageError, match=full):
        prepare(settings_of(pets, "array"))
    assert left_in(state) == {"images": [images], "audits": [], "datasets": []}
    assert_undisturbed(pets, "array", state, tmp_path, monkeypatch)


@pytest.mark.parametrize("part", ["write_report", "markdown"])
def test_no_space_left_for_the_report_leaves_no_audit(
    pets: Path, state: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(preparation, part, full)
    with pytest.raises(StorageError, match=rf"{state}/audits cannot be written: no space is left .* RECOGNITION_HOME"):
        prepare(settings_of(pets, "array"))
    assert left_in(state)["audits"] == left_in(state)["datasets"] == []


def test_a_disk_that_gets_full_while_arranging_leaves_the_audit_alone(
    pets: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = prepare(settings_of(pets, "array"))
    shutil.rmtree(state / "datasets")
    full = rf"{state}/datasets cannot be written: no space is left .* RECOGNITION_HOME"
    with files_of_at_most(10_000), pytest.raises(StorageError, match=full):
        prepare(settings_of(pets, "array"))
    assert left_in(state) == {"images": [record.images.name], "audits": [record.path.name], "datasets": []}
    assert_undisturbed(pets, "array", state, tmp_path, monkeypatch)


def test_no_space_left_for_the_list_of_a_split_leaves_no_data_set(state: Path, tmp_path: Path) -> None:
    """With 1797 images the list of training images (10 kB) is the first file that is too long."""
    prepare(Data(source="digits"))
    shutil.rmtree(state / "datasets")
    full = rf"{state}/datasets cannot be written: no space is left .* RECOGNITION_HOME"
    with files_of_at_most(9_000), pytest.raises(StorageError, match=full):
        prepare(Data(source="digits"))
    assert left_in(state)["datasets"] == []


# at once


def _prepare_and_count(source: str, state: str) -> tuple[dict[str, object], int]:
    os.environ["RECOGNITION_HOME"] = state  # this module, imported anew, has taken it away
    written = []
    put = ShardWriter.put

    def counted(self: ShardWriter, index: int, pixels: np.ndarray) -> None:
        written.append(index)
        put(self, index, pixels)

    ShardWriter.put = counted  # type: ignore[method-assign]
    return facts(prepare(settings_of(Path(source), "shards"))), len(written)


def test_two_processes_that_prepare_the_same_shards_decode_once(pets: Path, state: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        (first, ours), (second, theirs) = pool.starmap(_prepare_and_count, [(str(pets), str(state))] * 2, chunksize=1)
    assert first == second
    assert sorted((ours, theirs)) == [0, 300]
    assert {name: len(left) for name, left in left_in(state).items()} == dict.fromkeys(FOLDERS, 1)


def test_one_who_waits_for_a_process_that_is_killed_goes_on(
    pets: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [sys.executable, "-c", PREPARE_AND_HANG, str(pets), "shards", "decoding", str(tmp_path / "ready")]
    first = subprocess.Popen(words, cwd=ROOT)
    try:
        while not (tmp_path / "ready").exists():
            assert first.poll() is None
            time.sleep(0.02)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            waiting = pool.apply_async(_prepare_and_count, (str(pets), str(state)))
            with pytest.raises(multiprocessing.TimeoutError):
                waiting.get(4)
            first.send_signal(signal.SIGKILL)
            first.wait()
            found, decoded = waiting.get(60)
    finally:
        first.kill()
        first.wait()
    assert decoded == 300
    assert facts(prepare(settings_of(pets, "shards"))) == found
    assert_undisturbed(pets, "shards", state, tmp_path, monkeypatch)
