"""A real local server whose every answer a test writes itself, down to the bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """What the server answers at each path, and what it was asked."""

    address: str = ""
    host: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range header of each request."""
    headers: list[dict[str, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    """Set at the end of the test, for answers that wait."""


def whole(content: bytes, etag: str = "", length: int | None = None) -> Answer:
    """The content, or the range of it that is asked for under the same tag; ``length`` is said instead of the true."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "")
        if request.headers.get("If-Range", etag) != etag:
            wanted = ""
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start and start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        said = len(content) if length is None else length
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{said - 1}/{said}")
        if etag:
            request.send_header("ETag", etag)
        request.send_header("Content-Length", str(said - start))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content[start:])

    return answer


def redirect(target: str, status: int = 302) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def status(code: int) -> Answer:
    return lambda request: request.send_error(code)


@contextmanager
def answering() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            state.asked.append((self.command, path, self.headers.get("Range", "")))
            state.headers.append(dict(self.headers))
            with suppress(BrokenPipeError, ConnectionResetError):  # the other side has had enough
                state.answers.get(path, status(404))(self)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Many(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

    http = Many(("127.0.0.1", 0), Handler)
    state.host = f"127.0.0.1:{http.server_address[1]}"
    state.address = f"http://{state.host}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        http.shutdown()
        http.server_close()
        thread.join()
