"""The Prefect server of a command: the configured one, or a temporary one of its own."""

from __future__ import annotations

import atexit
import functools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from flows.identity import UI_OF_A_LOCAL_SERVER
from flows.servers.connecting import configured_server


@contextmanager
def prefect_server() -> Iterator[None]:
    """Use the configured server while the block runs, or start one that ends with the program.

    Prefect would start a temporary server itself, but in the terminal's process group: Ctrl-C would end it first, and
    the run could not say how it ended.

    Raises:
        TrackingError: the configured server does not answer within 5 seconds, refuses the credentials, or is of a
            version that does not suit ours.
    """
    configured = configured_server()
    if configured is not None:
        configured.check()
        yield
        return
    server = _ServerOfItsOwn()
    # at the very end: Prefect delivers the last log lines and events when the program ends, and would wait for the
    # server for minutes if it were gone
    atexit.register(server.stop)
    server.start()
    with temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_UI_URL: UI_OF_A_LOCAL_SERVER}):
        yield


class _ServerOfItsOwn(SubprocessASGIServer):
    """Prefect's temporary server, in a session of its own."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        plain = subprocess.Popen
        # Prefect leaves no other way to say how its process is started
        subprocess.Popen = functools.partial(plain, start_new_session=True)  # type: ignore[assignment, misc]
        try:
            return super()._run_uvicorn_command()
        finally:
            subprocess.Popen = plain  # type: ignore[misc]  # as above
