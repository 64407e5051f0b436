"""What a worker may read is its operator's choice, and no address carries credentials."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from recognition.access import (
    UNRESTRICTED,
    Access,
    is_public,
    redacted,
    redacted_text,
    refuse_credentials,
    worker_access,
)
from recognition.errors import ConfigurationError

RESTRICTED = Access(restricted=True)


def resolving(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    """Let names (dots written as underscores) resolve to these addresses, and others to none."""
    found = {name.replace("_", "."): address for name, address in names.items()}
    real = socket.getaddrinfo

    def resolve(host: str, port: object, *args: object, **kwargs: object) -> object:
        if host in found:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found[host], port))]
        if any(letter.isalpha() for letter in host) and ":" not in host and not host.startswith("0x"):
            raise socket.gaierror(-2, "Name or service not known")
        return real(host, port, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_a_command_line_may_read_everything(tmp_path: Path) -> None:
    UNRESTRICTED.check_path(Path("/etc/hostname"))
    for address in ("http://127.0.0.1/a.zip", "file:///etc/hostname", "/etc/hostname", "s3://bucket/key", "hf:mnist"):
        UNRESTRICTED.check_address(address)


def test_a_worker_reads_below_its_roots_only(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("x")
    (inside / "link").symlink_to(outside / "secret")
    (inside / "loop").symlink_to(inside / "loop")
    access = Access(restricted=True, roots=(inside,))
    for allowed in (inside, inside / "a.zip", inside / "b" / ".." / "a.zip"):
        access.check_path(allowed)
        access.check_address(str(allowed))
        access.check_address(allowed.as_uri())
    for refused in (
        outside,
        inside / ".." / "outside" / "secret",
        inside / "link",
        tmp_path / "inside-too",
        Path("/"),
        Path("a\0b"),
        Path("~nobody-of-that-name/x"),
    ):
        with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_ROOTS"):
            access.check_path(refused)
    with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_ROOTS"):
        access.check_address(f"FILE://{outside}/secret")


def test_what_exists_and_what_does_not_is_refused_in_the_same_words(tmp_path: Path) -> None:
    said = []
    for name in ("there", "gone"):
        path = tmp_path / name
        if name == "there":
            path.write_text("x")
        with pytest.raises(ConfigurationError) as caught:
            RESTRICTED.check_path(path)
        said.append(str(caught.value).replace(str(path), "PATH"))
    assert said[0] == said[1]


def test_a_linked_root_is_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    access = Access(restricted=True, roots=(tmp_path / "root",))
    access.check_path(tmp_path / "root" / "a.zip")
    access.check_path(tmp_path / "real" / "a.zip")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "0",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "0x7f000001",
        "127.1",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "224.0.0.1",
        "user.example",
    ],
)
def test_a_worker_reaches_no_private_address_in_any_writing(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, localhost="127.0.0.1", user_example="10.1.2.3")
    for address in (f"http://{host}/a.zip", f"https://{host}:8443/a.zip"):
        with pytest.raises(ConfigurationError, match=r"not public.*RECOGNITION_ALLOWED_HOSTS") as caught:
            RESTRICTED.check_address(address)
        assert "10.1.2.3" not in str(caught.value)


def test_a_worker_reaches_public_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, example_org="93.184.215.14")
    for host in ("example.org", "8.8.8.8", "[2606:4700::1111]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]"):
        RESTRICTED.check_address(f"https://{host}/a.zip")


def test_every_address_of_a_name_must_be_public(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: both)
    with pytest.raises(ConfigurationError, match="not public"):
        RESTRICTED.check_address("http://two.example.org/")


@pytest.mark.parametrize(
    "address", [r"http://8.8.8.8\@127.0.0.1/", "http://8.8.8.8 @127.0.0.1/", "http:///a", "http://[1/"]
)
def test_an_address_that_two_parsers_may_read_differently_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError):
        RESTRICTED.check_address(address)


def test_hosts_that_the_operator_lists_may_be_private(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, store_lan="10.0.0.5", a_data_lan="10.0.0.6", data_lan="10.0.0.7")
    access = Access(restricted=True, hosts=("store.lan:9000", "*.data.lan", "127.0.0.1", "[::1]:80", "fd00::1"))
    for allowed in (
        "http://store.lan:9000/a",
        "http://STORE.lan:9000/a",
        "http://a.data.lan/a",
        "https://127.0.0.1:5/a",
        "http://[::1]/a",
        "http://[fd00::1]:99/a",
    ):
        access.check_address(allowed)
    for refused in ("http://store.lan/a", "http://data.lan/a", "http://127.0.0.2/a", "http://[::1]:81/a"):
        with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_HOSTS"):
            access.check_address(refused)


def test_a_name_that_only_a_proxy_can_resolve_must_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch)
    RESTRICTED.check_address("http://unknown.example/")  # connecting will say so
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ConfigurationError, match="cannot be resolved"):
        RESTRICTED.check_address("http://unknown.example/")
    Access(restricted=True, hosts=("unknown.example",)).check_address("http://unknown.example/")


def test_a_worker_reads_the_kinds_of_address_it_lists() -> None:
    for address in ("s3://bucket/key", "gs://bucket/key", "az://container/key", "hf:mnist"):
        RESTRICTED.check_address(address)
        with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_SCHEMES"):
            Access(restricted=True, schemes=("https",)).check_address(address)
    for address in ("ftp://8.8.8.8/a", "memory://a", "zip://a.zip::file:///etc/passwd", "gopher://8.8.8.8/"):
        with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_SCHEMES"):
            RESTRICTED.check_address(address)


def test_file_addresses_stay_paths_even_when_the_scheme_is_listed() -> None:
    with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_ROOTS"):
        Access(restricted=True, schemes=("file",)).check_address("file:///etc/hostname")


def test_the_settings_of_a_worker_are_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROOTS", "SCHEMES", "HOSTS"):
        monkeypatch.delenv(f"RECOGNITION_ALLOWED_{name}", raising=False)
    assert worker_access() == Access(restricted=True)
    monkeypatch.setenv("RECOGNITION_ALLOWED_ROOTS", f"{tmp_path}{os.pathsep}/data")
    monkeypatch.setenv("RECOGNITION_ALLOWED_SCHEMES", "HTTPS, s3")
    monkeypatch.setenv("RECOGNITION_ALLOWED_HOSTS", "Store.lan:9000")
    assert worker_access() == Access(True, ("https", "s3"), ("store.lan:9000",), (tmp_path, Path("/data")))
    monkeypatch.setenv("RECOGNITION_ALLOWED_SCHEMES", "")
    assert worker_access().schemes == ()
    monkeypatch.setenv("RECOGNITION_ALLOWED_ROOTS", "data")
    with pytest.raises(ConfigurationError, match="absolute"):
        worker_access()


@pytest.mark.parametrize(
    "address",
    [
        "https://ann:HUSH-HUSH@example.org/a.zip",
        "https://HUSH-HUSH@example.org/a.zip",
        "s3://AKIA:HUSH-HUSH@bucket/key",
        *(
            f"https://example.org/a.zip?x=1&{name}=HUSH-HUSH"
            for name in (
                "X-Amz-Signature",
                "x-amz-credential",
                "X-Amz-Security-Token",
                "X-Goog-Signature",
                "sig",
                "Signature",
                "token",
                "access_token",
                "api_key",
                "apikey",
                "password",
                "AWSAccessKeyId",
                "client%5Fsecret",
            )
        ),
        "https://example.org/a.zip?key=AIzaHUSH-HUSH",
        "https://example.org/a.zip#access_token=HUSH-HUSH",
        "https://example.org/a.zip?a=1;token=HUSH-HUSH",
    ],
)
def test_credentials_in_an_address_are_refused_for_everybody_and_never_repeated(address: str) -> None:
    for access in (UNRESTRICTED, RESTRICTED):
        with pytest.raises(ConfigurationError, match=r"credentials come from the environment.*AWS_\*.*netrc") as caught:
            access.check_address(address)
        assert "HUSH" not in str(caught.value)
    assert "HUSH" not in redacted(address)


def test_ordinary_queries_are_no_credentials() -> None:
    for address in ("https://example.org/a.zip?version=3&key=cats/a.zip#top", "/data/token=x", "data@home"):
        refuse_credentials(address)
        assert redacted(address) == address


def test_messages_of_libraries_lose_addresses_with_secrets_and_keys_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "HUSH/HUSH+1")
    text = "Max retries exceeded with url: /a?sig=HUSH (https://u:HUSH@h/a?token=HUSH) for HUSH/HUSH+1"
    assert "HUSH" not in redacted_text(text)


def test_public_is_what_anybody_can_reach() -> None:
    assert [is_public(ip) for ip in ("8.8.8.8", "10.0.0.1", "::1", "2606:4700::1111", "nonsense")] == [
        True,
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("settings", ["model.weights", "data.source", "data.mirror", "data.frozen_test"])
def test_no_setting_of_a_run_leads_to_a_file_outside_the_roots(tmp_path: Path, settings: str) -> None:
    from recognition.configuration import load_experiment
    from tasks.examining import examine

    words = [f"{settings}={tmp_path / 'secret.parquet'}"]
    if settings == "data.mirror":
        words.append("data.source=mnist")
    with pytest.raises(ConfigurationError, match="RECOGNITION_ALLOWED_ROOTS"):
        examine(load_experiment(None, words), RESTRICTED)
