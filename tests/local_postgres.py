"""A Postgres cluster of a test's own, by the programs of this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Postgres:
    """A running cluster: with a password at a port of this machine, without one at its socket."""

    folder: Path
    """Of its data, its log and its socket."""
    port: int

    def sql(self, database: str, text: str) -> str:
        """The answer to a question of the superuser."""
        return self._ask("psql", "-AtqX", "-v", "ON_ERROR_STOP=1", "-d", database, asked=text)

    def run_file(self, file: Path, **environment: str) -> None:
        """Run a file of SQL as the superuser."""
        self._ask("psql", "-X", "-d", "postgres", asked=file.read_text(encoding="utf-8"), **environment)

    def dump(self, database: str) -> str:
        """All content of a database."""
        return self._ask("pg_dump", "--inserts", database)

    def _ask(self, program: str, *words: str, asked: str = "", **environment: str) -> str:
        done = subprocess.run(
            _as_its_user([program, "-h", str(self.folder), "-p", str(self.port), "-U", "postgres", *words]),
            input=asked,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            cwd="/",
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def require_postgres() -> Path:
    """Where its programs lie, or skip the test; a distribution keeps them out of the path."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("needs Postgres' programs (Debian: apt-get install postgresql)")
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("needs the user postgres: Postgres does not run as root")
        if shutil.which("runuser") is None:
            pytest.skip("needs runuser: Postgres does not run as root")
    return found[-1]


@contextmanager
def postgres_cluster(folder: Path, port: int) -> Iterator[Postgres]:
    """A new cluster in a folder, which Postgres' own user must be able to reach."""
    folder.mkdir()
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    data = ["-D", str(folder / "data")]
    make = ["initdb", *data, "-A", "trust", "--auth-host", "scram-sha-256", "-U", "postgres", "--no-sync"]
    subprocess.run(_as_its_user(make), check=True, capture_output=True, cwd="/")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    start = ["pg_ctl", *data, "-l", str(folder / "log"), "-w", "-o", options, "start"]
    # not captured: the server would keep the pipe open
    subprocess.run(_as_its_user(start), check=True, stdout=subprocess.DEVNULL, cwd="/")
    try:
        yield Postgres(folder, port)
    finally:
        stop = ["pg_ctl", *data, "-m", "immediate", "-w", "stop"]
        subprocess.run(_as_its_user(stop), check=True, capture_output=True, cwd="/")


def _as_its_user(words: list[str]) -> list[str]:
    """The command line of one of its programs; it does not run as root, and its own user comes with the package."""
    words = [str(require_postgres() / words[0]), *words[1:]]
    return ["runuser", "-u", "postgres", "--", *words] if os.getuid() == 0 else words
