"""Which format for shards: the same encoded images as Arrow IPC files, WebDataset and LitData, read in random order.

Each format holds the same bytes an image and decodes them by the same function, so that the formats alone differ. Those
that are not installed are left out: `pip install webdataset litdata` into an environment of its own for all three.
"""

from __future__ import annotations

import importlib.util
import io
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
REAL = ROOT.parent / "shared" / "data"
BATCH = 64
ROUNDS = 3
WORKERS = (0, 2)


def main() -> None:
    from report import machine, publish

    warnings.filterwarnings("ignore")
    formats = {"Arrow": arrow, "WebDataset": webdataset, "LitData": litdata}
    modules = {"Arrow": "pyarrow", "WebDataset": "webdataset", "LitData": "litdata"}
    rows = []
    for side, count in ((32, 20_000), (224, 2_000)):
        images = pictures(side, count)
        for name, measure in formats.items():
            if importlib.util.find_spec(modules[name]) is None:
                rows.append(f"| {name} | {side} | not installed | | | |")
                continue
            with tempfile.TemporaryDirectory() as folder:
                read, single = measure(images, Path(folder))
                size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
                speeds = [speed(read, len(images)) for _ in range(ROUNDS)]
                same = [tuple(read_with_workers(measure, Path(folder), images, workers)) for workers in WORKERS]
            random_access = f"{single:,.0f}" if single else "no"
            rows.append(
                f"| {name} | {side} | {min(speeds):.1f} | {random_access} | {size / len(images):,.0f} "
                f"({size / images[0].nbytes / len(images):.0%}) | {'yes' if len(set(same)) == 1 else 'no'} |"
            )
            print(rows[-1], flush=True)
    codecs = "\n".join(codec_rows())
    table = "\n".join(rows)
    publish(
        "Formats for shards",
        f"The same images in batches of {BATCH} in shuffled order, one process, files in the page cache, best of "
        f"{ROUNDS} epochs; 32 px as pixels, 224 px as JPEG (quality 95, 4:4:4). Random access: one image by its index. "
        f"Same order: an epoch with 2 loader workers gives the batches that it gives with none.\n\n{machine()}\n\n"
        "| format | side, px | µs an image | µs random access | bytes an image (of the pixels) | same order |\n"
        f"| --- | --- | --- | --- | --- | --- |\n{table}\n\n"
        "What an image is kept as (by Pillow, means over real images, those of 224 px enlarged from 128 px; loss in "
        "steps of 0 to 255):\n\n"
        "| codec | side, px | bytes (of the pixels) | µs encode | µs decode | mean loss | largest loss |\n"
        f"| --- | --- | --- | --- | --- | --- | --- |\n{codecs}\n\n"
        "`python benchmarks/shard_formats.py`",
    )


Read = Callable[[], Iterator[np.ndarray]]


def speed(read: Read, count: int) -> float:
    """Microseconds an image."""
    began = time.perf_counter()
    assert sum(len(batch) for batch in read()) == count
    return (time.perf_counter() - began) / count * 1e6


def pictures(side: int, count: int) -> np.ndarray:
    """Real images where they are at hand: uint8 (count, side, side, 3)."""
    path = REAL / ("cifar10-images-jpeg.zip" if side == 32 else "flowers-128px.zip")
    if not path.is_file():
        return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    images = np.empty((count, side, side, 3), np.uint8)
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith((".jpg", ".jpeg"))][:count]
        for number, name in enumerate(names):
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            images[number] = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    return images


def encoded(pixels: np.ndarray) -> bytes:
    from recognition.store.shard_files import encode

    return encode(pixels, codec_of(pixels))


def codec_of(pixels: np.ndarray) -> str:
    return "jpeg" if pixels.shape[0] >= 64 else "raw"


def decoded(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    if len(content) == int(np.prod(shape)):
        return np.frombuffer(content, np.uint8).reshape(shape)
    return np.asarray(Image.open(io.BytesIO(content), formats=("JPEG",)))


# the three formats: each gives an epoch's reader and the time of one random access


def arrow(images: np.ndarray, folder: Path) -> tuple[Read, float]:
    from recognition.store.shards import ShardedImages, ShardOrder, ShardWriter

    with ShardWriter(folder / "set", images.shape) as writer:
        for index, pixels in enumerate(images):
            writer.put(index, pixels)
    read = ShardedImages(folder / "set")
    order = ShardOrder(read, np.arange(len(images)))

    def epoch() -> Iterator[np.ndarray]:
        for window in order.shuffled(0, 0):
            for start in range(0, len(window), BATCH):
                yield read[window[start : start + BATCH]]

    some = np.random.default_rng(0).permutation(len(images))[:500].tolist()
    read[some[0]]
    began = time.perf_counter()
    for index in some:
        read[index]
    return epoch, (time.perf_counter() - began) / len(some) * 1e6


def webdataset(images: np.ndarray, folder: Path) -> tuple[Read, float]:
    per_shard = max(1, (64 << 20) // len(encoded(images[0])))
    (folder / "set").mkdir()
    for number, start in enumerate(range(0, len(images), per_shard)):
        with tarfile.open(folder / "set" / f"{number:05d}.tar", "w") as shard:
            for index in range(start, min(start + per_shard, len(images))):
                content = encoded(images[index])
                entry = tarfile.TarInfo(f"{index:08d}.img")
                entry.size = len(content)
                shard.addfile(entry, io.BytesIO(content))
    return partial(webdataset_epoch, folder, images.shape[1:]), 0.0


def webdataset_pipeline(folder: Path, shape: tuple[int, ...], keys: bool = False):
    import webdataset as wds

    shards = sorted(map(str, (folder / "set").glob("*.tar")))
    pipeline = wds.WebDataset(shards, shardshuffle=len(shards), seed=0, empty_check=False).shuffle(1000)
    return pipeline.map(partial(_key_of if keys else _image_of, shape)).batched(BATCH, collation_fn=list)


def _image_of(shape: tuple[int, ...], sample: dict) -> np.ndarray:
    return decoded(sample["img"], shape)


def _key_of(shape: tuple[int, ...], sample: dict) -> int:
    return int(sample["__key__"])


def webdataset_epoch(folder: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    for batch in webdataset_pipeline(folder, shape):
        yield np.stack(batch)


def litdata(images: np.ndarray, folder: Path) -> tuple[Read, float]:
    from litdata.streaming import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder / "set"), chunk_bytes=64 << 20)
    for index, pixels in enumerate(images):
        writer.add_item(index, {"index": index, "image": encoded(pixels)})
    writer.done()
    writer.merge()
    dataset = StreamingDataset(str(folder / "set"))
    some = np.random.default_rng(0).permutation(len(images))[:500].tolist()
    dataset[some[0]]
    began = time.perf_counter()
    for index in some:
        decoded(dataset[index]["image"], images.shape[1:])
    return partial(litdata_epoch, folder, images.shape[1:]), (time.perf_counter() - began) / len(some) * 1e6


def litdata_epoch(folder: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    from litdata.streaming import StreamingDataset

    batch = []
    for sample in StreamingDataset(str(folder / "set"), shuffle=True):
        batch.append(decoded(sample["image"], shape))
        if len(batch) == BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def read_with_workers(measure: Callable, folder: Path, images: np.ndarray, workers: int) -> list[tuple[int, ...]]:
    """The indices of an epoch's batches through a loader with so many workers."""
    from torch.utils.data import DataLoader

    if measure is arrow:
        from lightning_modules.data_module import KeyedBatches
        from recognition.store.shards import ShardedImages, ShardOrder

        order = ShardOrder(ShardedImages(folder / "set"), np.arange(len(images)))
        batches = KeyedBatches(len(images), BATCH, 0, True, shards=order)
        loader = DataLoader(
            _Positions(), sampler=batches, batch_size=None, num_workers=workers, collate_fn=lambda batch: batch
        )
        return [tuple(batch) for batch in loader]
    if measure is webdataset:
        pipeline = webdataset_pipeline(folder, images.shape[1:], keys=True)
        return [tuple(batch) for batch in DataLoader(pipeline, batch_size=None, num_workers=workers)]
    from litdata.streaming import StreamingDataLoader, StreamingDataset

    loader = StreamingDataLoader(
        StreamingDataset(str(folder / "set"), shuffle=True), batch_size=BATCH, num_workers=workers, collate_fn=_indices
    )
    return [tuple(batch) for batch in loader]


def _indices(samples: list[dict]) -> list[int]:
    return [sample["index"] for sample in samples]


class _Positions:
    """The positions that a sampler asks for."""

    def __getitem__(self, keys: list) -> list[int]:
        return [position for (_, position), _ in keys]

    def __len__(self) -> int:
        return 0


# what an image is kept as


def codec_rows() -> Iterator[str]:
    codecs = {
        "pixels as they are": None,
        "PNG, level 1": {"format": "PNG", "compress_level": 1},
        "WebP, lossless": {"format": "WEBP", "lossless": True, "quality": 0, "method": 0},
        "JPEG 95, 4:4:4": {"format": "JPEG", "quality": 95, "subsampling": 0},
        "JPEG 95, 4:2:0": {"format": "JPEG", "quality": 95, "subsampling": 2},
        "JPEG 90, 4:4:4": {"format": "JPEG", "quality": 90, "subsampling": 0},
    }
    for side, count in ((32, 1000), (224, 200)):
        images = pictures(side, count)
        for name, options in codecs.items():
            began = time.process_time()
            contents = [_kept(pixels, options) for pixels in images]
            middle = time.process_time()
            back = [_read(content, options, images.shape[1:]) for content in contents]
            end = time.process_time()
            loss = np.abs(np.stack(back).astype(int) - images)
            size = float(np.mean([len(content) for content in contents]))
            encode, decode = (seconds / count * 1e6 for seconds in (middle - began, end - middle))
            yield (
                f"| {name} | {side} | {size:,.0f} ({size / images[0].nbytes:.0%}) | {encode:.0f} | {decode:.0f} "
                f"| {loss.mean():.2f} | {loss.max()} |"
            )


def _kept(pixels: np.ndarray, options: dict | None) -> bytes:
    if options is None:
        return pixels.tobytes()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


def _read(content: bytes, options: dict | None, shape: tuple[int, ...]) -> np.ndarray:
    if options is None:
        return np.frombuffer(content, np.uint8).reshape(shape).copy()
    return np.asarray(Image.open(io.BytesIO(content)))


if __name__ == "__main__":
    main()
