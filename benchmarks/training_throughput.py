"""Training throughput of `cifar10_cnn`: the pipeline's training stage against the usual plain loop, in processor time.

The baseline is what its users write: torchvision's way of holding CIFAR-10 (an array, `Image.fromarray` for each item),
ToTensor and Normalize on PIL images, a DataLoader with two workers, Adam. Same network, batch size, images and epochs.
Both run in fresh processes, in turn; the processor time of loader workers counts.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "data" / "cifar10-images-jpeg.zip"
RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--side", choices=["pipeline", "plain"], help="run one side in this process and print its figures"
    )
    parser.add_argument(
        "--source", default="", help="an archive of 32x32 images; empty: CIFAR-10 as JPEGs, or generated"
    )
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or (str(REAL) if REAL.is_file() else _generated(Path(folder)))
        if options.side:
            print(json.dumps((pipeline if options.side == "pipeline" else plain)(source, options.epochs)))
        else:
            compare(source, options.runs, options.epochs)


def compare(source: str, runs: int, epochs: int) -> None:
    """Run both sides in turn and publish medians and ratios."""
    import statistics

    from report import machine, publish, spread

    figures: dict[str, list[dict[str, float]]] = {"pipeline": [], "plain": []}
    for _ in range(runs):
        for side in figures:
            words = [sys.executable, __file__, "--side", side, "--source", source, "--epochs", str(epochs)]
            done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
            figures[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(side, figures[side][-1], flush=True)
    rows = []
    for label, key in (("processor time", "cpu"), ("wall time", "wall")):
        ours, theirs = ([run[key] for run in figures[side]] for side in ("pipeline", "plain"))
        ratios = [second / first for first, second in zip(ours, theirs, strict=True)]
        rows.append(f"| {label}, s an epoch | {spread(ours)} | {spread(theirs)} | {statistics.median(ratios):.2f} |")
    images = int(figures["plain"][0]["images"])
    table = "\n".join(rows)
    publish(
        "Training throughput of cifar10_cnn",
        f"{images:,} training images of {Path(source).name}, batch 64, Adam, {epochs} epoch(s) a run, validation "
        f"included on our side only. Medians (and ranges) of {runs} runs of each side in turn; the ratio is plain loop "
        f"over pipeline, run by run, above 1 when the pipeline is faster.\n\n{machine()}\n\n"
        f"| | pipeline | plain loop, 2 workers | ratio |\n| --- | --- | --- | --- |\n{table}\n\n"
        "`python benchmarks/training_throughput.py`",
    )


def pipeline(source: str, epochs: int) -> dict[str, float]:
    """The training stage as a flow runs it: Lightning, checkpoints, validation, the bundle."""
    from lightning_modules import training
    from recognition import policies, preparation
    from recognition.configuration import load_experiment

    words = [f"data.source={source}", f"training.epochs={epochs}"]
    experiment = load_experiment(ROOT / "experiments" / "cifar10_cnn.yaml", words)
    data = preparation.prepare(experiment.data)
    with tempfile.TemporaryDirectory() as folder:
        policy = policies.augment(data, experiment.augmentation, experiment.seed, Path(folder) / "augmentation")
        watch = _Watch()
        training.fit(data, policy, experiment, Path(folder))
        return watch.read(data.counts["train"], epochs)


def plain(source: str, epochs: int) -> dict[str, float]:
    """The loop of a thousand scripts."""
    import numpy as np
    import torch
    from PIL import Image
    from torch import nn
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from recognition import datasets, preparation
    from recognition.configuration import load_experiment

    experiment = load_experiment(ROOT / "experiments" / "cifar10_cnn.yaml", [f"data.source={source}"])
    train = datasets.open_arrays(preparation.prepare(experiment.data).path).split("train")
    images, labels = train.batch(np.arange(len(train))), train.labels

    class Cifar(Dataset):
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])

        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return self.transform(Image.fromarray(images[index])), int(labels[index])

    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 8 * 8, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader = DataLoader(Cifar(), batch_size=64, shuffle=True, num_workers=2)
    loss_of = nn.CrossEntropyLoss()
    watch = _Watch()
    for _ in range(epochs):
        network.train()
        for batch, targets in loader:
            optimizer.zero_grad()
            loss = loss_of(network(batch), targets)
            loss.backward()
            optimizer.step()
    return watch.read(len(images), epochs)


class _Watch:
    """Wall time and processor time of this process and the children it has waited for."""

    def __init__(self) -> None:
        import time

        self._wall, self._cpu = time.perf_counter(), sum(os.times()[:4])

    def read(self, images: int, epochs: int) -> dict[str, float]:
        import time

        wall, cpu = time.perf_counter() - self._wall, sum(os.times()[:4]) - self._cpu
        return {"images": images, "cpu": cpu / epochs, "wall": wall / epochs}


def _generated(folder: Path) -> str:
    """An archive of 10,000 noise images in ten classes, where the real ones are not at hand."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    path = folder / "noise.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(10_000):
            buffer = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
            archive.writestr(f"class{number % 10}/{number}.png", buffer.getvalue())
    return str(path)


if __name__ == "__main__":
    main()
