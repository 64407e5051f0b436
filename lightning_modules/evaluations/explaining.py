"""The explanations of a classifier as a figure of its evaluation: right, wrong and uncertain images."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_modules.evaluations.judged import Judged
from lightning_modules.explanations import explain
from recognition import explanation_figures, scores
from recognition.scoring.classifier import Classifier


def draw(judged: Judged, probabilities: NDArray[np.float64]) -> None:
    """Write ``explanations.png`` of at most ``evaluation.explanations`` images a group; nothing where that is 0.

    Args:
        judged: a classifier and its test images.
        probabilities: of all test images, (N, K).
    """
    if not judged.evaluation.explanations:
        return
    classifier, test, names = cast(Classifier, judged.scorer), judged.arrays.split("test"), judged.data.class_names
    labels = test.labels
    predictions = scores.predicted_labels(probabilities, classifier.threshold)
    chosen = explanation_figures.choose(labels, probabilities, classifier.threshold, judged.evaluation.explanations)
    # all groups at once, in as few batches as can be
    shown = np.concatenate(list(chosen.values()))
    images = test.batch(shown)
    said = torch.from_numpy(predictions[shown]).to(classifier.device)
    maps = explain(classifier.network, classifier.normalised(images), said)
    groups = []
    start = 0
    for kind, positions in chosen.items():
        part = slice(start, start + len(positions))
        start += len(positions)
        captions = [
            explanation_figures.caption(names[labels[i]], names[predictions[i]], probabilities[i, predictions[i]])
            for i in positions
        ]
        found = {method: values[part] for method, values in maps.items()}
        groups.append(
            explanation_figures.Group(_TITLES[kind], images[part], captions, found, _NOTHING[kind].format(len(labels)))
        )
    explanation_figures.explanations(groups, judged.figures / "explanations.png")


_TITLES = {"right": "Most confidently right", "wrong": "Most confidently wrong", "uncertain": "Most uncertain"}
_NOTHING = {
    "right": "None of {:,} images\nis classified right.",
    "wrong": "All {:,} images\nare classified right.",
    "uncertain": "All images are shown\nin the other groups.",
}
