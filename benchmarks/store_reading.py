"""An epoch of reading prepared images in shuffled batches, against decoding the folder of JPEGs with PIL each time.

The baseline is what a folder data set does for each image: open, convert to RGB, resize where needed, to an array. Both
run in one process, on the same images, in the same order, in batches of 64, with all files in the page cache.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
import zipfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
REAL = ROOT.parent / "shared" / "data"
BATCH = 64


def main() -> None:
    from report import machine, publish, spread

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60_000, help="how many at 32 px; a tenth of it at 224 px")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for side, count, required in ((32, options.images, 20), (224, min(options.images // 10, 2_000), 5)):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["RECOGNITION_HOME"] = str(Path(folder) / "state")
            source = Path(folder) / "jpegs"
            (small_jpegs if side == 32 else large_jpegs)(source, count)
            paths = {storage: prepared(source, side, storage) for storage in ("array", "shards")}
            seconds: dict[str, list[float]] = {"array": [], "shards": [], "PIL": []}
            for _ in range(options.runs):
                for storage, path in paths.items():
                    images, taken = from_store(path)
                    seconds[storage].append(taken / images * 1e6)
                images, taken = from_files(source, paths["array"], side)
                seconds["PIL"].append(taken / images * 1e6)
            ratios = {
                storage: statistics.median(
                    pil / ours for pil, ours in zip(seconds["PIL"], seconds[storage], strict=True)
                )
                for storage in paths
            }
            rows.append(
                f"| {side} | {images:,} | {spread(seconds['PIL'])} | {spread(seconds['array'])} | "
                f"{spread(seconds['shards'])} | **{ratios['array']:.0f}** (at least {required}) | "
                f"{ratios['shards']:.1f} |"
            )
            print(rows[-1], flush=True)
    table = "\n".join(rows)
    publish(
        "Reading prepared images",
        f"An epoch of the training split in shuffled batches of {BATCH} in one process, in µs an image: median (range) "
        f"of {options.runs} epochs of each in turn. The store is read through the data loader that training uses. "
        "32 px: CIFAR-10 JPEG, kept as pixels in shards. 224 px: flowers as JPEGs of 256 to 500 px, kept as JPEGs of "
        f"224 px in shards. The ratio is PIL over the store.\n\n{machine()}\n\n"
        "| px | images | PIL from files | array store | shards | ratio, array | ratio, shards |\n"
        f"| --- | --- | --- | --- | --- | --- | --- |\n{table}\n\n"
        "`python benchmarks/store_reading.py`",
    )


def prepared(source: Path, side: int, storage: str) -> Path:
    from recognition.data_settings import Audit, Data
    from recognition.preparation import prepare

    data = Data(source=str(source), image_size=side, storage=storage, audit=Audit(conflicting_labels="warn"))
    return prepare(data).path


def from_store(path: Path) -> tuple[int, float]:
    """Images and seconds of an epoch."""
    from lightning_modules.data_module import ImageData

    loader = ImageData(path, None, BATCH, seed=0, loader_workers=0).train_dataloader()
    began = time.perf_counter()
    images = sum(len(batch.images) for batch in loader)
    return images, time.perf_counter() - began


def from_files(source: Path, path: Path, side: int) -> tuple[int, float]:
    """Images and seconds of an epoch."""
    from recognition import datasets, randomness

    files = [source / sample_id for sample_id in datasets.open_arrays(path).split("train").sample_ids()]
    order = randomness.permutation(0, 0, len(files))
    began = time.perf_counter()
    for start in range(0, len(files), BATCH):
        np.stack([decoded(files[index], side) for index in order[start : start + BATCH]])
    return len(files), time.perf_counter() - began


def decoded(path: Path, side: int) -> np.ndarray:
    image = Image.open(path).convert("RGB")
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image)


def small_jpegs(folder: Path, count: int) -> None:
    """CIFAR-10 as JPEGs, or noise where it is not at hand."""
    archive = REAL / "cifar10-images-jpeg.zip"
    if archive.is_file():
        with zipfile.ZipFile(archive) as content:
            names = [name for name in content.namelist() if name.endswith(".jpg")]
            content.extractall(folder, names[:: max(1, len(names) // count)])
        return
    random = np.random.default_rng(0)
    for number in range(count):
        save(folder / f"class{number % 10}" / f"{number}.jpg", Image.fromarray(noise(random, 32)))


def large_jpegs(folder: Path, count: int) -> None:
    """Flowers enlarged to what a camera's thumbnails measure, or noise."""
    random = np.random.default_rng(0)
    archive = REAL / "flowers-128px.zip"
    if not archive.is_file():
        for number in range(count):
            save(folder / f"class{number % 10}" / f"{number}.jpg", Image.fromarray(noise(random, 400)))
        return
    with zipfile.ZipFile(archive) as content:
        names = [name for name in content.namelist() if name.lower().endswith((".jpg", ".jpeg"))]
        for number, name in enumerate(names[:: max(1, len(names) // count)][:count]):
            image = Image.open(io.BytesIO(content.read(name))).convert("RGB")
            width, height = random.integers(256, 501, 2).tolist()
            larger = image.resize((width, height), Image.Resampling.BICUBIC)
            save(folder / Path(name).parent.name / f"{number}.jpg", larger)


def noise(random: np.random.Generator, side: int) -> np.ndarray:
    return random.integers(0, 256, (side, side, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", quality=90)


if __name__ == "__main__":
    main()
