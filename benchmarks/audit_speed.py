"""How long `recognition audit` takes over the 60,000 JPEGs of CIFAR-10, and how its memory grows with their number.

Both audits start in an empty state folder; memory is the largest resident set of the whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = Path(sys.executable).parent / "recognition"


@dataclass
class Audit:
    """What one command cost and found."""

    images: int
    seconds: float
    processor_seconds: float
    peak_mb: float
    findings: int


def audit(archive: Path, folder: Path) -> Audit:
    """Run the command in an empty state folder."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(COMMAND), "audit", str(archive), "--json"],
        env=os.environ | {"RECOGNITION_HOME": str(folder)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    found = json.loads(out.splitlines()[-1])
    peak = usage.ru_maxrss / 1e6 if sys.platform == "darwin" else usage.ru_maxrss * 1024 / 1e6  # bytes, or KiB
    return Audit(found["images"], seconds, usage.ru_utime + usage.ru_stime, peak, len(found["findings"]))


def tenth(archive: Path, target: Path) -> None:
    """Every tenth image of each class and split, in an archive of its own."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as smaller:
        names = sorted(info.filename for info in source.infolist() if not info.is_dir())
        for name in names[::10]:
            smaller.writestr(name, source.read(name))


def main() -> None:
    from report import machine, publish

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", nargs="?", type=Path, default=ROOT.parent / "shared/data/cifar10-images-jpeg.zip")
    archive = parser.parse_args().archive
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "tenth.zip"
        tenth(archive, small)
        results = [audit(small, Path(folder) / "small"), audit(archive, Path(folder) / "whole")]
    rows = "\n".join(
        f"| {one.images:,} | {one.seconds:.0f} | {one.processor_seconds:.0f} | {one.peak_mb:.0f} | {one.findings} |"
        for one in results
    )
    publish(
        "The audit",
        f"`recognition audit {archive.name}` in an empty state folder: decoding, measuring, finding copies, report.\n\n"
        f"{machine()}\n\n"
        "| images | wall time, s | processor time, s | largest resident memory, MB | findings |\n"
        "| --- | --- | --- | --- | --- |\n"
        f"{rows}\n\n"
        f"Memory of the larger over the smaller: {results[1].peak_mb / results[0].peak_mb:.2f}.\n\n"
        "`python benchmarks/audit_speed.py`",
    )


if __name__ == "__main__":
    main()
