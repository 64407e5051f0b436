"""One machine decodes and publishes, the others fetch what they read; what is half there is not used."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_sets import instance_set
from conftest import free_port
from sample_images import folder_of

from recognition import datasets
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DownloadError, StorageError
from recognition.preparation import prepare
from recognition.records import PreparedData
from recognition.store import decoding, shard_cache, shard_writing, shared_store
from recognition.store.shards import ShardedImages

boto3 = pytest.importorskip("boto3")
s3fs = pytest.importorskip("s3fs")


@pytest.fixture
def bucket(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The client of an empty bucket ``stores``, which the environment names as the place of shared stores."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "no config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "RECOGNITION_STORE": "s3://stores/team/",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("RECOGNITION_STORE_CACHE_GB", raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="stores")
    yield client
    for key in keys(client):
        client.delete_object(Bucket="stores", Key=key)
    client.delete_bucket(Bucket="stores")
    client.close()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source of 48 images, which make six shards."""
    monkeypatch.setattr(shard_writing, "SHARD_BYTES", 8 * 12 * 12 * 3)
    return folder_of(tmp_path / "pets", "cat", "dog", count=24)


class Machines:
    """Machines: state folders of their own below one folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch

    def use(self, name: str) -> Path:
        """Be a machine from now on."""
        self._monkeypatch.setenv("RECOGNITION_HOME", str(self._folder / name))
        return self._folder / name

    def prepare(self, name: str, source: Path, **settings: object) -> PreparedData:
        self.use(name)
        return prepare(Data(source=str(source), **{"storage": "shards", **settings}))  # type: ignore[arg-type]


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    return Machines(tmp_path / "machines", monkeypatch)


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoding.pixels, "decode", fail)
    monkeypatch.setattr(decoding, "survey", fail)


def keys(client: Any) -> list[str]:
    return sorted(entry["Key"] for entry in client.list_objects_v2(Bucket="stores").get("Contents", ()))


def held(record: PreparedData) -> list[str]:
    """The shards that lie on a machine."""
    return sorted(path.name for path in (record.images / "shards").glob("*.arrow"))


def test_another_machine_decodes_nothing_and_reads_the_same(
    bucket: Any, pets: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = machines.prepare("a", pets)
    forbid_decoding(monkeypatch)
    with caplog.at_level(logging.INFO, logger="recognition"):
        second = machines.prepare("b", pets)
    assert "were decoded by another machine" in caplog.text
    changed = {"path", "images"}
    assert second.model_dump(exclude=changed) == first.model_dump(exclude=changed)
    assert second.path.is_relative_to(machines.use("b"))
    assert (len(held(first)), held(second)) == (6, []), "the audit of b reads no image"
    ours, theirs = datasets.open_arrays(first.path), datasets.open_arrays(second.path)
    assert isinstance(theirs.images, ShardedImages)
    for name, indices in ours.indices.items():
        np.testing.assert_array_equal(theirs.indices[name], indices)
    everything = np.arange(48)
    np.testing.assert_array_equal(theirs.images[everything], ours.images[everything])
    assert theirs.sample_ids() == ours.sample_ids()
    assert held(second) == held(first)


def test_only_the_shards_that_are_read_are_fetched(bucket: Any, pets: Path, machines: Machines) -> None:
    machines.prepare("a", pets)
    second = machines.prepare("b", pets)
    images = datasets.open_arrays(second.path).images
    assert isinstance(images, ShardedImages)
    images[images.indices_in(3)]
    assert [name[:5] for name in held(second)] == ["00003"]


def test_another_split_of_shared_images_decodes_nothing_either(
    bucket: Any, pets: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machines.prepare("a", pets)
    published = keys(bucket)
    forbid_decoding(monkeypatch)
    other = machines.prepare("b", pets, split_seed=1)
    assert (other.digest, other.images.name) == (first.digest, first.images.name)
    assert other.test_digest != first.test_digest
    assert keys(bucket) == published


def test_a_machine_keeps_no_more_than_the_operator_allows(
    bucket: Any, pets: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machines.prepare("a", pets)
    size = max(path.stat().st_size for path in (first.images / "shards").glob("*.arrow"))
    monkeypatch.setenv("RECOGNITION_STORE_CACHE_GB", str(2.5 * size / 1e9))
    second = machines.prepare("b", pets)
    images, expected = datasets.open_arrays(second.path).images, datasets.open_arrays(first.path).images
    assert isinstance(images, ShardedImages)
    for shard in (0, 1, 2, 3, 4, 5, 0):
        indices = images.indices_in(shard)
        np.testing.assert_array_equal(images[indices], expected[indices])
        assert len(held(second)) <= 2
    assert [name[:5] for name in held(second)] == ["00000", "00005"]
    assert len(held(first)) == 6, "the machine that decoded keeps its own"


@pytest.mark.parametrize("size", ["much", "-1", "nan", "inf", "1 GB"])
def test_a_wrong_size_of_the_cache_is_told_before_anything_is_decoded(
    pets: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    monkeypatch.setenv("RECOGNITION_STORE", "s3://stores/team")
    monkeypatch.setenv("RECOGNITION_STORE_CACHE_GB", size)
    forbid_decoding(monkeypatch)
    with pytest.raises(ConfigurationError, match=rf"RECOGNITION_STORE_CACHE_GB is '{size}': give a number of GB"):
        machines.prepare("a", pets)


def test_no_size_or_none_at_all_keeps_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECOGNITION_STORE_CACHE_GB", raising=False)
    assert shared_store.cache_bytes() == 0
    for text, expected in (("", 0), ("0", 0), (" 1.5 ", 1_500_000_000)):
        monkeypatch.setenv("RECOGNITION_STORE_CACHE_GB", text)
        assert shared_store.cache_bytes() == expected


@pytest.mark.parametrize("place", ["stores/team", "s3://", "s3:stores", "://stores"])
def test_a_place_that_is_no_address_is_told_before_anything_is_decoded(
    pets: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("RECOGNITION_STORE", place)
    forbid_decoding(monkeypatch)
    with pytest.raises(ConfigurationError, match=r"RECOGNITION_STORE is .*: give an address such as s3://bucket/"):
        machines.prepare("a", pets)


def test_without_a_place_each_machine_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECOGNITION_STORE", raising=False)
    assert shared_store.address_of("key") == ""
    monkeypatch.setenv("RECOGNITION_STORE", " s3://stores/team/ ")
    assert shared_store.address_of("key") == "s3://stores/team/key"


def test_a_half_published_store_is_not_used_and_is_completed_by_the_next(
    bucket: Any, pets: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machines.prepare("a", pets)
    whole = keys(bucket)
    for name in ("store.json", "measures.npy", f"shards/{held(first)[0]}"):
        bucket.delete_object(Bucket="stores", Key=f"team/{first.images.name}/{name}")
    second = machines.prepare("b", pets)
    assert held(second) == held(first), "b has decoded on its own"
    assert second.digest == first.digest
    assert keys(bucket) == whole
    forbid_decoding(monkeypatch)
    assert machines.prepare("c", pets).digest == first.digest


def test_the_record_that_makes_a_store_whole_is_published_last(
    bucket: Any, pets: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    for name in ("_put_file", "_pipe_file"):
        real = getattr(s3fs.S3FileSystem, name)

        async def noted(self: Any, *args: Any, _real: Any = real, **options: Any) -> Any:
            sent.extend(part for part in map(str, args[:2]) if part.startswith("stores/"))
            return await _real(self, *args, **options)

        monkeypatch.setattr(s3fs.S3FileSystem, name, noted)
    first = machines.prepare("a", pets)
    inner = [name.removeprefix(f"stores/team/{first.images.name}/") for name in sent]
    assert sorted(inner[:6]) == [f"shards/{name}" for name in held(first)]
    assert inner[6:] == ["shards/shards.json", "measures.npy", "sums.npy", "store.json"]


def test_a_fresh_preparation_decodes_again(bucket: Any, pets: Path, machines: Machines) -> None:
    first = machines.prepare("a", pets)
    machines.use("b")
    second = prepare(Data(source=str(pets), storage="shards"), fresh=True)
    assert held(second) == held(first)
    assert second.digest == first.digest


def test_an_array_is_not_shared(bucket: Any, pets: Path, machines: Machines) -> None:
    machines.prepare("a", pets, storage="array")
    assert keys(bucket) == []


def test_a_storage_that_does_not_answer_is_named_before_anything_is_decoded(
    bucket: Any, pets: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    forbid_decoding(monkeypatch)
    with pytest.raises(DownloadError, match=rf"s3://stores/team/\S+ cannot be fetched .*:{port}.* Check the address"):
        machines.prepare("a", pets)
    assert [path.name for path in (machines.use("a") / "images").iterdir() if path.suffix != ".lock"] == []


def test_a_storage_that_refuses_to_be_written_is_named_and_stops_nothing(
    bucket: Any,
    pets: Path,
    machines: Machines,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refuse(self: Any, *args: Any, **options: Any) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", refuse)
    record = machines.prepare("a", pets)
    assert "could not be handed on to other machines: s3://stores/team/" in caplog.text
    assert "cannot be written (PermissionError: Access Denied" in caplog.text
    assert len(datasets.open_arrays(record.path)) == 48


def test_a_shard_that_is_gone_from_the_storage_is_named_when_it_is_read(
    bucket: Any, pets: Path, machines: Machines
) -> None:
    first = machines.prepare("a", pets)
    second = machines.prepare("b", pets)
    gone = held(first)[2]
    bucket.delete_object(Bucket="stores", Key=f"team/{first.images.name}/shards/{gone}")
    images = datasets.open_arrays(second.path).images
    assert isinstance(images, ShardedImages)
    with pytest.raises(DownloadError, match=rf"s3://stores/team/\S+/{gone} cannot be fetched \(there is no such"):
        images[images.indices_in(2)]


def test_a_machine_whose_disk_is_full_says_what_to_do(
    bucket: Any, pets: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.prepare("a", pets)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_cache, "write_index", full)
    with pytest.raises(StorageError, match=r"no space is left .* RECOGNITION_HOME"):
        machines.prepare("b", pets)
    assert [path.name for path in (machines.use("b") / "images").iterdir() if path.suffix != ".lock"] == []


def test_objects_travel_with_their_images(
    bucket: Any, machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = instance_set(tmp_path / "discs")
    first = machines.prepare("first", source)
    monkeypatch.setattr(decoding, "_build", lambda *_: pytest.fail("decoded again"))
    second = machines.prepare("second", source)
    assert second.digest == first.digest
    before, after = (datasets.open_arrays(record.path).objects for record in (first, second))
    assert before is not None
    assert after is not None
    assert np.array_equal(after.of(2).masks, before.of(2).masks)  # type: ignore[arg-type]  # both have masks
