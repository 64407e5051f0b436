"""nginx with TLS in front of servers of a test, by deployment/nginx.conf and the commands of docs/team.md."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import ROOT, free_port

TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def proxy_is_there() -> bool:
    return shutil.which("nginx") is not None and shutil.which("openssl") is not None


def make_certificates(folder: Path) -> Path:
    """A certificate authority of our own and, signed by it, a certificate of this machine; the authority's file."""
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=house CA"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", "ca.key", "-out", "ca.crt"),
    )
    names = ("-subj", "/CN=localhost", "-keyout", "house.key", "-out", "house.csr")
    openssl("req", "-newkey", "rsa:2048", "-nodes", *names)
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    signed = ("x509", "-req", "-in", "house.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    openssl(*signed, "-days", "2", "-extfile", "names", "-out", "house.crt")
    return folder / "ca.crt"


def nginx_configuration(folder: Path, ports: tuple[int, int], upstreams: tuple[str, str]) -> str:
    """deployment/nginx.conf for this machine: other ports, and the places of its files in a folder."""
    text = (ROOT / "deployment" / "nginx.conf").read_text(encoding="utf-8")
    changes = {
        "/run/": f"{folder}/",
        "/var/log/nginx/": f"{folder}/",
        "listen 443 ssl": f"listen 127.0.0.1:{ports[0]} ssl",
        "listen 5443 ssl": f"listen 127.0.0.1:{ports[1]} ssl",
        "server_name house.example.org": "server_name localhost",
        "http://prefect:4200": f"http://{upstreams[0]}",
        "http://mlflow:5000": f"http://{upstreams[1]}",
        "/etc/nginx/certs": f"{folder}/certs",
        # nginx would keep what passes through in folders of the system's
        "http {\n": "http {\n" + "".join(f"{name}_temp_path {folder}/{name};\n" for name in TEMPORARY),
    }
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


@contextmanager
def proxy(folder: Path, upstreams: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """nginx in front of two servers, with the certificates in ``folder/certs``; the addresses that it answers at.

    Its processes run as another user, who must be able to reach the folder.
    """
    ports = free_port(), free_port()
    (folder / "nginx.conf").write_text(nginx_configuration(folder, ports, upstreams), encoding="utf-8")
    words = ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"), "-g", "daemon off;"]
    process = subprocess.Popen(words, start_new_session=True)
    try:
        yield f"https://localhost:{ports[0]}", f"https://localhost:{ports[1]}"
    finally:
        process.terminate()
        process.wait(20)
