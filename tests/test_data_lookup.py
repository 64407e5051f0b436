"""One word names a version of data: a file, a folder, a digest, a run or a source."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from sample_images import encoded, folder_of, pixels, write, zipped

from recognition import datasets, tracking, versions
from recognition.data_lookup import samples_named
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DataError, DownloadError, TrackingError
from recognition.preparation import prepare
from recognition.records import PreparedData


@pytest.fixture
def pets(state: Path, tmp_path: Path) -> Path:
    return folder_of(tmp_path / "pets", "cat", "dog", count=10)


def prepared(source: Path, **settings: object) -> PreparedData:
    return prepare(Data.model_validate({"source": str(source), **settings}))


def test_a_version_is_found_by_its_table_folder_digest_or_the_digests_beginning(pets: Path) -> None:
    record = prepared(pets)
    other = folder_of(pets.parent / "other", "emu", "gnu", count=10)
    prepared(other)
    words = (
        record.path / "samples.parquet",
        record.path,
        record.path.name,
        record.digest,
        record.digest[:8],
        record.digest[:31],
    )
    expected = versions.read_samples(record.path / "samples.parquet")
    assert sorted(expected.sample_ids) == sorted(
        f"{name}/{number}.png" for name in ("cat", "dog") for number in range(10)
    )
    for word in words:
        found = samples_named(str(word))
        assert found.sample_ids == expected.sample_ids
        assert found.split == expected.split


def test_a_folder_is_found_below_the_users_home(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = prepared(pets)
    monkeypatch.setenv("HOME", str(record.path.parent))
    assert len(samples_named(f"~/{record.path.name}").sample_ids) == 20


def test_a_source_is_audited_and_not_prepared(pets: Path, state: Path) -> None:
    write(pets / "cat" / "broken.png", b"text")
    found = samples_named(str(pets))
    assert len(found.sample_ids) == 21
    assert dict(zip(found.sample_ids, found.left_out, strict=True))["cat/broken.png"] == "unreadable"
    assert not (state / "datasets").exists()
    zipped(pets, pets.parent / "pets.zip")
    assert samples_named(str(pets.parent / "pets.zip")).sample_ids == found.sample_ids


def test_a_folder_whose_name_looks_like_a_digest_is_a_source(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets.rename(pets.with_name("deadbeef"))
    monkeypatch.chdir(pets.parent)
    assert len(samples_named("deadbeef").sample_ids) == 20


def test_the_beginning_of_two_digests_is_not_taken_for_either(pets: Path) -> None:
    record = prepared(pets)
    other = shutil.copytree(record.path, record.path.with_name("0" * 16))
    digest = record.digest[:12] + "0" * 52
    changed = record.model_copy(update={"digest": digest})
    (other / datasets.RECORD).write_text(changed.model_dump_json())
    with pytest.raises(ConfigurationError, match=rf"{digest[:12]} is the beginning of 2 data sets' digests: give more"):
        samples_named(digest[:12])
    assert len(samples_named(digest).sample_ids) == 20


def test_one_digest_with_several_splits_is_not_taken_for_either(pets: Path) -> None:
    first, second = prepared(pets), prepared(pets, split_seed=1)
    assert first.digest == second.digest
    with pytest.raises(ConfigurationError, match="prepared with several splits") as caught:
        samples_named(first.digest)
    assert str(first.path) in str(caught.value)
    assert str(second.path) in str(caught.value)
    for record in (first, second):
        table = versions.read_samples(record.path / "samples.parquet")
        assert samples_named(record.path.name).split == table.split


def test_one_digest_of_a_folder_and_its_archive_is_one_version(pets: Path) -> None:
    first, second = prepared(pets), prepared(zipped(pets, pets.parent / "pets.zip"))
    assert first.path != second.path
    assert len(samples_named(first.digest).sample_ids) == 20


def test_a_damaged_data_set_beside_it_does_not_matter(pets: Path) -> None:
    record = prepared(pets)
    write(record.path.parent / ("0" * 16) / datasets.RECORD, b"{")
    assert len(samples_named(record.digest).sample_ids) == 20


def test_a_run_is_found_by_its_id(pets: Path) -> None:
    record = prepared(pets)
    store = tracking.client()
    run_id = store.create_run(store.create_experiment("pets", str(record.path.parent / "artifacts"))).info.run_id
    with pytest.raises(TrackingError, match=rf"Run {run_id} holds no data/samples.parquet"):
        samples_named(run_id)
    store.log_artifact(run_id, str(record.path / "samples.parquet"), "data")
    assert samples_named(run_id).split == versions.read_samples(record.path / "samples.parquet").split


@pytest.mark.server
def test_the_main_jobs_data_are_found_by_its_run(in_house: dict[str, Any]) -> None:
    of_run = samples_named(in_house["run_id"])
    digest = tracking.find_run(in_house["run_id"]).data.tags["data.digest"]
    assert len(of_run.sample_ids) == 1797
    assert samples_named(digest).split == of_run.split == samples_named("digits").split


@pytest.mark.parametrize(
    ("word", "error", "message"),
    [
        ("", ConfigurationError, "must name a data set, a folder, an archive or a manifest"),
        ("digit", ConfigurationError, "did you mean 'digits'"),
        ("abc1234", ConfigurationError, "'abc1234' is no known data set"),
        ("deadbeef", ConfigurationError, "No data set prepared here has a digest that begins with deadbeef"),
        ("a" * 32, TrackingError, "There is no run " + "a" * 32),
        ("b" * 64, ConfigurationError, "No data set prepared here"),
        ("/nowhere/samples.parquet", DataError, "/nowhere/samples.parquet .* there is no such file"),
        ("/nowhere/pets", DataError, "/nowhere/pets does not exist"),
        ("http://127.0.0.1:1/pets.zip", DownloadError, "http://127.0.0.1:1/pets.zip"),
    ],
)
def test_what_is_nowhere_is_told_by_its_name(
    state: Path, monkeypatch: pytest.MonkeyPatch, word: str, error: type[Exception], message: str
) -> None:
    from recognition.fetching import transfer

    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.001)
    with pytest.raises(error, match=message):
        samples_named(word)


def test_a_table_of_something_else_is_told(pets: Path) -> None:
    import pandas as pd

    pd.DataFrame({"loss": [1.0]}).to_parquet(pets / "samples.parquet")
    with pytest.raises(DataError, match="is no table of a data set's images"):
        samples_named(str(pets / "samples.parquet"))
    (pets / "samples.parquet").write_bytes(encoded(pixels(1)))
    with pytest.raises(DataError, match="it is damaged"):
        samples_named(str(pets))
