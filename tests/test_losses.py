"""Losses equal those of torch and torchvision where these have them, and have finite gradients everywhere."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from lightning_modules.losses import ClassificationLoss

LOGITS = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.randint(5, (40,), generator=torch.Generator().manual_seed(1))
SHARES = torch.rand(40, 5, generator=torch.Generator().manual_seed(2)).softmax(dim=1)
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 4.0, 0.1])
ONE_LOGIT = LOGITS[:, :1]
TWO_LABELS = LABELS % 2


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_softmax_loss_is_torchs_cross_entropy(weight: Tensor | None, smoothing: float) -> None:
    ours = ClassificationLoss(5, label_smoothing=smoothing, weight=weight)(LOGITS, LABELS)
    same(ours, F.cross_entropy(LOGITS, LABELS, weight=weight, label_smoothing=smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_probabilities_as_targets_are_taken_as_torch_takes_them(smoothing: float) -> None:
    ours = ClassificationLoss(5, label_smoothing=smoothing)(LOGITS, SHARES)
    same(ours, F.cross_entropy(LOGITS, SHARES, label_smoothing=smoothing))


@pytest.mark.parametrize("gamma", [None, 2.0])
def test_a_label_and_its_one_hot_row_are_alike(gamma: float | None) -> None:
    loss = ClassificationLoss(5, focal_gamma=gamma, label_smoothing=0.1, weight=WEIGHT)
    same(loss(LOGITS, F.one_hot(LABELS, 5).float()), loss(LOGITS, LABELS))


def test_sigmoid_loss_is_torchs_binary_cross_entropy() -> None:
    ours = ClassificationLoss(2, sigmoid=True)(ONE_LOGIT, TWO_LABELS)
    same(ours, F.binary_cross_entropy_with_logits(ONE_LOGIT[:, 0], TWO_LABELS.float()))


def test_sigmoid_loss_with_smoothing_is_binary_cross_entropy_with_smoothed_labels() -> None:
    ours = ClassificationLoss(2, sigmoid=True, label_smoothing=0.2)(ONE_LOGIT, TWO_LABELS)
    same(ours, F.binary_cross_entropy_with_logits(ONE_LOGIT[:, 0], TWO_LABELS * 0.8 + 0.1))


def test_sigmoid_loss_weighs_classes_like_two_softmax_logits() -> None:
    weight = torch.tensor([0.25, 3.0])
    ours = ClassificationLoss(2, sigmoid=True, weight=weight)(ONE_LOGIT, TWO_LABELS)
    # sigmoid(x) is the second entry of softmax(0, x)
    two = torch.cat([torch.zeros_like(ONE_LOGIT), ONE_LOGIT], dim=1)
    same(ours, F.cross_entropy(two, TWO_LABELS, weight=weight))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_of_one_logit_is_torchvisions(gamma: float) -> None:
    ours = ClassificationLoss(2, sigmoid=True, focal_gamma=gamma)(ONE_LOGIT, TWO_LABELS)
    theirs = sigmoid_focal_loss(ONE_LOGIT[:, 0], TWO_LABELS.float(), alpha=-1, gamma=gamma, reduction="mean")
    same(ours, theirs)


def test_focal_loss_of_k_logits_is_the_papers_formula() -> None:
    p = LOGITS.softmax(dim=1)[torch.arange(40), LABELS]
    same(ClassificationLoss(5, focal_gamma=2.0)(LOGITS, LABELS), (-((1 - p) ** 2) * p.log()).mean())


@pytest.mark.parametrize("sigmoid", [False, True])
def test_focal_loss_with_gamma_0_is_cross_entropy(sigmoid: bool) -> None:
    logits, labels, classes = (ONE_LOGIT, TWO_LABELS, 2) if sigmoid else (LOGITS, LABELS, 5)
    weight = WEIGHT[:classes]
    focal = ClassificationLoss(classes, sigmoid, focal_gamma=0.0, weight=weight)(logits, labels)
    same(focal, ClassificationLoss(classes, sigmoid, weight=weight)(logits, labels))


def test_focal_loss_counts_easy_images_less() -> None:
    easy, hard = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    label = torch.tensor([0])

    def share(gamma: float) -> float:
        loss = ClassificationLoss(2, focal_gamma=gamma)
        return float(loss(easy, label) / loss(hard, label))

    assert share(2.0) < share(1.0) < share(0.0)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("gamma", [None, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_are_finite_for_extreme_logits(sigmoid: bool, gamma: float | None, smoothing: float) -> None:
    extreme = [-1e4, -100.0, 0.0, 100.0, 1e4]
    rows = [[value] for value in extreme] if sigmoid else [[one, other] for one in extreme for other in extreme]
    logits = torch.tensor(rows, requires_grad=True)
    for label in (0, 1):
        labels = torch.full((len(rows),), label)
        loss = ClassificationLoss(2, sigmoid, gamma, smoothing)(logits, labels)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0


def test_the_gradient_is_that_of_finite_differences() -> None:
    logits = LOGITS[:4].double().requires_grad_()
    loss = ClassificationLoss(5, focal_gamma=1.5, label_smoothing=0.1, weight=WEIGHT.double())
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS[:4]), logits)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_log_probabilities_sum_to_one(sigmoid: bool) -> None:
    log_p = ClassificationLoss(2 if sigmoid else 5, sigmoid).log_probabilities(ONE_LOGIT if sigmoid else LOGITS)
    same(log_p.exp().sum(dim=1), torch.ones(40))
