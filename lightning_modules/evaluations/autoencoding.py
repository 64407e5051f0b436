"""Scores of an autoencoder: how near restored images are to the originals, what codes are good for, and figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_modules import probes
from lightning_modules.evaluations.judged import Judged
from lightning_modules.noise import UNLEARNED, noisy
from recognition import reconstruction_figures, sample_figures
from recognition.datasets import Split
from recognition.events import Progress
from recognition.pixels import Pixels
from recognition.restoration_scores import psnr, squared_errors, ssim
from recognition.scoring.autoencoder import Autoencoder

if TYPE_CHECKING:
    import pandas as pd

SEED = 0
MOST_FITTED = 20_000
"""Training images that principal components and the linear probe are fitted to, at most."""
MOST_NUMBERS = 100_000_000
"""Pixels of these images, at most."""
MOST_POINTS = 5_000
STEPS, WAYS, PRIOR_ROWS = 9, 6, 5
Restored = NDArray[np.float32]


def evaluate(judged: Judged) -> dict[str, float]:
    """Score an autoencoder on the test images, brightness from 0 to 1.

    Means over images of squared error, PSNR and SSIM; ``pca_psnr``, of as many principal components as a code has
    numbers; for a model that removes noise also the scores of the noisy images; where images have classes, the accuracy
    of a logistic regression on codes. Components and regression are fitted to at most 20,000 training images, spread
    evenly. Writes ``reconstruction_errors.parquet``, where what is unlike the training images stands out, and figures.
    """
    import pandas as pd

    model = cast(Autoencoder, judged.scorer)
    test, train = judged.arrays.split("test"), judged.arrays.split("train")
    components = _Components.fitted(train, model.description["architecture"]["code"])
    columns = ["mse", "psnr", "ssim"]
    found = {name: np.full((len(test), 3), np.nan) for name in ("restored", "noisy", "pca")}
    done = 0
    for positions in test.in_batches(judged.evaluation.batch_size):
        clean = test.batch(positions)
        given = _given(clean, positions, model.noise)
        found["restored"][positions] = _scores(model.decoded(model.codes(given)), clean)
        found["pca"][positions] = _scores(components.restored(given), clean)
        if model.noise:
            found["noisy"][positions] = _scores(_unit(given), clean)
        done += len(positions)
        judged.emit(Progress("evaluate", done, len(test), "images"))
    # SSIM is not defined for images of one or two pixels a side
    metrics = {name: float(value) for name, value in zip(columns, found["restored"].mean(axis=0), strict=True)}
    metrics["pca_psnr"] = float(found["pca"][:, 1].mean())
    if model.noise:
        metrics |= {f"noisy_{name}": float(found["noisy"][:, place].mean()) for place, name in enumerate(columns)}
    metrics = {name: value for name, value in metrics.items() if np.isfinite(value)}
    table = pd.DataFrame({"sample_id": test.sample_ids()})
    labelled = judged.data.kind == "classes"
    if labelled:
        table["class"] = [judged.data.class_names[label] for label in test.labels]
    table[columns] = found["restored"]
    table.to_parquet(judged.folder / "reconstruction_errors.parquet", index=False)
    codes = _codes(model, test, np.arange(len(test)), judged.evaluation.batch_size)
    if labelled and len(np.unique(train.labels)) > 1:
        chosen = _spread(len(train), MOST_FITTED)
        learned = _codes(model, train, chosen, judged.evaluation.batch_size)
        predictions = probes.linear_probe(learned, train.labels[chosen], codes)
        metrics["probe_accuracy"] = float((predictions == test.labels).mean())
    _draw(judged, model, test, codes, components, table, metrics)
    return metrics


@dataclass(frozen=True)
class _Components:
    """Principal components of training images."""

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    fitted_to: int

    @classmethod
    def fitted(cls, train: Split, count: int) -> _Components:
        """``count`` components, or as many as there are."""
        from sklearn.decomposition import PCA

        pixels = int(np.prod(train.batch(np.arange(1)).shape))
        chosen = _spread(len(train), min(MOST_FITTED, max(2, MOST_NUMBERS // pixels)))
        images = _unit(train.batch(chosen)).reshape(len(chosen), -1)
        fit = PCA(min(count, *images.shape), random_state=SEED).fit(images)
        return cls(fit.mean_.astype(np.float32), fit.components_.astype(np.float32), len(chosen))

    def restored(self, images: Pixels) -> Restored:
        """Images (N, H, W, C) in [0, 1] from their components."""
        flat = _unit(images).reshape(len(images), -1) - self.mean
        return (flat @ self.axes.T @ self.axes + self.mean).clip(0, 1).reshape(images.shape)


def _given(clean: Pixels, positions: NDArray[np.int64], noise: float) -> Pixels:
    """What the network is given: the images, with the noise that it has learned to remove."""
    if not noise:
        return clean
    given: Pixels = noisy(torch.from_numpy(clean), torch.from_numpy(positions), noise, SEED, UNLEARNED).numpy()
    return given


def _scores(restored: Restored, clean: Pixels) -> NDArray[np.float64]:
    """Squared error, PSNR and SSIM of each image, (N, 3)."""
    one, other = (torch.from_numpy(images).permute(0, 3, 1, 2) for images in (restored, _unit(clean)))
    errors = squared_errors(one, other)
    return torch.stack([errors, psnr(errors), ssim(one, other)], dim=1).double().numpy()


def _codes(model: Autoencoder, split: Split, chosen: NDArray[np.int64], batch_size: int) -> NDArray[np.float32]:
    """Codes (n, code) of the images at some positions, as they are stored."""
    return np.concatenate([model.codes(split.batch(part)) for part in _parts(chosen, batch_size)])


def _parts(positions: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


def _spread(length: int, count: int) -> NDArray[np.int64]:
    """At most ``count`` positions, evenly over 0 to length - 1."""
    count = min(length, count)
    return np.arange(count) * length // count


def _unit(images: Pixels) -> Restored:
    return images.astype(np.float32) / np.float32(255)


def _pixels(images: Restored) -> Pixels:
    return np.rint(images * 255).astype(np.uint8)


def _draw(
    judged: Judged,
    model: Autoencoder,
    test: Split,
    codes: NDArray[np.float32],
    components: _Components,
    table: pd.DataFrame,
    metrics: dict[str, float],
) -> None:
    folder, count = judged.figures, judged.evaluation.examples
    chosen = _spread(len(test), count)
    clean = test.batch(chosen)
    given = _given(clean, chosen, model.noise)
    rows = {"original": clean} | ({"noisy": given} if model.noise else {})
    rows["restored"] = _pixels(model.decoded(model.codes(given)))
    rows[f"{len(components.axes)} principal\ncomponents"] = _pixels(components.restored(given))
    title = (
        f"{codes.shape[1]} numbers an image: {metrics['psnr']:.2f} dB; as many principal components of "
        f"{components.fitted_to:,} images: {metrics['pca_psnr']:.2f} dB"
    )
    reconstruction_figures.restored_rows(rows, title, folder / "reconstructions.png")
    _draw_map(judged, test, codes)
    worst = np.argsort(-table["mse"].to_numpy(), kind="stable")[:count]
    clean = test.batch(worst)
    reconstruction_figures.largest_errors(
        clean,
        _pixels(model.decoded(model.codes(_given(clean, worst, model.noise)))),
        table["mse"].to_numpy()[worst],
        table["class" if "class" in table else "sample_id"].iloc[worst].tolist(),
        len(test),
        folder / "largest_errors.png",
    )
    if model.variational:
        drawn = np.random.default_rng(SEED).standard_normal((PRIOR_ROWS * sample_figures.COLUMNS, codes.shape[1]))
        samples = _pixels(model.decoded(drawn.astype(np.float32)))
        unlabelled = np.zeros(len(samples), np.int64)
        sample_figures.samples_by_class(samples, unlabelled, ("",), PRIOR_ROWS, folder / "samples.png")
        ends = codes[_spread(len(codes), 2 * WAYS)]
        ways = len(ends) // 2
        if ways:
            weights = np.linspace(0, 1, STEPS, dtype=np.float32)[:, None]
            between = [(1 - weights) * ends[way] + weights * ends[ways + way] for way in range(ways)]
            images = np.stack([_pixels(model.decoded(way)) for way in between])
            reconstruction_figures.interpolations(images, folder / "interpolation.png")


def _draw_map(judged: Judged, test: Split, codes: NDArray[np.float32]) -> None:
    chosen = _spread(len(codes), MOST_POINTS)
    centred = (codes[chosen] - codes[chosen].mean(axis=0)).astype(np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(chosen), 2))
    shares = np.zeros(2)
    axes = min(2, len(sizes))  # codes of one number lie on a line
    points[:, :axes] = (left * sizes)[:, :axes]
    shares[:axes] = (sizes**2 / max(float((sizes**2).sum()), 1e-12))[:axes]
    labels = test.labels[chosen] if judged.data.kind == "classes" else None
    reconstruction_figures.latent_map(
        points, shares.tolist(), labels, judged.data.class_names, judged.figures / "latent_map.png"
    )
