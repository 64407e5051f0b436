"""Memory of training over a sharded set of 100,000 generated images: resident at the end of each epoch.

Counted is the training process with its loader workers, in a process of its own that begins after the preparation.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SIDE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--train", default="", help="train on this source in this process and print the figures")
    options = parser.parse_args()
    if options.train:
        print(json.dumps(train(options.train, options.epochs)))
        return
    from report import machine, publish

    with tempfile.TemporaryDirectory() as folder:
        os.environ["RECOGNITION_HOME"] = str(Path(folder) / "state")
        source = Path(folder) / "generated.zip"
        generate(source, options.images)
        began = time.perf_counter()
        prepared(str(source))
        print(f"prepared in {time.perf_counter() - began:.0f} s", flush=True)
        words = [sys.executable, __file__, "--train", str(source), "--epochs", str(options.epochs)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
    rows = []
    for label, values in (("resident", found["resident_mb"]), ("proportional", found["proportional_mb"])):
        cells = " | ".join(f"{value:.0f}" for value in values)
        rows.append(f"| {label}, MB | {cells} | {values[-1] / values[0] - 1:+.1%} |")
    table = "\n".join(rows)
    publish(
        "Memory over a sharded set",
        f"{options.images:,} generated images of {SIDE} px in {found['shards']} shards of JPEGs "
        f"({found['shard_mb']:.0f} MB), {found['train_images']:,} of them for training: memory of the training process "
        "and its loader workers (one for training, one for validation) at the end of each epoch, added up. Resident "
        "counts what they share once for each, proportional once in all. Growth from first to last epoch may be 10 %."
        f"\n\n{machine()}\n\n"
        f"| epoch | {' | '.join(str(epoch + 1) for epoch in range(options.epochs))} | growth |\n"
        f"| --- |{' --- |' * options.epochs} --- |\n{table}\n\n"
        f"{found['seconds'] / options.epochs:.0f} s an epoch.\n\n"
        "`python benchmarks/sharded_memory.py`",
    )


def generate(path: Path, count: int) -> None:
    """An archive of smooth random images in ten classes, each class of a hue."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    hues = random.integers(40, 216, (10, 3))
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            coarse = np.clip(hues[number % 10] + random.normal(0, 50, (8, 8, 3)), 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            archive.writestr(f"class{number % 10}/{number:06d}.jpg", buffer.getvalue())


def prepared(source: str):
    from recognition.data_settings import Data
    from recognition.preparation import prepare

    return prepare(Data(source=source, storage="shards"))


def train(source: str, epochs: int) -> dict[str, object]:
    """Train a small network the way a flow does, and look at the memory after each epoch."""
    import psutil

    from lightning_modules import training
    from recognition import datasets, events, policies
    from recognition.data_settings import Data
    from recognition.experiment import Augmentation, Experiment, Model, Training
    from recognition.store.shards import ShardedImages

    data = prepared(source)
    images = datasets.open_arrays(data.path).images
    assert isinstance(images, ShardedImages)
    experiment = Experiment(
        data=Data(source=source, storage="shards"),
        augmentation=Augmentation(preset="none"),
        model=Model(network="cnn", channels=(8, 16), dense=()),
        training=Training(epochs=epochs, batch_size=64, loader_workers=1),
    )
    process = psutil.Process()
    resident: list[float] = []
    proportional: list[float] = []

    def watch(event: events.Event) -> None:
        if isinstance(event, events.EpochEnd):
            everyone = [process, *process.children(recursive=True)]
            resident.append(sum(one.memory_info().rss for one in everyone) / 1e6)
            proportional.append(sum(one.memory_full_info().pss for one in everyone) / 1e6)

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        policy = policies.augment(data, experiment.augmentation, experiment.seed, Path(folder) / "augmentation")
        training.fit(data, policy, experiment, Path(folder), emit=watch)
    assert len(resident) == epochs
    return {
        "resident_mb": resident,
        "proportional_mb": proportional,
        "seconds": time.perf_counter() - began,
        "shards": images.shards,
        "shard_mb": sum(path.stat().st_size for path in images.folder.glob("*.arrow")) / 1e6,
        "train_images": data.counts["train"],
    }


if __name__ == "__main__":
    main()
