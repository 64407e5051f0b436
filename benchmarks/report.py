"""Where benchmark results go: the terminal, and a section each in docs/benchmarks.md."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def machine() -> str:
    """One line about the machine, the versions, the day and how busy it is."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = re.search(r"model name\s*: (.*)", cpuinfo.read_text())
        model = found.group(1) if found else model
    return (
        f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, torch {torch.__version__}, "
        f"{datetime.date.today().isoformat()}, load average {os.getloadavg()[0]:.1f}"
    )


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def publish(title: str, text: str) -> None:
    """Print a section and put it into the page, in the place of the older one of that title."""
    section = f"## {title}\n\n{text.strip()}\n"
    print(section)
    page = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else "# Benchmarks\n"
    head, *sections = re.split(r"(?m)^(?=## )", page)
    kept = [old for old in sections if not old.startswith(f"## {title}\n")]
    PAGE.write_text("\n".join(part.rstrip() + "\n" for part in [head, *kept, section]), encoding="utf-8")
