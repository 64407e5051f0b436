"""A client of the Prefect server that commands talk to, and what is said when it does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import get_current_settings

from flows.servers.prefect_api import PrefectServer
from recognition.access import redacted_text
from recognition.errors import ConfigurationError, TrackingError


@contextmanager
def connected() -> Iterator[SyncPrefectClient]:
    """A client of the configured server; without one Prefect would start a temporary server, which nobody looks at.

    Raises:
        TrackingError: no server is named, it does not answer, or it refuses the credentials.
        ConfigurationError: the server refuses what was asked for.
    """
    server = configured_server()
    if server is None:
        raise TrackingError(
            "There is no Prefect server: start the house with `recognition up`, or name a server in PREFECT_API_URL."
        )
    server.check()
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.TransportError as error:
        raise TrackingError(
            f"The Prefect server {server.api} has stopped answering ({type(error).__name__})."
        ) from None
    except PrefectHTTPStatusError as error:
        if error.response.status_code not in (400, 409, 422):
            raise
        raise ConfigurationError(_said(error)) from None


def configured_server() -> PrefectServer | None:
    """The server that the environment or Prefect's profile names."""
    settings = get_current_settings().api
    if not settings.url:
        return None
    return PrefectServer(
        api=str(settings.url).rstrip("/"),
        auth_string=settings.auth_string.get_secret_value() if settings.auth_string else "",
        key=settings.key.get_secret_value() if settings.key else "",
        verify=False if settings.tls_insecure_skip_verify else settings.ssl_cert_file or True,
    )


def _said(error: PrefectHTTPStatusError) -> str:
    """What the server says is wrong, in a line a mistake."""
    content = error.response.json()
    detail = content.get("detail") or content.get("exception_detail") or content
    if not isinstance(detail, list):
        return redacted_text(str(detail))
    lines = (f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in detail)
    return redacted_text("\n".join(lines))
