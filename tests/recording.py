"""Servers on this machine that keep what they are sent: a webhook, and one that takes mail."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_string
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's address, and the JSON posted to it so far, with its ``path``."""
    received: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append({"path": self.path, **content})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not on the terminal."""

    with _served(ThreadingHTTPServer(("127.0.0.1", 0), Hook)) as port:
        yield f"http://127.0.0.1:{port}", received


@contextmanager
def mail_server() -> Iterator[tuple[int, list[dict[str, str]]]]:
    """The port of an SMTP server, and the mails it took so far: recipient, subject and text."""
    received: list[dict[str, str]] = []

    class Talk(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 here")
            recipient = ""
            while line := self.rfile.readline().decode().strip():
                command = line[:4].upper()
                if command == "RCPT":
                    recipient = line.partition(":")[2].strip("<>")
                elif command == "DATA":
                    self._say("354 go on")
                    received.append({"to": recipient, **self._mail()})
                self._say("221 bye" if command == "QUIT" else "250 fine")

        def _mail(self) -> dict[str, str]:
            lines = []
            while (line := self.rfile.readline().decode()) != ".\r\n":
                lines.append(line)
            mail = message_from_string("".join(lines))
            texts = [part.get_payload(decode=True) for part in mail.walk() if not part.is_multipart()]
            return {
                "subject": str(mail["Subject"]),
                "text": b"".join(t for t in texts if isinstance(t, bytes)).decode(),
            }

        def _say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    with _served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Talk)) as port:
        yield port, received


@contextmanager
def _served(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
