"""Whether a server's version suits the client that is installed here."""

from __future__ import annotations

import importlib.metadata
import re


def misfit(package: str, server: str) -> str:
    """Why a server does not suit our client; empty when it does.

    Servers are upgraded before their clients: a server may be newer than the client within the same major version, and
    it must not be older, by major and minor number.

    Args:
        package: ``prefect`` or ``mlflow``, as it is installed here.
        server: what the server answers when it is asked for its version.
    """
    ours = importlib.metadata.version(package)
    theirs = re.match(r"(\d+)\.(\d+)", server)
    if theirs is None:
        return f"says {server[:40]!r} when it is asked for its version"
    mine = re.match(r"(\d+)\.(\d+)", ours)
    assert mine is not None, ours
    their_numbers, my_numbers = (tuple(int(part) for part in found.groups()) for found in (theirs, mine))
    if their_numbers[0] == my_numbers[0] and their_numbers >= my_numbers:
        return ""
    return (
        f"is of version {server}, which does not suit {package} {ours} here: it must be {mine[1]}.{mine[2]} or a later "
        f"{mine[1]}.x"
    )
