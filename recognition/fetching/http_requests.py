"""HTTP requests that keep to what may be read: every redirect is checked, and every connection before it is used."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import urllib3
from requests import RequestException, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    InvalidSchema,
    SSLError,
    Timeout,
)
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from recognition.access import Access, redacted, redacted_text
from recognition.errors import ConfigurationError
from recognition.fetching.remote import Mark, PassingError, RefusedError, TransferError

if TYPE_CHECKING:
    from requests import Response
    from urllib3 import HTTPResponse

TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and between two bytes."""
HEADER_SECONDS = 60.0
"""Seconds for a whole answer to begin, however steadily the bytes of its header come."""
HOPS = 5
"""Redirects followed."""


class _Session(Session):
    def get_redirect_target(self, resp: Response) -> None:
        """None: `answer` follows redirects, and would find their bodies read already, however long they are."""


def session_for(access: Access) -> Session:
    """A session whose connections are checked against what may be read.

    An operator's proxy is trusted to connect; then only the names are checked.
    """
    # they log addresses, which redirects may have signed, at the level of debugging
    logging.getLogger("urllib3").setLevel(max(logging.WARNING, logging.getLogger("urllib3").level))
    session = _Session()
    adapter = HTTPAdapter()
    adapter.poolmanager.pool_classes_by_scheme = _pools(access)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


@contextmanager
def answer(
    session: Session, method: str, address: str, headers: Mapping[str, str], access: Access
) -> Iterator[Response]:
    """The answer at the end of all redirects, its body not yet read.

    Raises:
        RefusedError: the address, or a redirect, leads to where may not be read.
        PassingError: no answer, or one that was cut.
        TransferError: what another attempt would not mend.
    """
    current = address
    for _ in range(HOPS + 1):
        _check(current, current != address, access)
        with _reasons(), _asked(session, method, current, headers) as response:
            target = Session.get_redirect_target(session, response)
            if target is None:
                yield response
                return
            current = _joined(current, target)
    raise TransferError(f"it is redirected more than {HOPS} times")


def mark_of(response: Response, total: int = -1) -> Mark:
    """What an answer says of the version of its content; ``total`` is its length in bytes where that is known."""
    length = response.headers.get("Content-Length", "")
    return Mark(
        response.headers.get("ETag", ""),
        response.headers.get("Last-Modified", ""),
        total if total >= 0 else int(length) if length.isdigit() else -1,
    )


def _joined(address: str, target: str) -> str:
    try:
        return urljoin(address, target)
    except ValueError:
        raise TransferError("it is redirected to what is no address") from None


def _asked(session: Session, method: str, address: str, headers: Mapping[str, str]) -> Response:
    return session.request(
        method,
        address,
        headers={"Accept-Encoding": "identity", **headers},
        stream=True,
        timeout=TIMEOUT,
        allow_redirects=False,
    )


def _check(address: str, redirect: bool, access: Access) -> None:
    try:
        if redirect and urlsplit(address).scheme not in ("http", "https"):
            raise ConfigurationError("only http and https are followed.")
        if redirect:
            # a server may sign where it sends us: that is neither the user's nor recorded
            access.check_address(address.partition("?")[0])
        else:
            access.check_address(address)
    except (ConfigurationError, ValueError) as error:
        said = f"it is redirected to {redacted(address)}: {error}" if redirect else str(error)
        raise RefusedError(said) from None


@contextmanager
def _reasons() -> Iterator[None]:
    """Say in a few words what the libraries raise, and whether it may pass."""
    try:
        yield
    except (SSLError, InvalidSchema) as error:
        raise TransferError(_plain(error)) from None
    except (ConnectionError, Timeout, ChunkedEncodingError) as error:
        raise PassingError(_plain(error)) from None
    except RequestException as error:
        raise TransferError(_plain(error)) from None
    except urllib3.exceptions.HTTPError:
        raise PassingError("the connection was cut") from None


def _plain(error: Exception) -> str:
    """The innermost reason of a chain of connection errors, in a few words."""
    text = str(error)
    for sign, reason in (
        ("Name or service not known", "the host's name cannot be resolved"),
        ("NameResolutionError", "the host's name cannot be resolved"),
        ("Connection refused", "the connection was refused"),
        ("timed out", "no answer in time"),
        ("certificate", "the host's certificate is not trusted"),
        ("ProxyError", "the proxy does not let it through"),
    ):
        if sign in text:
            return reason
    return redacted_text(text).rpartition(": ")[2].strip("')\"( ") or type(error).__name__


def _pools(access: Access) -> dict[str, type[HTTPConnectionPool]]:
    """Pools whose connections look at their peer before anything is sent, and do not wait for a header for ever.

    A name may resolve to a public address when it is checked and to a private one when it is connected to.
    """

    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _checked(super()._new_conn(), self.host, self.port, access)

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]
            with _deadline(self.sock):
                return super().getresponse()

    class SecureConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _checked(super()._new_conn(), self.host, self.port or 443, access)

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]
            with _deadline(self.sock):
                return super().getresponse()

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    return {"http": Pool, "https": SecurePool}


def _checked(connected: socket.socket, host: str, port: int, access: Access) -> socket.socket:
    try:
        access.check_peer(host, port, str(connected.getpeername()[0]))
    except (ConfigurationError, OSError) as error:
        connected.close()
        raise RefusedError(str(error)) from None
    return connected


@contextmanager
def _deadline(connected: socket.socket | None) -> Iterator[None]:
    """Hang up on a server whose header takes too long."""
    over = threading.Event()

    def hang_up() -> None:
        over.set()
        with suppress(OSError, TypeError):
            if connected is not None:
                # not the method of an encrypted socket, which another thread is reading from
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(HEADER_SECONDS, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if over.is_set():  # a header that was cut passes for a short one
            raise TimeoutError("timed out: the server's answer did not begin in time")
