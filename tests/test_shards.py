"""Shards give back every image by its index, in whatever order they were written, here or in object storage."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from recognition.errors import ConfigurationError, DataError, DownloadError
from recognition.pixels import Pixels
from recognition.store import shard_cache
from recognition.store.shard_files import INDEX, ShardIndex, read_index
from recognition.store.shard_writing import ShardWriter, expected_bytes, fitting_rows, spreading_step
from recognition.store.shards import ShardedImages, ShardOrder, keep_channels


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def photographs(count: int, side: int, channels: int = 3) -> Pixels:
    """Smooth images of several colours, for which JPEG was made."""
    rows, columns = np.mgrid[:side, :side] / side
    images = [
        [128 + 100 * np.sin(3 * rows + number + channel) * np.cos(4 * columns - channel) for channel in range(channels)]
        for number in range(count)
    ]
    return np.array(images).transpose(0, 2, 3, 1).astype(np.uint8)


def written(folder: Path, images: Pixels, rows: int = 7, codec: str = "auto") -> ShardedImages:
    with ShardWriter(folder, images.shape, rows, codec) as writer:  # type: ignore[arg-type]
        for index, pixels in enumerate(images):
            writer.put(index, pixels)
    return ShardedImages(folder)


# writing and reading


@pytest.mark.parametrize("shape", [(50, 8, 8, 1), (50, 5, 9, 3), (1, 4, 4, 3), (7, 4, 4, 3), (14, 4, 4, 1)])
def test_small_images_come_back_bit_for_bit(tmp_path: Path, shape: tuple[int, int, int, int]) -> None:
    images = noise(*shape)
    read = written(tmp_path / "set", images)
    assert read.shape == shape
    assert len(read) == shape[0]
    assert not read.is_encoded
    order = np.random.default_rng(1).permutation(shape[0])
    np.testing.assert_array_equal(read[order], images[order])


@pytest.mark.parametrize("channels", [1, 3])
def test_large_images_are_jpegs_that_differ_little(tmp_path: Path, channels: int) -> None:
    images = photographs(9, 96, channels)
    read = written(tmp_path / "set", images)
    assert read.is_encoded
    difference = np.abs(read[np.arange(9)].astype(int) - images)
    assert difference.mean() < 1
    assert difference.max() <= 8


def test_what_is_read_is_what_pillow_decodes_of_the_arrow_file(tmp_path: Path) -> None:
    import io

    import pyarrow as pa
    from PIL import Image

    images = photographs(5, 64)
    read = written(tmp_path / "set", images, rows=8)
    (path,) = (tmp_path / "set").glob("*.arrow")
    with pa.memory_map(str(path)) as file:
        contents = pa.ipc.open_file(file).read_all()["image"].to_pylist()
    decoded = [np.asarray(Image.open(io.BytesIO(content))) for content in contents]
    step = spreading_step(5)
    for index in range(5):
        np.testing.assert_array_equal(read[index], decoded[index * step % 5])


def test_indices_may_be_a_number_a_slice_or_repeated(tmp_path: Path) -> None:
    images = noise(20, 4, 4, 3)
    read = written(tmp_path / "set", images)
    np.testing.assert_array_equal(read[3], images[3])
    np.testing.assert_array_equal(read[-1], images[-1])
    np.testing.assert_array_equal(read[2:15:3], images[2:15:3])
    np.testing.assert_array_equal(read[np.array([5, 5, 0])], images[[5, 5, 0]])
    assert read[np.array([], np.int64)].shape == (0, 4, 4, 3)
    for outside in (20, -21):
        with pytest.raises(IndexError):
            read[outside]


def test_threads_may_write_in_any_order(tmp_path: Path) -> None:
    images = noise(500, 6, 6, 3)
    order = list(range(500))
    random.Random(0).shuffle(order)
    with ShardWriter(tmp_path / "set", images.shape, 64) as writer, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: writer.put(index, images[index]), order))
    np.testing.assert_array_equal(ShardedImages(tmp_path / "set")[:], images)


def test_the_files_do_not_depend_on_the_order_of_writing(tmp_path: Path) -> None:
    images = noise(60, 6, 6, 3)
    written(tmp_path / "one", images)
    with ShardWriter(tmp_path / "other", images.shape, 7) as writer:
        for index in reversed(range(60)):
            writer.put(index, images[index])
    one, other = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "other"))
    assert one == other


def test_images_that_never_came_are_black(tmp_path: Path) -> None:
    images = photographs(10, 64)
    with ShardWriter(tmp_path / "set", images.shape, 3) as writer:
        for index in range(0, 10, 3):
            writer.put(index, images[index])
    read = ShardedImages(tmp_path / "set")[:]
    assert [bool(image.any()) for image in read] == [index % 3 == 0 for index in range(10)]


@pytest.mark.parametrize("side", [8, 64])
def test_gray_images_stored_as_colour_are_read_as_gray(tmp_path: Path, side: int) -> None:
    gray = photographs(6, side, 1)
    kept = written(tmp_path / "gray", gray)[:]
    written(tmp_path / "colour", np.repeat(gray, 3, axis=3))
    keep_channels(tmp_path / "colour", 1)
    read = ShardedImages(tmp_path / "colour")
    assert read.shape == (6, side, side, 1)
    # a JPEG of gray pixels in colour holds the same brightness but for a rounding
    assert np.abs(read[:].astype(int) - kept).max() <= (0 if side == 8 else 2)


def test_a_set_travels_to_other_processes_as_its_place(tmp_path: Path) -> None:
    images = noise(300, 8, 8, 3)
    read = written(tmp_path / "set", images)
    assert len(pickle.dumps(read)) < 500
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(read))[:], images)


def test_a_forked_process_reads_what_its_parent_has_opened(tmp_path: Path) -> None:
    images = noise(100, 8, 8, 3)
    read = written(tmp_path / "set", images)
    np.testing.assert_array_equal(read[:50], images[:50])
    with multiprocessing.get_context("fork").Pool(2, initializer=_take, initargs=(read,)) as pool:
        parts = pool.map(_sum_of, range(100))
    assert parts == images.reshape(100, -1).sum(axis=1).tolist()


_taken: list[ShardedImages] = []


def _take(images: ShardedImages) -> None:
    _taken.append(images)


def _sum_of(index: int) -> int:
    return int(_taken[-1][index].sum())


def test_shards_are_of_one_size_of_about_64_megabytes() -> None:
    assert fitting_rows((1_000_000, 32, 32, 3), "raw") == 21_740  # in 46 shards, 3,072 bytes an image
    assert fitting_rows((100, 32, 32, 3), "raw") == 100
    assert fitting_rows((3, 20_000, 20_000, 3), "jpeg") == 1
    assert expected_bytes((1000, 32, 32, 3)) == 3_072_000 + (64 << 20)
    assert expected_bytes((10**6, 224, 224, 3)) < 0.16 * 10**6 * 224 * 224 * 3


@pytest.mark.parametrize("length", [1, 2, 3, 10, 97, 1000, 4096, 123_457])
def test_rows_are_a_rearrangement_that_spreads_every_class_over_all_shards(length: int) -> None:
    step = spreading_step(length)
    rows = np.arange(length) * step % length
    assert len(np.unique(rows)) == length
    if length >= 4096:
        tenth = rows[: length // 10]  # one class of ten, at the start of a sorted source
        counts, _ = np.histogram(tenth, bins=16, range=(0, length))
        expected = length / 160
        assert np.abs(counts - expected).max() <= 0.05 * expected + 2  # by chance it would be 10 % here


# what is missing or damaged


@pytest.fixture
def a_set(tmp_path: Path) -> Path:
    written(tmp_path / "set", photographs(30, 64), rows=8)
    return tmp_path / "set"


def test_a_missing_or_cut_shard_is_named_with_the_fix(a_set: Path) -> None:
    first, second, *_ = sorted(a_set.glob("*.arrow"))
    content = second.read_bytes()
    second.write_bytes(content[:-10])
    with pytest.raises(DataError, match=rf"{second} is no whole shard \(it holds .* prepare the data again"):
        ShardedImages(a_set)
    second.write_bytes(content)
    first.unlink()
    with pytest.raises(DataError, match=rf"{first} is no whole shard \(it is missing\): remove the folder {a_set}"):
        ShardedImages(a_set)


def test_a_shard_that_is_cut_or_removed_while_it_is_in_use_is_named(a_set: Path) -> None:
    images = ShardedImages(a_set)
    images[:]
    first, second, *_ = sorted(a_set.glob("*.arrow"))
    os.truncate(first, 1000)
    second.unlink()
    for shard, path in enumerate((first, second)):
        with pytest.raises(DataError, match=path.name):
            images[images.indices_in(shard)]


@pytest.mark.parametrize("where", ["offsets", "image", "end"])
def test_damage_inside_a_shard_is_told_and_never_ends_the_process(a_set: Path, where: str) -> None:
    first = min(a_set.glob("*.arrow"))
    content = bytearray(first.read_bytes())
    jpeg = content.index(b"\xff\xd8\xff")
    places = {"offsets": (jpeg - 64, jpeg), "image": (jpeg, jpeg + 100), "end": (-40, len(content))}
    damage = slice(*places[where])
    content[damage] = b"\xfe" * len(content[damage])
    first.write_bytes(content)
    images = ShardedImages(a_set)
    with pytest.raises(DataError, match=f"{first.name} is no whole shard"):
        images[images.indices_in(0)]


@pytest.mark.parametrize("content", [None, "", "{", '{"version": 2}'])
def test_a_folder_without_a_whole_index_is_no_set(a_set: Path, content: str | None) -> None:
    (a_set / INDEX).unlink()
    if content is not None:
        (a_set / INDEX).write_text(content)
    with pytest.raises(DataError, match="holds no whole set of shards: prepare the data again"):
        ShardedImages(a_set)


WRITE_WITHOUT_END = """
import sys, numpy as np
from pathlib import Path
from recognition.store.shard_writing import ShardWriter
writer = ShardWriter(Path(sys.argv[1]), (100_000_000, 8, 8, 3), 1024)
for index in range(100_000_000):
    writer.put(index, np.full((8, 8, 3), index % 256, np.uint8))
"""


def test_a_killed_writer_leaves_no_set_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    process = subprocess.Popen([sys.executable, "-c", WRITE_WITHOUT_END, str(folder)], cwd=ROOT)
    while not list(folder.glob("*.arriving")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(DataError, match="holds no whole set"):
        ShardedImages(folder)
    images = noise(20, 8, 8, 3)
    np.testing.assert_array_equal(written(folder, images)[:], images)
    assert list(folder.glob("*.arriving")) == []


def test_a_writer_that_fails_leaves_no_set_not_even_the_older_one(tmp_path: Path) -> None:
    images = noise(20, 8, 8, 3)
    written(tmp_path / "set", images)

    def fail_half_way() -> None:
        with ShardWriter(tmp_path / "set", images.shape, 7) as writer:
            writer.put(0, images[0])
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    with pytest.raises(DataError):
        ShardedImages(tmp_path / "set")


# the order of a split


def test_each_shard_names_its_images_and_no_image_is_in_two(tmp_path: Path) -> None:
    images = written(tmp_path / "set", noise(53, 4, 4, 1))
    found = [images.indices_in(shard) for shard in range(images.shards)]
    assert [len(indices) for indices in found] == [7] * 7 + [4]
    assert sorted(np.concatenate(found)) == list(range(53))


def test_an_epoch_visits_each_image_of_a_split_once_in_another_order(tmp_path: Path) -> None:
    images = written(tmp_path / "set", noise(200, 4, 4, 1))
    indices = np.flatnonzero(np.random.default_rng(0).random(200) < 0.6)
    order = ShardOrder(images, indices)
    epochs = [np.concatenate(list(order.shuffled(5, epoch))) for epoch in range(3)]
    for positions in (*epochs, np.concatenate(list(order.in_sequence()))):
        assert sorted(positions) == list(range(len(indices)))
    assert len({tuple(positions) for positions in epochs}) == 3
    np.testing.assert_array_equal(np.concatenate(list(order.shuffled(5, 0))), epochs[0])


def test_a_window_touches_only_its_own_shards(tmp_path: Path) -> None:
    images = written(tmp_path / "set", noise(300, 4, 4, 1))
    order = ShardOrder(images, np.arange(0, 300, 2))
    shard_of = {int(index): shard for shard in range(images.shards) for index in images.indices_in(shard)}
    seen: list[set[int]] = [{shard_of[int(2 * p)] for p in window} for window in order.shuffled(0, 0)]
    assert all(len(shards) <= 8 for shards in seen)
    assert sum(len(shards) for shards in seen) == len(set.union(*seen)) == images.shards


def test_a_split_that_misses_whole_shards_is_ordered_all_the_same(tmp_path: Path) -> None:
    images = written(tmp_path / "set", noise(100, 4, 4, 1))
    for indices in (np.array([42]), np.array([], np.int64), np.array([0, 99])):
        found = list(ShardOrder(images, indices).shuffled(0, 0))
        assert sorted(np.concatenate(found)) == list(range(len(indices)))


# object storage


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket on a real S3 server of this machine."""
    import boto3
    import requests
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    requests.post(f"{s3_endpoint}/moto-api/reset", timeout=30)  # what earlier tests have put there
    boto3.client("s3").create_bucket(Bucket="shards")
    yield "s3://shards/pets"
    s3fs.S3FileSystem.clear_instance_cache()


def held(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.arrow"))


def test_shards_in_object_storage_are_fetched_when_they_are_read(tmp_path: Path, bucket: str) -> None:
    images = noise(50, 8, 8, 3)
    local = written(tmp_path / "set", images)
    shard_cache.upload(local.folder, bucket)
    remote = ShardedImages(bucket, tmp_path / "cache")
    assert remote.shape == local.shape
    assert held(remote.folder) == []
    np.testing.assert_array_equal(remote[local.indices_in(2)], images[local.indices_in(2)])
    assert held(remote.folder) == held(local.folder)[2:3]
    np.testing.assert_array_equal(remote[:], images)
    assert held(remote.folder) == held(local.folder)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(remote))[:], images)


def test_several_processes_fetch_a_shard_once(tmp_path: Path, bucket: str) -> None:
    images = noise(50, 8, 8, 3)
    shard_cache.upload(written(tmp_path / "set", images).folder, bucket)
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        results = pool.map(_read_remote, [(bucket, tmp_path / "cache")] * 2, chunksize=1)
    assert [total for total, _ in results] == [int(images.sum())] * 2
    assert sorted(name for _, fetched in results for name in fetched) == held(tmp_path / "set")


def _read_remote(where: tuple[str, Path]) -> tuple[int, list[str]]:
    from s3fs import S3FileSystem

    fetched = []
    original = S3FileSystem._get_file

    async def counted(self: S3FileSystem, source: str, *args: object, **options: object) -> None:
        fetched.append(source.rpartition("/")[2])
        await original(self, source, *args, **options)

    S3FileSystem._get_file = counted
    return int(ShardedImages(*where)[:].sum()), fetched


def test_forked_processes_fetch_after_their_parent_has(tmp_path: Path, bucket: str) -> None:
    images = noise(50, 8, 8, 3)
    shard_cache.upload(written(tmp_path / "set", images).folder, bucket)
    remote = ShardedImages(bucket, tmp_path / "cache")
    remote[remote.indices_in(0)]
    with multiprocessing.get_context("fork").Pool(2, initializer=_take, initargs=(remote,)) as pool:
        assert pool.map(_sum_of, range(50)) == images.reshape(50, -1).sum(axis=1).tolist()


def test_the_cache_keeps_to_its_size_and_drops_what_was_not_used_for_longest(tmp_path: Path, bucket: str) -> None:
    images = noise(56, 8, 8, 3)
    local = written(tmp_path / "set", images)  # 8 shards
    shard_cache.upload(local.folder, bucket)
    size = max(path.stat().st_size for path in local.folder.glob("*.arrow"))
    remote = ShardedImages(bucket, tmp_path / "cache", cache_bytes=3 * size)
    for shard in (0, 1, 2, 0, 3):
        indices = local.indices_in(shard)
        np.testing.assert_array_equal(remote[indices], images[indices])
    names = held(local.folder)
    assert held(remote.folder) == [names[0], names[2], names[3]]
    np.testing.assert_array_equal(remote[:], images)  # what one read needs stays, whatever the size


def test_another_version_at_the_same_address_shares_nothing_with_the_first(tmp_path: Path, bucket: str) -> None:
    first, second = noise(20, 8, 8, 3), 255 - noise(20, 8, 8, 3)
    for name, images in (("one", first), ("two", second)):
        shard_cache.upload(written(tmp_path / name, images).folder, bucket)
        np.testing.assert_array_equal(ShardedImages(bucket, tmp_path / "cache")[:], images)


def test_a_half_upload_is_no_set_and_is_completed_by_the_next(tmp_path: Path, bucket: str) -> None:
    images = noise(20, 8, 8, 3)
    local = written(tmp_path / "set", images)
    last = local.folder / held(local.folder)[-1]
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(DownloadError, match="cannot be written"):
        shard_cache.upload(local.folder, bucket)
    with pytest.raises(DownloadError, match=rf"{bucket}/{INDEX} cannot be fetched \(there is no such object\)"):
        ShardedImages(bucket, tmp_path / "cache")
    last.write_bytes(content)
    shard_cache.upload(local.folder, bucket)
    np.testing.assert_array_equal(ShardedImages(bucket, tmp_path / "cache")[:], images)


def test_a_shard_that_is_missing_or_another_one_in_object_storage_is_named(tmp_path: Path, bucket: str) -> None:
    import boto3

    local = written(tmp_path / "set", noise(20, 8, 8, 3))
    shard_cache.upload(local.folder, bucket)
    first, second, _ = held(local.folder)
    client = boto3.client("s3")
    client.delete_object(Bucket="shards", Key=f"pets/{first}")
    client.put_object(Bucket="shards", Key=f"pets/{second}", Body=b"something else")
    remote = ShardedImages(bucket, tmp_path / "cache")
    with pytest.raises(DownloadError, match=rf"{bucket}/{first} cannot be fetched"):
        remote[remote.indices_in(0)]
    with pytest.raises(DownloadError, match=rf"{bucket}/{second} is not the shard that shards.json names"):
        remote[remote.indices_in(1)]
    assert held(remote.folder) == []


def test_an_address_of_an_unknown_kind_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere:// cannot be used here: use s3, gs or az"):
        ShardedImages("nowhere://bucket/pets", tmp_path)


def test_a_name_in_an_index_stays_inside_its_folder(a_set: Path) -> None:
    index = read_index(a_set)
    for name in ("../evil.arrow", "/etc/evil.arrow", "a/b.arrow", ".arrow"):
        evil = index.shards[0].model_dump() | {"name": name}
        changed = index.model_dump(mode="json") | {"shards": [evil]}
        with pytest.raises(ValueError, match="name"):
            ShardIndex.model_validate(changed)
