"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Told (done, total, what is going on); total is 0 where it is not known. Bytes while fetching, images afterwards."""


def silent(done: int, total: int, what: str) -> None:
    """The progress callback of those who do not look."""
