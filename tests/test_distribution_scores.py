"""Fréchet distance, precision and recall against closed forms, torchmetrics and counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from recognition.distribution_scores import Gaussian, frechet_distance, gaussian_of, nearest, precision_recall


def correlated(seed: int, rows: int = 200, columns: int = 6) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, columns)) @ random.normal(size=(columns, columns)) + random.normal(size=columns)


def test_the_gaussian_of_a_set_has_its_mean_and_covariance() -> None:
    gaussian = gaussian_of(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0]]))
    np.testing.assert_allclose(gaussian.mean, [2.0, 2.0])
    # deviations (-2, -1), (0, -1), (2, 2), divided by n - 1 = 2
    np.testing.assert_allclose(gaussian.covariance, [[4.0, 3.0], [3.0, 3.0]])


def test_one_feature_is_a_covariance_of_one_number() -> None:
    assert gaussian_of(np.array([[1.0], [3.0]])).covariance.tolist() == [[2.0]]


def test_independent_features_have_the_closed_form() -> None:
    # |m1 - m2|^2 + sum (s1 - s2)^2 with standard deviations s
    one = Gaussian(np.array([0.0, 1.0, 2.0]), np.diag([4.0, 1.0, 0.0]))
    other = Gaussian(np.array([3.0, 1.0, 0.0]), np.diag([1.0, 9.0, 16.0]))
    assert frechet_distance(one, other) == pytest.approx(9 + 4 + 1 + 4 + 16, abs=1e-12)


def test_a_set_is_at_distance_0_from_itself_and_a_shift_adds_its_square() -> None:
    features = correlated(0)
    one = gaussian_of(features)
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(one, gaussian_of(features + 3.0)) == pytest.approx(6 * 9.0, rel=1e-9)


@pytest.mark.parametrize("rows", [200, 4])
def test_it_is_torchmetrics_distance_and_symmetric(rows: int) -> None:
    # with 4 rows of 6 features both covariances are singular
    one, other = gaussian_of(correlated(1, rows)), gaussian_of(correlated(2, rows))
    tensors = [torch.from_numpy(part) for part in (one.mean, one.covariance, other.mean, other.covariance)]
    # rounding gives zero eigenvalues of the unsymmetric product an imaginary root of about 1e-8
    assert frechet_distance(one, other) == pytest.approx(float(_compute_fid(*tensors)), rel=1e-6)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-9)


@pytest.mark.parametrize("features", [np.zeros((1, 3)), np.zeros(4), np.array([[0.0], [np.nan]])])
def test_what_has_no_covariance_is_refused(features: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"two or more rows are needed|not finite"):
        gaussian_of(features)


def line(*places: float) -> np.ndarray:
    return np.array(places, dtype=np.float64)[:, None]


def test_precision_and_recall_are_counted_by_hand() -> None:
    # with k = 1 the real ones reach 1, 1, 1 and 8: [-1, 1], [0, 2], [1, 3] and [2, 18]
    real = line(0, 1, 2, 10)
    # the generated ones reach 0.5, 0.5, 10 and 10: [2, 3], [2.5, 3.5], [20, 40] and [30, 50]
    generated = line(2.5, 3.0, 30.0, 40.0)
    precision, recall = precision_recall(real, generated, neighbours=1)
    assert precision == 2 / 4
    assert recall == 1 / 4


def test_a_set_is_all_of_itself_and_nothing_of_one_far_away() -> None:
    features = correlated(3)
    assert precision_recall(features, features) == (1.0, 1.0)
    assert precision_recall(features, features + 1e3) == (0.0, 0.0)


def test_one_place_is_precise_and_recalls_little() -> None:
    real = correlated(4, 500)
    collapsed = real.mean(axis=0) + 1e-3 * correlated(5, 500)
    precision, recall = precision_recall(real, collapsed)
    assert precision > 0.9
    assert recall < 0.05


def test_precision_and_recall_of_large_sets_are_those_of_a_plain_loop() -> None:
    real, generated = correlated(6, 1500, 3), correlated(7, 1100, 3)

    def share(points: np.ndarray, region: np.ndarray) -> float:
        reach = np.array([np.sort(np.linalg.norm(region - member, axis=1))[3] for member in region])
        return float(np.mean([(np.linalg.norm(region - point, axis=1) <= reach).any() for point in points]))

    assert precision_recall(real, generated) == (share(generated, real), share(real, generated))


def test_sets_smaller_than_the_neighbourhood_are_refused() -> None:
    with pytest.raises(ValueError, match="3 real and 5 generated images: more than 3 are needed"):
        precision_recall(np.zeros((3, 2)), np.zeros((5, 2)))


def test_the_nearest_is_found() -> None:
    assert nearest(line(0.4, 9.0, 2.6), line(0, 1, 2, 3)).tolist() == [0, 3, 3]
    assert nearest(np.empty((0, 1)), line(0, 1)).tolist() == []
