"""Scores of a generator: how far its images are from the test images in a classifier's eyes, and figures."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_modules.evaluations.judged import Judged
from lightning_modules.generation import spread_labels
from lightning_modules.judges import Judge, check_judge
from recognition import sample_figures
from recognition.datasets import Split
from recognition.distribution_scores import Features, frechet_distance, gaussian_of, nearest, precision_recall
from recognition.events import Message, Progress
from recognition.pixels import Pixels
from recognition.scoring.generator import Generator

SEED = 0
MOST_SEARCHED = 20_000
"""Training images among which the nearest ones are looked for."""
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
"""The weights that published Fréchet distances are measured with, as torch-fidelity names its file."""


def evaluate(judged: Judged) -> dict[str, float]:
    """Score a generator by its samples, in the proportions of the test images' classes.

    Fréchet distance to all test images, precision and recall against as many test images as there are samples, and of a
    conditional generator the share of samples that the judge takes for their class; writes ``samples.png`` and
    ``nearest.png``.

    Raises:
        ConfigurationError: there is no judge, or it does not know these images.
    """
    generator = cast(Generator, judged.scorer)
    data, evaluation = judged.data, judged.evaluation
    check_judge(evaluation.judge, data)
    judge = Judge.load(evaluation.judge, str(generator.device))
    test, train = judged.arrays.split("test"), judged.arrays.split("train")
    labels = spread_labels((data.class_counts["test"][name] for name in data.class_names), evaluation.samples)
    samples = generator.generate(labels, SEED)
    features, said = judge.look(samples)
    real = _features(judge, test, len(test), judged)
    compared = real[_spread(len(real), len(features))]
    metrics = {"frechet_distance": frechet_distance(gaussian_of(real), gaussian_of(features))}
    metrics["precision"], metrics["recall"] = precision_recall(compared, features)
    if generator.conditional:
        metrics["recognised"] = float((said == labels).mean())
    metrics |= _inception(samples, test, judged)
    _tell_progress(judged)
    _draw(judged, judge, samples, labels, features, train, generator.conditional)
    return metrics


def _features(judge: Judge, split: Split, count: int, judged: Judged) -> Features:
    """The judge's features of ``count`` images of a split, spread over it."""
    chosen = _spread(len(split), count)
    found: list[Features] = []
    for start in range(0, len(chosen), judged.evaluation.batch_size):
        part = chosen[start : start + judged.evaluation.batch_size]
        found.append(judge.look(split.batch(part))[0])
        judged.emit(Progress("evaluate", start + len(part), len(chosen), "images"))
    return np.concatenate(found)


def _spread(length: int, count: int) -> NDArray[np.int64]:
    """At most ``count`` positions, evenly over 0 to length - 1."""
    count = min(length, count)
    return np.arange(count) * length // count


def _inception(samples: Pixels, test: Split, judged: Judged) -> dict[str, float]:
    """The Fréchet distance of published results, where Inception's weights lie on this machine; nothing is fetched."""
    weights = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION
    if find_spec("torch_fidelity") is None or not weights.is_file():
        text = "no inception_frechet_distance: it needs torch-fidelity, and its Inception weights on this machine"
        judged.emit(Message(logging.INFO, text))
        return {}
    from torchmetrics.image.fid import FrechetInceptionDistance

    measure = FrechetInceptionDistance(feature_extractor_weights_path=str(weights))
    size = judged.evaluation.batch_size
    for start in range(0, len(samples), size):
        measure.update(_coloured(samples[start : start + size]), real=False)
    for positions in test.in_batches(size):
        measure.update(_coloured(test.batch(positions)), real=True)
    return {"inception_frechet_distance": float(measure.compute())}


def _coloured(images: Pixels) -> torch.Tensor:
    colours = images if images.shape[3] == 3 else images.repeat(3, axis=3)
    return torch.from_numpy(np.ascontiguousarray(colours.transpose(0, 3, 1, 2)))


def _tell_progress(judged: Judged) -> None:
    distances = judged.history.get("val/frechet_distance", ())
    if len(distances) > 1 and distances[-1] > 0:
        text = (
            f"val/frechet_distance fell from {distances[0]:.1f} after the first epoch to {distances[-1]:.1f} after the "
            f"last: {distances[0] / distances[-1]:.1f} times"
        )
        judged.emit(Message(logging.INFO, text))


def _draw(
    judged: Judged,
    judge: Judge,
    samples: Pixels,
    labels: NDArray[np.int64],
    features: Features,
    train: Split,
    conditional: bool,
) -> None:
    count = judged.evaluation.examples
    names = judged.data.class_names if conditional else ("",)
    shown = labels if conditional else np.zeros_like(labels)
    sample_figures.samples_by_class(samples, shown, names, count, judged.figures / "samples.png")
    searched = _spread(len(train), MOST_SEARCHED)
    among = _features(judge, train, MOST_SEARCHED, judged)
    chosen = _spread(len(samples), count)
    found = nearest(features[chosen], among)
    sample_figures.beside_nearest(
        samples[chosen], train.batch(searched[found]), len(among), judged.figures / "nearest.png"
    )
