"""Archives, images and folders in object storage, against a real S3 server on this machine."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from recognition.access import Access
from recognition.data_settings import Limits
from recognition.errors import ConfigurationError, DataError, DownloadError, RecognitionError
from recognition.fetching import object_storage, transfer
from recognition.fetching.downloads import fetch_archive, fetch_folder, fetch_objects, validators
from recognition.fetching.remote import Mark
from recognition.progress import silent

boto3 = pytest.importorskip("boto3")
pytest.importorskip("s3fs")

CONTENT = np.random.default_rng(0).bytes(300_000)
SECRET = "HUSH-HUSH-secret-key"


@pytest.fixture
def bucket(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket named ``images``; the environment holds where it is and who may read it."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "HUSH-HUSH-key-id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "no config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.001)
    client = boto3.client("s3")
    client.create_bucket(Bucket="images")
    yield _Bucket(client)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="images"):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket="images", Key=entry["Key"])
    client.delete_bucket(Bucket="images")
    client.close()


class _Bucket:
    def __init__(self, client: Any) -> None:
        self.client = client

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket="images", Key=key, Body=content)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket="images", Key=key)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of which content was read."""
    import s3fs

    seen: list[str] = []
    real = s3fs.S3FileSystem.cat_file

    def cat_file(self: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(path)
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", cat_file)
    return seen


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_comes_in_ranges_and_only_once(
    bucket: _Bucket, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "BLOCK", 100_000)
    bucket.put("sets/a.zip", CONTENT)
    told: list[tuple[int, int, str]] = []
    path = fetch_archive("s3://images/sets/a.zip", "", tmp_path, lambda *args: told.append(args))
    assert path.read_bytes() == CONTENT
    assert told == [(100_000 * n, 300_000, "fetching a.zip") for n in (1, 2, 3)]
    assert len(reads) == 3
    assert fetch_archive("s3://images/sets/a.zip", "", tmp_path, silent) == path
    assert len(reads) == 3
    bucket.put("sets/a.zip", b"other")
    assert fetch_archive("s3://images/sets/a.zip", "", tmp_path, silent).read_bytes() == b"other"
    fetch_archive("s3://images/sets/a.zip", "", tmp_path, silent, fresh=True)
    assert len(reads) == 5


def test_an_archive_that_was_cut_goes_on_where_it_was_cut(
    bucket: _Bucket, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "BLOCK", 100_000)
    bucket.put("a.zip", CONTENT)

    def stop(done: int, total: int, what: str) -> None:
        if done == 200_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_archive("s3://images/a.zip", "", tmp_path, stop)
    assert fetch_archive("s3://images/a.zip", "", tmp_path, silent).read_bytes() == CONTENT
    assert len(reads) == 3


def test_an_archive_that_changed_since_it_was_cut_begins_anew(
    bucket: _Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "BLOCK", 100_000)
    bucket.put("a.zip", CONTENT)
    told: list[int] = []

    def replaced(done: int, total: int, what: str) -> None:
        told.append(done)
        if len(told) == 1:
            bucket.put("a.zip", CONTENT[::-1])

    assert fetch_archive("s3://images/a.zip", "", tmp_path, replaced).read_bytes() == CONTENT[::-1]


def test_a_manifest_and_its_images_come_from_storage(bucket: _Bucket, tmp_path: Path) -> None:
    bucket.put("labels.csv", b"image,label\n")
    assert fetch_archive("s3://images/labels.csv", "", tmp_path, silent).read_bytes() == b"image,label\n"
    for number in range(20):
        bucket.put(f"{number}.png", bytes([number]))
    found = fetch_objects([f"s3://images/{number}.png" for number in range(21)], tmp_path, silent)
    assert [path.read_bytes() for path in found[:20] if isinstance(path, Path)] == [bytes([n]) for n in range(20)]
    assert found[20] == "there is no such object or bucket"


def test_a_folder_is_mirrored_and_only_what_changed_is_fetched_again(
    bucket: _Bucket, tmp_path: Path, reads: list[str]
) -> None:
    expected = {f"train/{name}/{n}.png": f"{name}{n}".encode() for name in ("cat", "dög ' \"") for n in range(6)}
    for name, content in expected.items():
        bucket.put(f"pets/{name}", content)
    bucket.put("pets/empty.png", b"")
    bucket.put("pets/train/cat/", b"")
    bucket.put("pets-too/train/cat/9.png", b"of another folder")
    told: list[tuple[int, int, str]] = []
    folder = fetch_folder("s3://images/pets/", tmp_path, lambda *args: told.append(args))
    assert tree(folder) == expected | {"empty.png": b""}
    total = sum(map(len, expected.values()))
    assert told[-1] == (total, total, "fetching 13 objects")
    before = validators("s3://images/pets")
    reads.clear()
    assert fetch_folder("s3://images/pets", tmp_path, silent) == folder
    assert reads == []

    bucket.put("pets/train/cat/0.png", b"CAT0")
    bucket.delete("pets/train/cat/1.png")
    bucket.delete("pets/empty.png")
    bucket.put("pets/empty.png/a.png", b"now a folder")
    (folder / "train/cat/2.png").write_bytes(b"")
    fetch_folder("s3://images/pets", tmp_path, silent)
    assert sorted(reads) == [
        f"images/pets/{name}" for name in ("empty.png/a.png", "train/cat/0.png", "train/cat/2.png")
    ]
    changed = {"train/cat/0.png": b"CAT0", "empty.png/a.png": b"now a folder"}
    assert tree(folder) == {k: v for k, v in (expected | changed).items() if k != "train/cat/1.png"}
    assert validators("s3://images/pets") != before
    reads.clear()
    fetch_folder("s3://images/pets", tmp_path, silent, fresh=True)
    assert len(reads) == len(tree(folder))


def test_a_folder_that_was_interrupted_goes_on(bucket: _Bucket, tmp_path: Path, reads: list[str]) -> None:
    for number in range(100):
        bucket.put(f"pets/{number}.png", b"x" * number)
    told: list[int] = []

    def stop(done: int, total: int, what: str) -> None:
        told.append(done)
        if len(told) == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_folder("s3://images/pets", tmp_path, stop)
    reads.clear()
    folder = fetch_folder("s3://images/pets", tmp_path, silent)
    assert tree(folder) == {f"{number}.png": b"x" * number for number in range(100)}
    assert len(reads) <= 50


PROGRAM = """
import os, signal, sys
from pathlib import Path
from recognition.fetching.downloads import fetch_folder
told = []
def die(done, total, what):
    told.append(done)
    if len(told) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
fetch_folder(sys.argv[1], Path(sys.argv[2]), die)
"""


def test_a_folder_whose_process_was_killed_goes_on(bucket: _Bucket, tmp_path: Path, reads: list[str]) -> None:
    for number in range(60):
        bucket.put(f"pets/{number}.png", b"x" * number)
    words = [sys.executable, "-c", PROGRAM, "s3://images/pets", str(tmp_path)]
    assert subprocess.run(words, cwd=ROOT, timeout=120).returncode == -9
    folder = fetch_folder("s3://images/pets", tmp_path, silent)
    assert tree(folder) == {f"{number}.png": b"x" * number for number in range(60)}
    assert len(reads) <= 40


def test_out_of_reach_a_whole_folder_is_used_and_another_is_not(
    bucket: _Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.put("pets/a.png", b"a")
    folder = fetch_folder("s3://images/pets", tmp_path, silent)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with caplog.at_level(logging.WARNING, "recognition"):
        assert fetch_folder("s3://images/pets", tmp_path, silent) == folder
    assert "what was fetched before is used" in caplog.text
    with pytest.raises(DownloadError, match="does not answer"):
        fetch_folder("s3://images/dogs", tmp_path, silent)
    with pytest.raises(DownloadError, match="does not answer"):
        fetch_archive("s3://images/a.zip", "", tmp_path, silent)
    assert validators("s3://images/a.zip") == ""


@pytest.mark.parametrize(
    "name", ["../evil.png", "a/../../evil.png", "a/../b.png", "/etc/evil.png", "a//b.png", "./a.png", "x" * 250]
)
def test_no_object_name_leads_out_of_the_folder(bucket: _Bucket, tmp_path: Path, name: str) -> None:
    bucket.put("pets/a.png", b"a")
    bucket.put(f"pets/{name}", b"evil")
    with pytest.raises(DataError, match="cannot be a file below a folder"):
        fetch_folder("s3://images/pets", tmp_path / "downloads", silent)
    assert not list(tmp_path.rglob("*.png"))


def test_a_name_that_no_system_allows_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be a file"):
        object_storage.below("a\0b", "s3://images")
    assert object_storage.below("a/b\n\"'…\\.png", "s3://images") == PurePosixPath("a/b\n\"'…\\.png")


def test_an_object_that_is_a_folder_too_is_refused(bucket: _Bucket, tmp_path: Path) -> None:
    bucket.put("pets/cat", b"a")
    bucket.put("pets/cat/1.png", b"b")
    with pytest.raises(DataError, match="an object and a folder at once"):
        fetch_folder("s3://images/pets", tmp_path, silent)


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (Limits(files=1), "files"),
        (Limits(gigabytes=0.0005), "gigabytes"),
        (Limits(file_megabytes=0.2), "file_megabytes"),
    ],
)
def test_a_folder_beyond_the_limits_is_refused_before_it_is_fetched(
    bucket: _Bucket, tmp_path: Path, reads: list[str], limits: Limits, setting: str
) -> None:
    bucket.put("pets/a.png", CONTENT)
    bucket.put("pets/b.png", CONTENT)
    with pytest.raises(DataError, match=rf"data\.limits\.{setting} "):
        fetch_folder("s3://images/pets", tmp_path, silent, limits=limits)
    assert reads == []


def test_what_is_not_there_is_said_in_a_sentence(bucket: _Bucket, tmp_path: Path) -> None:
    bucket.put("a.png", b"a")
    with pytest.raises(DownloadError, match="no such object"):
        fetch_archive("s3://images/missing.zip", "", tmp_path, silent)
    with pytest.raises(DownloadError, match="no such object"):
        fetch_folder("s3://nobody/pets", tmp_path, silent)
    with pytest.raises(DataError, match="holds no objects"):
        fetch_folder("s3://images/pets", tmp_path, silent)
    with pytest.raises(DownloadError, match="one object, not a folder"):
        fetch_folder("s3://images/a.png", tmp_path, silent)
    with pytest.raises(ConfigurationError, match="no bucket"):
        fetch_folder("s3:///pets", tmp_path, silent)
    with pytest.raises(ConfigurationError, match="object storage"):
        fetch_folder("http://127.0.0.1/pets", tmp_path, silent)


@pytest.mark.parametrize(
    ("scheme", "extra", "library"), [("s3", "s3", "s3fs"), ("gs", "gcs", "gcsfs"), ("az", "azure", "adlfs")]
)
def test_a_missing_library_is_named_with_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str, library: str
) -> None:
    known = importlib.import_module("fsspec.registry")._registry  # what it has imported before
    monkeypatch.delitem(known, scheme, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    expected = rf"uv pip install -e '.*\[{extra}\]'"
    with pytest.raises(ConfigurationError, match=expected):
        fetch_archive(f"{scheme}://images/a.zip", "", tmp_path, silent)
    with pytest.raises(ConfigurationError, match=expected):
        fetch_folder(f"{scheme}://images/a", tmp_path, silent)
    with pytest.raises(ConfigurationError, match=expected):
        fetch_objects([f"{scheme}://images/a.png"], tmp_path, silent)


def test_a_worker_reads_storage_only_where_the_scheme_is_allowed(bucket: _Bucket, tmp_path: Path) -> None:
    bucket.put("pets/a.png", b"a")
    fetch_folder("s3://images/pets", tmp_path, silent, Access(restricted=True))
    no_storage = Access(restricted=True, schemes=("https",))
    with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_SCHEMES"):
        fetch_folder("s3://images/pets", tmp_path, silent, no_storage)
    [found] = fetch_objects(["s3://images/pets/a.png"], tmp_path, silent, no_storage)
    assert "RECOGNITION_ALLOWED_SCHEMES" in str(found)


def test_an_address_of_storage_is_never_a_chain_that_leads_elsewhere(bucket: _Bucket, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for address in (f"s3://images/a.zip::file://{secret}", f"s3://images::file://{secret}"):
        with pytest.raises(RecognitionError):
            fetch_archive(address, "", tmp_path / "downloads", silent)
        [found] = fetch_objects([address], tmp_path / "downloads", silent)
        assert isinstance(found, str)


def test_no_credential_of_the_environment_is_logged_or_told(
    bucket: _Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "HUSH-HUSH-session")
    bucket.put("pets/a.png", b"a")
    told = ""
    with caplog.at_level(logging.DEBUG):
        fetch_folder("s3://images/pets", tmp_path, silent)
        fetch_archive("s3://images/pets/a.png", "", tmp_path, silent)
        for address in ("s3://images/missing", "s3://nobody/a.zip", f"s3://HUSH-HUSH-key-id:{SECRET}@images/a"):
            with pytest.raises(RecognitionError) as caught:
                fetch_archive(address, "", tmp_path, silent)
            told += f"{caught.value!r} {caught.value.__cause__!r}"
    assert "HUSH" not in told
    assert "HUSH" not in caplog.text


def test_versions_are_told_apart_by_tag_then_by_time_and_length() -> None:
    assert Mark('"a"', "x", 1).is_version_of(Mark('"a"', "y", 2))
    assert not Mark('"a"').is_version_of(Mark('"b"'))
    assert Mark("", "x", 1).is_version_of(Mark('"b"', "x", 1))
    assert not Mark("", "x", 1).is_version_of(Mark("", "x", 2))
    assert not Mark().is_version_of(Mark())
    assert Mark('W/"a"', "x").condition == "x"
