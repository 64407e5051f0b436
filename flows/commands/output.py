"""How commands answer: a JSON line for scripts, and the exit code."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, NoReturn

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, the last line.")]
USER_MISTAKE, INTERRUPTED = 2, 130


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object in a line, after all that was printed before."""
    sys.stdout.flush()
    typer.echo(json.dumps(content, ensure_ascii=False))


def leave(code: int) -> NoReturn:
    """End the program with an exit code."""
    sys.stdout.flush()
    sys.exit(code)
