"""Recall and precision of the search for copies: copies are planted among real images, and what is found is compared.

The base is 10,000 real images (all flowers of 128 x 128 pixels, the rest CIFAR-10 of 32 x 32). For each kind one in a
hundred gets a copy. A pair found is right when both images stem from one base image. Real sets hold copies of their
own: a pair of images that stem from two base images is compared at full size, without the search's descriptors, and
counted as "natural" where both show the same; ``--pairs`` writes a picture of all such pairs to look at.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
SIZE = 10_000
RUNS = 5

Pixels = NDArray[np.uint8]
Random = np.random.Generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the archives and fashion_mnist/")
    parser.add_argument("--runs", type=int, default=RUNS, help="each draws other images to copy")
    parser.add_argument("--pairs", type=Path, help="write pairs found that were not planted to this PNG")
    parser.add_argument("--count", type=int, default=0, help="only print time and memory of so many CIFAR-10 images")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.count:
        _measure_cost(options.data, options.count)
    else:
        compare(options.data, options.runs, options.pairs)


def compare(data: Path, runs: int, pairs: Path | None) -> None:
    """Plant, find, count and publish."""
    from report import machine, publish

    flowers = list(_archived(data / "flowers-128px.zip"))
    random = np.random.default_rng(0)
    cifar = list(_archived(data / "cifar10-images-jpeg.zip", random, SIZE - len(flowers)))
    base = flowers + cifar
    total = Counts()
    natural: dict[tuple[str, str], bool] = {}
    for run in range(runs):
        planted = plant(base, np.random.default_rng(run))
        total += count(base, planted, natural)
        print(f"run {run}: {total}", flush=True)
    unlike = sorted(pair for pair, same in natural.items() if not same)
    if pairs:
        _write_pairs(sorted(natural), dict(base), pairs)
    lines = [
        f"| {kind} | " + " | ".join(_share(total, kind, sizes) for sizes in ((32, 128), (32,), (128,))) + " |"
        for kind in KINDS
    ]
    required = [kind for kind in KINDS if kind != COMBINED]
    found = sum(total.found[kind, size] for kind in required for size in (32, 128))
    known = sum(total.planted[kind, size] for kind in required for size in (32, 128))
    costs = [_cost_of(data, number) for number in (6_000, 60_000)]
    publish(
        "Duplicate detection",
        f"{len(base):,} real images ({len(flowers):,} flowers of 128 px, {len(cifar):,} CIFAR-10 of 32 px), "
        f"{len(planted.kind):,} planted copies a run, {runs} runs that copy different images. Resized by 0.5 to 2 "
        "(bicubic, bilinear or Lanczos), JPEG of quality 60, mirrored (JPEG of quality 95, or PNG); all three at once "
        "is not among the required kinds.\n\n"
        f"{machine()}\n\n"
        "| recall of planted pairs | all | 32 px | 128 px |\n| --- | --- | --- | --- |\n" + "\n".join(lines) + "\n"
        f"| **the four required kinds** | **{found / known:.4f}** ({found:,} of {known:,}) | | |\n\n"
        f"Precision: **{total.right / max(1, total.right + total.wrong):.4f}** ({total.right:,} pairs right, "
        f"{total.wrong:,} wrong). Not counted in it: {total.natural:,} pairs (in all runs) that were not planted but "
        f"show the same: {sum(natural.values())} different pairs of base images, confirmed at full size and looked at. "
        f"With all of these counted as wrong it would be "
        f"{total.right / max(1, total.right + total.wrong + total.natural):.4f}.\n\n"
        f"Wrong pairs: {', '.join(' and '.join(pair) for pair in unlike) or 'none'}.\n\n"
        + _fashion(data)
        + "\n\n| CIFAR-10 as it is, images | near groups | search, s | peak resident, MB | before the search |\n"
        "| --- | --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {number:,} | {near:.0f} | {seconds:.1f} | {peak:.0f} | {before:.0f} |"
            for number, near, seconds, before, peak in costs
        )
        + f"\n\nPeak at 60,000 over peak at 6,000: {costs[1][4] / costs[0][4]:.2f}.\n\n"
        "`python benchmarks/duplicate_detection.py`",
    )


Named = tuple[str, Pixels]


def _archived(path: Path, random: Random | None = None, number: int = 0) -> Iterator[Named]:
    """The images of an archive, or so many drawn from it."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        if random is not None:
            names = [names[index] for index in sorted(random.permutation(len(names))[:number].tolist())]
        for name in names:
            with Image.open(io.BytesIO(archive.read(name))) as image:
                yield name, np.array(image.convert("RGB"))


def _encoded(pixels: Pixels, quality: int) -> Pixels:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=quality)
    return np.array(Image.open(content))


def _resized(pixels: Pixels, random: Random) -> Pixels:
    factor = random.uniform(0.5, 2)
    filters = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)
    size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
    return np.array(Image.fromarray(pixels).resize(size, filters[random.integers(3)]))


def _mirrored(pixels: Pixels, random: Random) -> Pixels:
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    return _encoded(mirrored, 95) if random.integers(2) else mirrored


COMBINED = "mirrored, resized and JPEG 60"
KINDS: dict[str, Callable[[Pixels, Random], Pixels]] = {
    "exact": lambda pixels, random: pixels.copy(),
    "resized": _resized,
    "JPEG 60": lambda pixels, random: _encoded(pixels, 60),
    "mirrored": _mirrored,
    COMBINED: lambda pixels, random: _encoded(_resized(pixels[:, ::-1].copy(), random), 60),
}


@dataclass(frozen=True)
class Planted:
    """Copies, in the order in which they follow the base images."""

    images: list[Pixels]
    kind: list[str]
    origin: list[int]


def plant(base: list[Named], random: Random) -> Planted:
    """A copy of one in a hundred images for each kind; no image is copied twice."""
    each = len(base) // 100
    drawn = random.permutation(len(base)).tolist()
    planted = Planted([], [], [])
    for number, (kind, copy) in enumerate(KINDS.items()):
        for origin in drawn[number * each : (number + 1) * each]:
            planted.images.append(copy(base[origin][1], random))
            planted.kind.append(kind)
            planted.origin.append(origin)
    return planted


@dataclass
class Counts:
    """Pairs, planted and found by kind and side of the original, and found right, natural and wrong."""

    planted: Counter[tuple[str, int]] = field(default_factory=Counter)
    found: Counter[tuple[str, int]] = field(default_factory=Counter)
    right: int = 0
    natural: int = 0
    wrong: int = 0

    def __iadd__(self, other: Counts) -> Counts:
        self.planted += other.planted
        self.found += other.found
        self.right += other.right
        self.natural += other.natural
        self.wrong += other.wrong
        return self


def count(base: list[Named], planted: Planted, natural: dict[tuple[str, str], bool]) -> Counts:
    """Find copies among base and planted images. ``natural`` gains the pairs that were not planted, by name, and
    whether they show the same."""
    from recognition.audit import duplicates
    from recognition.audit.measures import MEASURES, measure

    images = [pixels for _, pixels in base] + planted.images
    origin = [*range(len(base)), *planted.origin]
    rows = np.zeros(len(images), MEASURES)
    for index, pixels in enumerate(images):
        rows[index] = measure(pixels)
    found = duplicates.find(rows)
    exact = {index: number for number, group in enumerate(found.exact) for index in group.tolist()}
    counts = Counts()
    for position, kind in enumerate(planted.kind):
        one, other = planted.origin[position], len(base) + position
        side = images[one].shape[0]
        together = exact.get(one) == exact.get(other, -1) if kind == "exact" else found.unit[one] == found.unit[other]
        counts.planted[kind, side] += 1
        counts.found[kind, side] += int(together)
    groups = {tuple(group.tolist()) for group in (*found.exact, *found.near)}
    for one, other in {pair for group in groups for pair in combinations(group, 2)}:
        first, second = sorted((origin[one], origin[other]))
        if first == second:
            counts.right += 1
            continue
        pair = (base[first][0], base[second][0])
        if pair not in natural:
            natural[pair] = _show_the_same(base[first][1], base[second][1])
        counts.natural += natural[pair]
        counts.wrong += not natural[pair]
    return counts


def _show_the_same(one: Pixels, other: Pixels) -> bool:
    """Whether two images match pixel for pixel, as they are or mirrored: correlation of at least 0.95, and a mean
    difference of at most 12 steps."""
    if one.shape != other.shape:
        return False
    first, second = one.astype(np.float64), other.astype(np.float64)
    for mirrored in (second, second[:, ::-1]):
        correlation = np.corrcoef(first.ravel(), mirrored.ravel())[0, 1]
        if correlation >= 0.95 and np.abs(first - mirrored).mean() <= 12:
            return True
    return False


def _share(counts: Counts, kind: str, sizes: tuple[int, ...]) -> str:
    planted = sum(counts.planted[kind, size] for size in sizes)
    found = sum(counts.found[kind, size] for size in sizes)
    return f"{found / max(1, planted):.3f} ({found:,} of {planted:,})"


def _write_pairs(pairs: list[tuple[str, str]], images: dict[str, Pixels], path: Path, cell: int = 96) -> None:
    """Six pairs a row, in the order of their names."""
    sheet = Image.new("RGB", (12 * cell + 40, (max(1, len(pairs)) + 5) // 6 * (cell + 8)), "red")
    for number, pair in enumerate(pairs):
        for place, name in enumerate(pair):
            left = number % 6 * (2 * cell + 8) + place * cell
            sheet.paste(Image.fromarray(images[name]).resize((cell, cell)), (left, number // 6 * (cell + 8)))
    sheet.save(path)


def _fashion(data: Path) -> str:
    """How many near copies are found in a set of things that look alike."""
    from recognition.audit import duplicates
    from recognition.audit.measures import MEASURES, measure

    raw = gzip.decompress((data / "fashion_mnist" / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    rows = np.zeros(len(raw) // 784, MEASURES)
    for index, pixels in enumerate(np.frombuffer(raw, np.uint8).reshape(-1, 28, 28, 1)):
        rows[index] = measure(pixels)
    fashion = duplicates.find(rows)
    images = sum(len(group) for group in fashion.near)
    return (
        f"Fashion-MNIST as it is, {len(rows):,} images: {len(fashion.near)} groups of near copies with {images} images "
        f"({images / len(rows):.2%}), the largest of {max(map(len, fashion.near), default=0)}."
    )


def _cost_of(data: Path, number: int) -> tuple[int, float, float, float, float]:
    words = [sys.executable, __file__, "--data", str(data), "--count", str(number)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    near, seconds, before, peak = map(float, done.stdout.split())
    return number, near, seconds, before, peak


def _measure_cost(data: Path, number: int) -> None:
    """Groups of near copies, seconds of the search, and peak resident memory (MB) before and after it, in this
    process."""
    from recognition.audit import duplicates
    from recognition.audit.measures import MEASURES, measure

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measures.npy"
        rows = np.lib.format.open_memmap(path, "w+", MEASURES, (number,))
        for index, (_, pixels) in enumerate(islice(_archived(data / "cifar10-images-jpeg.zip"), number)):
            rows[index] = measure(pixels)
        del rows
        before = _peak_resident()
        began = time.perf_counter()
        found = duplicates.find(np.load(path, mmap_mode="r"))
        seconds = time.perf_counter() - began
        print(len(found.near), seconds, before, _peak_resident())


def _peak_resident() -> float:
    """MB. Not by getrusage: its figure includes what the parent held when it started this process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
