"""Names of files as people can read them: whatever a name holds, it stays on its line and shows what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

LONGEST = 160
"""Characters of a name in a message; of a longer one the middle is left out."""


def visible(text: str, longest: int = LONGEST) -> str:
    """Text on one line: control characters, marks that change the direction of writing and the like are written out."""
    if len(text) > longest:
        text = f"{text[: longest // 2]}…{text[-(longest // 2) :]}"
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def encodable(text: str) -> str:
    """Text that UTF-8 can hold: what was no text in a file's name (a lone surrogate) is written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def told(name: str, tag: str) -> str:
    """A file's name, with its class or split in brackets where its folders do not tell it."""
    return name if tag in PurePosixPath(name).parts[:-1] else f"{name} ({tag})"


def listed(texts: Sequence[str], total: int, most: int = 3, longest: int = LONGEST) -> str:
    """The first of ``total`` texts, as part of a sentence."""
    shown = [visible(text, longest) for text in texts[:most]]
    rest = total - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")
