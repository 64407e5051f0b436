"""Files are fetched whole and unchanged, or not at all; against a real local server."""

from __future__ import annotations

import errno
import hashlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from recognition.errors import DownloadError, StorageError
from recognition.fetching import transfer
from recognition.fetching.downloads import fetch, fetch_archive
from recognition.progress import silent

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@dataclass
class Server:
    """What the server holds, how it misbehaves, and what it was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """For each coming request, how many bytes of the body are sent before the connection ends."""
    failures: list[int] = field(default_factory=list)
    """Status codes of the coming requests."""
    knows_ranges: bool = True
    lies_about_ranges: bool = False
    gzip_header: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and Range header of each request."""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.asked.append((self.path, wanted))
            content = state.files.get(self.path)
            if state.failures:
                self.send_error(state.failures.pop(0))
                return
            if content is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.knows_ranges else 0
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                said = start + 7 if state.lies_about_ranges else start
                self.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
            if state.gzip_header:
                self.send_header("Content-Encoding", "gzip")
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            self.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.001)


def get(downloads: Path, *mirrors: str, checksum: str = MD5, mirror: str = "") -> Path:
    return fetch("things", "a.bin", checksum, [f"{base}/" for base in mirrors], mirror, downloads, silent)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_file_is_fetched_once_and_progress_counts_bytes(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    told: list[tuple[int, int, str]] = []
    path = fetch("things", "a.bin", MD5, [f"{server.address}/"], "", tmp_path, lambda *args: told.append(args))
    assert path == tmp_path / "things" / "a.bin"
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT), "fetching a.bin")
    assert get(tmp_path, server.address) == path
    assert len(server.asked) == 1
    assert files_in(tmp_path) == {"a.bin"}


def test_a_damaged_file_on_disk_is_fetched_again(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    get(tmp_path, server.address).write_bytes(b"damaged")
    assert get(tmp_path, server.address).read_bytes() == CONTENT


def test_a_cut_connection_is_resumed_where_it_was_cut(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    server.cuts = [100_000, 50_000]
    assert get(tmp_path, server.address).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ["", "bytes=100000-", "bytes=150000-"]


def test_a_server_that_often_cuts_is_resumed_as_long_as_bytes_come(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    server.cuts = [30_000] * 9
    assert get(tmp_path, server.address).read_bytes() == CONTENT


def test_a_server_that_cannot_resume_is_asked_from_the_start(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    server.knows_ranges = False
    server.cuts = [100_000]
    assert get(tmp_path, server.address).read_bytes() == CONTENT


def test_a_server_that_always_cuts_at_the_same_place_is_given_up(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    server.knows_ranges = False
    server.cuts = [100_000] * 100
    with pytest.raises(DownloadError, match="the connection was cut after 100,000"):
        get(tmp_path, server.address)
    assert len(server.asked) <= 2 * transfer.ATTEMPTS


def test_a_server_that_continues_elsewhere_is_not_believed(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    server.lies_about_ranges = True
    server.cuts = [100_000]
    assert get(tmp_path, server.address).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ["", "bytes=100000-", ""]


def test_what_an_earlier_process_left_is_continued(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    part = tmp_path / "things" / "a.bin.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:200_000])
    assert get(tmp_path, server.address).read_bytes() == CONTENT
    assert server.asked == [("/a.bin", "bytes=200000-")]


def test_a_wrong_beginning_left_by_an_earlier_process_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    part = tmp_path / "things" / "a.bin.part"
    part.parent.mkdir()
    for wrong in (b"x" * 200_000, CONTENT, CONTENT + b"more"):
        part.write_bytes(wrong)
        assert get(tmp_path, server.address).read_bytes() == CONTENT
        (tmp_path / "things" / "a.bin").unlink()


def test_a_gz_file_is_kept_as_it_is_when_the_server_calls_it_encoded(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    server.gzip_header = True
    assert get(tmp_path, server.address).read_bytes() == CONTENT


def test_passing_troubles_of_a_server_are_retried(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    server.failures = [503, 429, 500]
    assert get(tmp_path, server.address).read_bytes() == CONTENT


def test_a_missing_file_is_not_asked_for_twice(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="HTTP 404"):
        get(tmp_path, server.address)
    assert len(server.asked) == 1


def test_the_second_mirror_is_used_when_the_first_is_down(server: Server, tmp_path: Path) -> None:
    server.files["/good/a.bin"] = CONTENT
    path = get(tmp_path, "http://127.0.0.1:1", f"{server.address}/missing", f"{server.address}/good")
    assert path.read_bytes() == CONTENT


def test_the_second_mirror_is_used_when_the_first_gives_something_else(server: Server, tmp_path: Path) -> None:
    server.files |= {"/bad/a.bin": b"something else", "/good/a.bin": CONTENT}
    assert get(tmp_path, f"{server.address}/bad", f"{server.address}/good").read_bytes() == CONTENT


def test_a_wrong_checksum_names_file_expected_and_got_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = b"something else"
    with pytest.raises(DownloadError) as caught:
        get(tmp_path, server.address)
    got = hashlib.md5(b"something else").hexdigest()
    assert "a.bin could not be fetched" in str(caught.value)
    assert f"expected {MD5}, got md5:{got}" in str(caught.value)
    assert files_in(tmp_path) == set()


def test_when_all_mirrors_are_down_each_is_named_with_its_reason_and_the_fix(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        get(tmp_path, "http://127.0.0.1:1", server.address)
    lines = str(caught.value).splitlines()
    assert lines[1] == "  http://127.0.0.1:1/a.bin: the connection was refused (tried 4 times)"
    assert lines[2] == f"  {server.address}/a.bin: HTTP 404 Not Found"
    assert "set data.mirror to a folder or an address that holds things/a.bin" in lines[3]
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("kind", ["folder", "file address", "http"])
def test_a_mirror_of_ones_own_holds_data_set_and_file_name(server: Server, tmp_path: Path, kind: str) -> None:
    own = tmp_path / "own mirror"
    (own / "things").mkdir(parents=True)
    (own / "things" / "a.bin").write_bytes(CONTENT)
    server.files["/base/things/a.bin"] = CONTENT
    mirror = {"folder": str(own), "file address": own.as_uri(), "http": f"{server.address}/base/"}[kind]
    assert get(tmp_path / "downloads", "http://127.0.0.1:1", mirror=mirror).read_bytes() == CONTENT


def test_with_a_mirror_of_ones_own_nothing_else_is_asked(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    with pytest.raises(DownloadError, match="No such file") as caught:
        get(tmp_path, server.address, mirror=str(tmp_path / "empty"))
    assert "data.mirror" in str(caught.value)
    assert server.asked == []


def test_an_archive_is_kept_by_its_address(server: Server, tmp_path: Path) -> None:
    server.files |= {"/one/pets.zip": CONTENT, "/two/pets.zip": b"others"}
    one = fetch_archive(f"{server.address}/one/pets.zip", "", tmp_path, silent)
    two = fetch_archive(f"{server.address}/two/pets.zip", "", tmp_path, silent)
    assert (one.name, one.read_bytes(), two.name, two.read_bytes()) == ("pets.zip", CONTENT, "pets.zip", b"others")
    assert fetch_archive(f"{server.address}/one/pets.zip", MD5, tmp_path, silent) == one
    assert len(server.asked) == 2


@pytest.mark.parametrize("checksum", ["", MD5])
def test_a_missing_archive_has_advice_about_a_checksum_only_where_one_is_given(
    server: Server, tmp_path: Path, checksum: str
) -> None:
    with pytest.raises(DownloadError, match="HTTP 404") as caught:
        fetch_archive(f"{server.address}/pets.zip", checksum, tmp_path, silent)
    assert ("data.checksum" in str(caught.value)) is bool(checksum)
    assert str(caught.value).splitlines()[-1].startswith("Check the address")


def test_a_server_out_of_reach_is_warned_of_once(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.files["/pets.zip"] = CONTENT
    address = f"{server.address}/pets.zip"
    path = fetch_archive(address, "", tmp_path, silent)
    with caplog.at_level(logging.WARNING, "recognition"):
        server.failures = [503] * 100
        assert fetch_archive(address, "", tmp_path, silent) == path
        assert [record.message.count("cannot be asked") for record in caplog.records] == [1]
        assert fetch_archive(address, "", tmp_path, silent, is_told=True) == path
        assert len(caplog.records) == 1


def test_an_archive_with_another_checksum_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["/pets.zip"] = CONTENT
    with pytest.raises(DownloadError, match=r"pets\.zip: wrong checksum, expected sha256:0+, got sha256:") as caught:
        fetch_archive(f"{server.address}/pets.zip", "sha256:" + "0" * 64, tmp_path, silent)
    assert "correct data.checksum" in str(caught.value)
    assert files_in(tmp_path) == set()


def test_a_name_in_an_address_cannot_leave_the_folder(server: Server, tmp_path: Path) -> None:
    server.files["/..%2F..%2Fevil.zip"] = CONTENT
    path = fetch_archive(f"{server.address}/..%2F..%2Fevil.zip", "", tmp_path / "downloads", silent)
    assert path.resolve().is_relative_to(tmp_path / "downloads" / "archives")


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/a.bin"] = CONTENT

    def full(done: int, total: int, what: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"no space is left .* RECOGNITION_HOME") as caught:
        fetch("things", "a.bin", MD5, [f"{server.address}/"], "", tmp_path, full)
    assert str(tmp_path / "things") in str(caught.value)
    assert files_in(tmp_path) == set()


def test_too_little_space_is_told_before_anything_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    server.files["/a.bin"] = CONTENT
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="has no space"):
        get(tmp_path, server.address)
    assert files_in(tmp_path) == set()


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="RECOGNITION_HOME"):
        get(tmp_path / "file", "http://127.0.0.1:1")
