"""Ctrl-C, SIGTERM and a closed terminal, as one exception in the main thread: the first of them, once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The user, or the machine, wants this process to end."""


class Interruption:
    """What signals have asked for so far."""

    def __init__(self) -> None:
        self.number: int | None = None
        """The first signal."""
        self.ending = False
        """Set it when the end has begun: from then on nothing is raised."""
        self.hurried = False
        """Whether another signal came after the first, or during the end: nothing shall be waited for."""

    def is_hurried(self) -> bool:
        return self.hurried

    def take(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None or self.ending:
            self.hurried = self.number is not None
            self.number = self.number or number
            return
        self.number = number
        raise Interrupted

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while the block runs; one that is ignored already (``nohup``) stays so, but Ctrl-C.

        A shell's background jobs ignore Ctrl-C; ``kill -INT`` shall end them all the same.
        """
        before = {
            number: signal.getsignal(number)
            for number in SIGNALS
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN
        }
        for number in before:
            signal.signal(number, self.take)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
