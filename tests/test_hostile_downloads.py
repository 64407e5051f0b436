"""Addresses and servers that mean harm, and deaths in the middle: nothing half is used, nothing forbidden is read."""

from __future__ import annotations

import hashlib
import json
import logging
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from answering import Answer, Server, answering, redirect, status, whole
from conftest import ROOT

from recognition.access import UNRESTRICTED, Access
from recognition.data_settings import Limits
from recognition.errors import ConfigurationError, DataError, DownloadError, RecognitionError, StorageError
from recognition.fetching import http_requests, parallel_downloads, transfer
from recognition.fetching.downloads import fetch, fetch_archive, fetch_folder, fetch_objects, validators
from recognition.progress import silent

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
RESTRICTED = Access(restricted=True)


@pytest.fixture
def server() -> Iterator[Server]:
    with answering() as state:
        yield state


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.001)


def allowing(server: Server) -> Access:
    return Access(restricted=True, hosts=(server.host,))


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


# Addresses and redirects


@pytest.mark.parametrize("kind", ["private host", "file", "path", "link below a root", "ftp"])
def test_a_worker_fetches_nothing_from_where_it_may_not_read(server: Server, tmp_path: Path, kind: str) -> None:
    server.answers["/a.zip"] = whole(CONTENT)
    secret, root = tmp_path / "secret.zip", tmp_path / "root"
    secret.write_bytes(CONTENT)
    root.mkdir()
    (root / "a.zip").symlink_to(secret)
    address = {
        "private host": f"{server.address}/a.zip",
        "file": secret.as_uri(),
        "path": str(secret),
        "link below a root": (root / "a.zip").as_uri(),
        "ftp": "ftp://127.0.0.1/a.zip",
    }[kind]
    access = Access(restricted=True, roots=(root,))
    for checksum in ("", SHA256):
        with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_"):
            fetch_archive(address, checksum, tmp_path / "downloads", silent, access)
    with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_"):
        validators(address, access)
    with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_"):
        fetch("things", "a.zip", SHA256, [], address, tmp_path / "downloads", silent, access)
    [found] = fetch_objects([address], tmp_path / "downloads", silent, access)
    assert "RECOGNITION_ALLOWED_" in str(found)
    assert server.asked == []
    assert files_in(tmp_path / "downloads") == set()


def test_what_another_run_fetched_is_not_given_to_a_worker_that_may_not(server: Server, tmp_path: Path) -> None:
    server.answers["/a.zip"] = whole(CONTENT)
    address = f"{server.address}/a.zip"
    fetch_archive(address, "", tmp_path, silent, UNRESTRICTED)
    fetch_objects([address], tmp_path, silent, UNRESTRICTED)
    with pytest.raises(ConfigurationError):
        fetch_archive(address, "", tmp_path, silent, RESTRICTED)
    [found] = fetch_objects([address], tmp_path, silent, RESTRICTED)
    assert isinstance(found, str)


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/hostname",
        "ftp://127.0.0.1/a.zip",
        "gopher://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/a.zip",
        "//127.0.0.2/a.zip",
        "http://2130706433/a.zip",
        "http://[::ffff:127.0.0.1]/a.zip",
        "http://[1/",
    ],
)
def test_a_redirect_may_not_lead_a_worker_where_an_address_may_not(server: Server, tmp_path: Path, target: str) -> None:
    server.answers["/a.zip"] = redirect(target)
    server.answers["/far.zip"] = redirect("/a.zip")
    for name in ("a.zip", "far.zip"):
        with pytest.raises(DownloadError, match="redirected to"):
            fetch_archive(f"{server.address}/{name}", "", tmp_path, silent, allowing(server))
        [found] = fetch_objects([f"{server.address}/{name}"], tmp_path, silent, allowing(server))
        assert "redirected to" in str(found)
        assert validators(f"{server.address}/{name}", allowing(server)) == ""
    assert files_in(tmp_path) == set()


def test_the_body_of_a_redirect_is_not_read(server: Server, tmp_path: Path) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /b.zip\r\n\r\n")
        while not server.over.is_set():
            request.wfile.write(b"x" * 65_536)

    server.answers |= {"/a.zip": endless, "/b.zip": whole(CONTENT)}
    assert fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent).read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/a.zip"])
def test_a_redirect_leads_nobody_out_of_http(server: Server, tmp_path: Path, target: str) -> None:
    server.answers["/a.zip"] = redirect(target)
    with pytest.raises(DownloadError, match="only http and https are followed"):
        fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent)


def test_redirects_are_followed_where_they_may_lead(server: Server, tmp_path: Path) -> None:
    for hop in range(5):
        server.answers[f"/{hop}"] = redirect(f"/{hop + 1}", (301, 302, 303, 307, 308)[hop])
    server.answers["/5"] = whole(CONTENT)
    path = fetch_archive(f"{server.address}/0", "", tmp_path, silent, allowing(server))
    assert path.read_bytes() == CONTENT
    server.answers["/5"] = redirect("/6")
    server.answers["/6"] = whole(CONTENT)
    with pytest.raises(DownloadError, match="redirected more than 5 times"):
        fetch_archive(f"{server.address}/0", "", tmp_path / "other", silent)


def test_a_name_that_resolves_anew_to_a_private_address_is_asked_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is checked, private when it is connected to."""
    import urllib3.util.connection

    server.answers["/a.zip"] = whole(CONTENT)
    public = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))]
    port = int(server.host.rpartition(":")[2])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: public)
    monkeypatch.setattr(
        urllib3.util.connection,
        "create_connection",
        lambda *args, **kwargs: real_connection(port),
    )

    def real_connection(port: int) -> socket.socket:
        found = socket.socket()
        found.connect(("127.0.0.1", port))
        return found

    with pytest.raises(DownloadError, match=r"rebind\.example is not public"):
        fetch_archive("http://rebind.example/a.zip", "", tmp_path, silent, RESTRICTED)
    assert server.asked == []
    assert fetch_archive("http://rebind.example/a.zip", "", tmp_path, silent).read_bytes() == CONTENT


# Servers that stall, cut or lie


def dripping(server: Server, start: bytes, drop: bytes, seconds: float) -> Answer:
    """``start`` at once, then a drop every so many seconds until the test ends."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(start)
        while not server.over.wait(seconds):
            request.wfile.write(drop)

    return answer


def test_a_server_that_says_nothing_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_requests, "TIMEOUT", (1.0, 0.05))
    server.answers["/a.zip"] = lambda request: server.over.wait(60) and None
    with pytest.raises(DownloadError, match="no answer in time"):
        fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent)
    assert len(server.asked) == transfer.ATTEMPTS


@pytest.mark.parametrize("framed", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_a_server_that_drips_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framed: str
) -> None:
    monkeypatch.setattr(transfer, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(transfer, "SLOW_RATE", 1 << 20)
    drop = b"x" if "Length" in framed else b"1\r\nx\r\n"
    server.answers["/a.zip"] = dripping(server, f"HTTP/1.1 200 OK\r\n{framed}\r\n\r\n".encode(), drop, 0.01)
    with pytest.raises(DownloadError, match="the server stalled after"):
        fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent)
    assert len(server.asked) == transfer.ATTEMPTS
    assert files_in(tmp_path) == set()


def test_a_server_that_drips_its_header_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_requests, "HEADER_SECONDS", 0.1)
    server.answers["/a.zip"] = dripping(server, b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.01)
    with pytest.raises(DownloadError, match="no answer in time"):
        fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent)
    assert files_in(tmp_path) == set()


def test_a_header_that_is_cut_is_no_empty_file(server: Server, tmp_path: Path) -> None:
    server.answers["/a.zip"] = lambda request: request.wfile.write(b"HTTP/1.1 200 OK\r\nConte") and None
    with pytest.raises(DownloadError, match="cut"):
        fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent)
    assert files_in(tmp_path) == set()


def test_a_body_that_is_shorter_than_said_is_not_taken(server: Server, tmp_path: Path) -> None:
    server.answers["/a.zip"] = whole(CONTENT, '"one"', length=400_000)
    with pytest.raises(DownloadError, match=r"continue|cut after 300,000 of 400,000"):
        fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent)
    assert not list(tmp_path.rglob("a.zip"))


def test_a_body_that_is_longer_than_said_is_taken_as_long_as_said(server: Server, tmp_path: Path) -> None:
    server.answers["/a.zip"] = whole(CONTENT, length=200_000)
    assert fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent).read_bytes() == CONTENT[:200_000]
    with pytest.raises(DownloadError, match="wrong checksum"):
        fetch_archive(f"{server.address}/a.zip", SHA256, tmp_path / "other", silent)
    assert files_in(tmp_path / "other") == set()


@pytest.mark.parametrize("said", ["-5", "many", "10\r\nContent-Length: 20"])
def test_a_length_that_is_none_is_no_traceback(server: Server, tmp_path: Path, said: str) -> None:
    server.answers["/a.zip"] = lambda request: (
        request.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {said}\r\n\r\n".encode() + b"x" * 15) and None
    )
    try:
        path = fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent)
    except DownloadError:
        assert files_in(tmp_path) == set()
    else:
        assert path.read_bytes() == b"x" * 15


@pytest.mark.parametrize("declared", [True, False])
def test_more_than_the_limit_is_not_taken(server: Server, tmp_path: Path, declared: bool) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        length = "Content-Length: 9000000000000\r\n" if declared else ""
        request.wfile.write(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())
        while not server.over.is_set():
            request.wfile.write(b"x" * 65_536)

    server.answers["/a.zip"] = endless
    for checksum in ("", SHA256):
        with pytest.raises(DownloadError, match=r"larger than the 1 MB that data\.limits\.gigabytes allows"):
            fetch_archive(f"{server.address}/a.zip", checksum, tmp_path, silent, limit_bytes=1_000_000)
    limits = Limits(file_megabytes=1)
    [found] = fetch_objects([f"{server.address}/a.zip"], tmp_path, silent, limits=limits)
    assert "data.limits.file_megabytes" in str(found)
    assert files_in(tmp_path) == set()


def test_a_content_that_changes_between_two_requests_is_never_mixed(server: Server, tmp_path: Path) -> None:
    def cut(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b'HTTP/1.1 200 OK\r\nETag: "one"\r\nContent-Length: 300000\r\n\r\n' + CONTENT[:100_000])
        server.answers["/a.zip"] = whole(OTHER, '"two"')

    server.answers["/a.zip"] = cut
    assert fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent).read_bytes() == OTHER


def test_a_range_of_another_version_is_not_believed(server: Server, tmp_path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Range"):  # whatever If-Range says
            head = (
                b'HTTP/1.1 206 P\r\nETag: "two"\r\nContent-Range: bytes 100000-299999/300000\r\nContent-Length: 200000'
            )
            request.wfile.write(head + b"\r\n\r\n" + OTHER[100_000:])
        elif len(server.asked) == 1:
            head = b'HTTP/1.1 200 OK\r\nETag: "one"\r\nContent-Length: 300000\r\n\r\n'
            request.wfile.write(head + CONTENT[:100_000])
        else:
            whole(OTHER, '"two"')(request)

    server.answers["/a.zip"] = answer
    assert fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent).read_bytes() == OTHER


def test_a_mirror_that_is_a_device_is_no_file(tmp_path: Path) -> None:
    things = tmp_path / "mirror" / "things"
    things.mkdir(parents=True)
    (things / "a.bin").symlink_to("/dev/zero")
    with pytest.raises(DownloadError, match="it is no file"):
        fetch("things", "a.bin", SHA256, [], str(tmp_path / "mirror"), tmp_path / "downloads", silent)


# What is there already


def test_with_the_right_checksum_nothing_is_asked(server: Server, tmp_path: Path) -> None:
    server.answers["/a.zip"] = whole(CONTENT)
    address = f"{server.address}/a.zip"
    path = fetch_archive(address, SHA256, tmp_path, silent)
    assert fetch_archive(address, SHA256, tmp_path, silent) == path
    assert len(server.asked) == 1


def test_without_a_checksum_an_archive_is_fetched_again_when_it_has_changed(server: Server, tmp_path: Path) -> None:
    address = f"{server.address}/a.zip"
    server.answers["/a.zip"] = whole(CONTENT, '"one"')
    fetch_archive(address, "", tmp_path, silent)
    assert fetch_archive(address, "", tmp_path, silent).read_bytes() == CONTENT
    assert [method for method, _, _ in server.asked] == ["GET", "HEAD"]
    server.answers["/a.zip"] = whole(OTHER, '"two"')
    assert fetch_archive(address, "", tmp_path, silent).read_bytes() == OTHER
    assert fetch_archive(address, "", tmp_path, silent).read_bytes() == OTHER
    assert [method for method, _, _ in server.asked] == ["GET", "HEAD", "HEAD", "GET", "HEAD"]


def test_a_server_without_head_is_asked_otherwise(server: Server, tmp_path: Path) -> None:
    def no_head(request: BaseHTTPRequestHandler) -> None:
        (status(405) if request.command == "HEAD" else whole(CONTENT, '"one"'))(request)

    server.answers["/a.zip"] = no_head
    assert validators(f"{server.address}/a.zip") == '"one"'


def test_validators_change_with_the_content_and_are_empty_out_of_reach(server: Server) -> None:
    server.answers |= {"/tag": whole(CONTENT, '"one"'), "/length": whole(CONTENT)}
    assert validators(f"{server.address}/tag") == '"one"'
    assert validators(f"{server.address}/length") == "300000 bytes"
    assert validators(f"{server.address}/missing") == ""
    assert validators("http://127.0.0.1:1/a.zip") == ""


def test_out_of_reach_what_is_there_is_used_with_a_warning(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"{server.address}/a.zip"
    server.answers["/a.zip"] = whole(CONTENT, '"one"')
    fetch_archive(address, "", tmp_path, silent)
    server.answers["/a.zip"] = status(503)
    with caplog.at_level(logging.WARNING, "recognition"):
        assert fetch_archive(address, "", tmp_path, silent).read_bytes() == CONTENT
    assert "what was fetched before is used" in caplog.text
    with pytest.raises(DownloadError, match="503"):
        fetch_archive(address, "", tmp_path, silent, fresh=True)


def test_a_file_that_was_shortened_on_disk_is_fetched_again(server: Server, tmp_path: Path) -> None:
    server.answers["/a.zip"] = whole(CONTENT, '"one"')
    path = fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent)
    path.write_bytes(CONTENT[:-1])
    assert fetch_archive(f"{server.address}/a.zip", "", tmp_path, silent).read_bytes() == CONTENT


@pytest.mark.parametrize("checksum", ["", SHA256])
def test_fresh_fetches_anew(server: Server, tmp_path: Path, checksum: str) -> None:
    server.answers["/a.zip"] = whole(CONTENT, '"one"')
    for _ in range(2):
        fetch_archive(f"{server.address}/a.zip", checksum, tmp_path, silent, fresh=True)
    assert [method for method, _, _ in server.asked] == ["GET", "GET"]


# Deaths in the middle

PROGRAM = """
import sys
from pathlib import Path
from recognition.fetching.downloads import fetch_archive
from recognition.progress import silent
fetch_archive(sys.argv[1], sys.argv[2], Path(sys.argv[3]), silent)
"""


def killed_in_the_middle(server: Server, tmp_path: Path, checksum: str, etag: str) -> None:
    """Start a download in a process of its own and kill it when 100,000 of 300,000 bytes have come."""

    def half(request: BaseHTTPRequestHandler) -> None:
        tag = f"ETag: {etag}\r\n" if etag else ""
        request.wfile.write(f"HTTP/1.1 200 OK\r\n{tag}Content-Length: 300000\r\n\r\n".encode() + CONTENT[:100_000])
        server.over.wait(60)

    server.answers["/a.zip"] = half
    words = [sys.executable, "-c", PROGRAM, f"{server.address}/a.zip", checksum, str(tmp_path)]
    process = subprocess.Popen(words, cwd=ROOT)
    deadline = time.monotonic() + 60
    while not any(part.stat().st_size == 100_000 for part in tmp_path.rglob("*.part")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.rglob("a.zip"))


@pytest.mark.parametrize(
    ("checksum", "etag", "now", "asked"),
    [
        (SHA256, '"one"', CONTENT, "bytes=100000-"),
        (SHA256, "", CONTENT, "bytes=100000-"),
        ("", '"one"', CONTENT, "bytes=100000-"),
        ("", "", CONTENT, ""),
        ("", '"one"', OTHER, "bytes=100000-"),
    ],
    ids=["checksum and tag", "checksum", "tag", "neither", "tag, and it has changed"],
)
def test_after_a_kill_in_the_middle_a_download_is_resumed_or_redone(
    server: Server, tmp_path: Path, checksum: str, etag: str, now: bytes, asked: str
) -> None:
    killed_in_the_middle(server, tmp_path, checksum, etag)
    server.asked.clear()
    server.answers["/a.zip"] = whole(now, etag if now is CONTENT else '"two"')
    assert fetch_archive(f"{server.address}/a.zip", checksum, tmp_path, silent).read_bytes() == now
    assert server.asked[0] == ("GET", "/a.zip", asked)
    assert files_in(tmp_path) <= {"a.zip", "a.zip.meta.json"}


@pytest.mark.parametrize("what", ["archive", "objects"])
def test_a_disk_that_is_full_in_the_middle_is_told_and_leaves_nothing_half(
    server: Server, tmp_path: Path, what: str
) -> None:
    """The system refuses to write more than 200,000 bytes into one file, as a full disk would."""
    address = f"{server.address}/a.zip"
    server.answers["/a.zip"] = whole(CONTENT, '"one"')
    get: Callable[[], object] = {
        "archive": lambda: fetch_archive(address, "", tmp_path, silent),
        "objects": lambda: fetch_objects([address], tmp_path, silent),
    }[what]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(StorageError, match="no space is left"):
            get()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_in(tmp_path) == set()


def test_a_full_disk_does_not_lose_what_was_there(server: Server, tmp_path: Path) -> None:
    address = f"{server.address}/a.zip"
    server.answers["/a.zip"] = whole(OTHER[:1000], '"one"')
    path = fetch_archive(address, "", tmp_path, silent)
    server.answers["/a.zip"] = whole(CONTENT, '"two"')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(StorageError):
            fetch_archive(address, "", tmp_path, silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == OTHER[:1000]
    assert fetch_archive(address, "", tmp_path, silent).read_bytes() == CONTENT


# Many files


def test_images_of_a_manifest_come_side_by_side_each_with_its_file_or_reason(server: Server, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(40)]
    server.answers |= {f"/{name}": whole(name.encode()) for name in names}
    server.answers["/7.png"] = status(403)
    told: list[tuple[int, int, str]] = []
    addresses = [f"{server.address}/{name}" for name in [*names, "3.png", "missing.png?a=b"]]
    found = fetch_objects(addresses, tmp_path, lambda *args: told.append(args))
    for name, path in zip(names, found, strict=False):
        if name == "7.png":
            assert path == "HTTP 403 Forbidden"
        else:
            assert isinstance(path, Path)
            assert path.read_bytes() == name.encode()
            assert path.suffix == ".png"
    assert found[40] == found[3]
    assert found[41] == "HTTP 404 Not Found"
    assert told[-1] == (41, 41, "fetching images")
    server.asked.clear()
    assert fetch_objects(addresses, tmp_path, silent) == found
    assert sorted(path for _, path, _ in server.asked) == ["/7.png", "/missing.png"]
    fetch_objects(addresses[:3], tmp_path, silent, fresh=True)
    assert len(server.asked) == 5


def test_a_host_that_is_down_is_not_asked_for_every_image(tmp_path: Path) -> None:
    addresses = [f"http://127.0.0.1:1/{number}.png" for number in range(200)]
    found = fetch_objects(addresses, tmp_path, silent)
    assert all(isinstance(reason, str) for reason in found)
    refused = [reason for reason in found if "was refused" in str(reason)]
    assert len(refused) <= parallel_downloads.DEAD_AFTER + parallel_downloads.AT_ONCE
    assert "asked no more" in str(found[-1])


def test_images_beyond_the_limits_are_refused(server: Server, tmp_path: Path) -> None:
    server.answers |= {f"/{number}": whole(CONTENT) for number in range(9)}
    addresses = [f"{server.address}/{number}" for number in range(9)]
    with pytest.raises(DataError, match=r"data\.limits\.files"):
        fetch_objects(addresses, tmp_path, silent, limits=Limits(files=8))
    with pytest.raises(DownloadError, match=r"data\.limits\.gigabytes"):
        fetch_objects(addresses, tmp_path, silent, limits=Limits(gigabytes=0.001))
    assert not [name for name in files_in(tmp_path) if "part" in name]


def test_names_in_addresses_of_images_cannot_leave_the_folder(server: Server, tmp_path: Path) -> None:
    server.answers["/..%2F..%2F..%2Fevil.png"] = whole(b"x")
    address = f"{server.address}/..%2F..%2F..%2Fevil.png"
    [path] = fetch_objects([address], tmp_path / "downloads", silent)
    assert isinstance(path, Path)
    assert path.resolve().is_relative_to(tmp_path / "downloads" / "images")


@pytest.mark.parametrize(
    "address",
    [
        "http://[1/",
        "http://a..b/",
        f"http://{'a' * 300}/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://:80/",
        "http://\0/",
        "http://ho st/",
        "http://",
        "http://é\udcff/",
        "http://127.0.0.1:1/\udcff",
        "s3:///x",
        "s3://-/\udcff",
        "s3://\0/x",
        "x://y",
        "://",
        "file:///\0",
        "a\0b",
        "data:image/png;base64,x",
        "/dev/zero",
    ],
)
@pytest.mark.parametrize("access", [UNRESTRICTED, RESTRICTED], ids=["unrestricted", "restricted"])
def test_an_odd_address_is_a_message_and_no_traceback(tmp_path: Path, address: str, access: Access) -> None:
    for get in (
        lambda: fetch_archive(address, "", tmp_path, silent, access),
        lambda: fetch("things", "a.bin", SHA256, [], address, tmp_path, silent, access),
        lambda: fetch_folder(address, tmp_path, silent, access),
    ):
        with pytest.raises(RecognitionError):
            get()
    try:
        [found] = fetch_objects([address], tmp_path, silent, access)
    except ConfigurationError:
        pass  # no bucket: the storage itself cannot be opened
    else:
        assert isinstance(found, str)


# Credentials


def test_no_credential_is_ever_logged_or_told(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password HUSH-netrc\n")
    monkeypatch.setenv("NETRC", str(netrc))
    signed = f"{server.address}/signed.zip?X-Amz-Signature=HUSH-signed&X-Amz-Credential=HUSH"
    server.answers |= {
        "/a.zip": redirect(signed),
        "/signed.zip": status(403),
        "/b.zip": redirect("http://ann:HUSH@10.0.0.1/?token=HUSH"),
        "/c.zip": redirect("http://127.0.0.1:1/?token=HUSH"),
    }
    with caplog.at_level(logging.DEBUG):
        told = ""
        for name in ("a.zip", "b.zip", "c.zip"):
            with pytest.raises(RecognitionError) as caught:
                fetch_archive(f"{server.address}/{name}", "", tmp_path, silent, allowing(server))
            told += f"{caught.value!r} {caught.value.__cause__!r}"
        told += json.dumps([str(found) for found in fetch_objects([f"{server.address}/a.zip"], tmp_path, silent)])
        for address in (signed, "http://ann:HUSH@127.0.0.1/a.zip"):
            with pytest.raises(ConfigurationError) as refused:
                fetch_archive(address, "", tmp_path, silent)
            told += str(refused.value)
            told += str(fetch_objects([address], tmp_path, silent))
    assert "HUSH" not in told
    assert "HUSH" not in caplog.text
    assert not any(b"HUSH" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path != netrc)
    assert "Authorization" in server.headers[0]
