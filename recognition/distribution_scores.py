"""How alike two sets of images are, by their features: Fréchet distance, and precision and recall.

Features are float (N, F), one row an image, from any network. Everything is computed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]
NEIGHBOURS = 3
"""The k of precision and recall, as in the paper."""
_BLOCK = 1024


@dataclass(frozen=True)
class Gaussian:
    """The normal distribution with a set's mean and covariance."""

    mean: Features
    """(F,)"""
    covariance: Features
    """(F, F), with n - 1 in the denominator."""


def gaussian_of(features: Features) -> Gaussian:
    """Fit a normal distribution to features (N, F).

    Raises:
        ValueError: fewer than two rows, or a value that is not finite.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features have the shape {features.shape}; two or more rows are needed")
    if not np.isfinite(features).all():
        raise ValueError("features hold a value that is not finite")
    return Gaussian(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """The squared Fréchet distance of two normal distributions, at least 0.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)): Dowson and Landau, "The Fréchet distance between multivariate normal
    distributions", Journal of Multivariate Analysis 12 (1982); for images Heusel et al., "GANs trained by a two
    time-scale update rule", NeurIPS 2017. The trace of the root is the sum of the roots of the eigenvalues of
    S1^(1/2) S2 S1^(1/2), which is symmetric and has those of S1 S2: no complex roots, also where S1 or S2 is singular.
    """
    root = _root(one.covariance)
    eigenvalues = np.linalg.eigvalsh(root @ other.covariance @ root)
    shared = np.sqrt(eigenvalues.clip(min=0)).sum()
    apart = np.square(one.mean - other.mean).sum()
    distance = apart + np.trace(one.covariance) + np.trace(other.covariance) - 2 * shared
    return max(0.0, float(distance))


def _root(covariance: Features) -> Features:
    values, vectors = np.linalg.eigh(covariance)
    root: Features = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def precision_recall(real: Features, generated: Features, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """How many generated images look real, and how much of what is real is generated.

    Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models", NeurIPS 2019: a set's
    region is the union of balls around its members, each reaching to its k-th nearest neighbour in the set. Precision
    is the share of generated features within the region of the real ones, recall the share of real ones within the
    region of the generated ones. Sets of one size keep the two comparable.

    Args:
        real: (N, F).
        generated: (M, F).
        neighbours: k; N and M are larger.

    Raises:
        ValueError: a set is too small.
    """
    if min(len(real), len(generated)) <= neighbours:
        raise ValueError(f"{len(real)} real and {len(generated)} generated images: more than {neighbours} are needed")
    return _share_within(generated, real, neighbours), _share_within(real, generated, neighbours)


def _share_within(points: Features, region: Features, neighbours: int) -> float:
    reach = np.empty(len(region))
    for start in range(0, len(region), _BLOCK):
        block = _squared_distances(region[start : start + _BLOCK], region)
        # the nearest is the member itself
        reach[start : start + _BLOCK] = np.partition(block, neighbours, axis=1)[:, neighbours]
    inside = 0
    for start in range(0, len(points), _BLOCK):
        inside += int((_squared_distances(points[start : start + _BLOCK], region) <= reach).any(axis=1).sum())
    return inside / len(points)


def nearest(points: Features, among: Features) -> NDArray[np.int64]:
    """For each of ``points`` (N, F) the row of ``among`` (M, F) that is nearest to it, int64 (N,)."""
    found = [
        _squared_distances(points[start : start + _BLOCK], among).argmin(axis=1)
        for start in range(0, len(points), _BLOCK)
    ]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _squared_distances(one: Features, other: Features) -> Features:
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    squares = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1) - 2 * one @ other.T
    distances: Features = squares.clip(min=0)
    return distances
