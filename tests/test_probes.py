"""Baselines on frozen features are scikit-learn's, and the features are what the head reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sample_images import encoded, write
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from torch import nn

from lightning_modules.freezing import head_of
from lightning_modules.networks import Architecture, build_network
from lightning_modules.probes import baselines, features, linear_probe, nearest_prototypes
from lightning_modules.training import architecture_of, fit
from recognition import datasets
from recognition.experiment import Data, Evaluation, Experiment, Model, Training
from recognition.preparation import prepare
from recognition.records import Policy, PreparedData

SMALL = {"channels": (6, 8), "neck": "average"}


def clusters(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, 5) around three centres, and their labels; the axes differ in size a hundredfold."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    centres = np.array([[0, 0, 0, 0, 0], [1, 1, 0, 0, 50], [0, 1, 1, 0, -50]])
    spread = random.normal(0, [0.7, 0.7, 0.7, 0.7, 70], (count, 5))
    return (centres[labels] + spread).astype(np.float32), labels


# against scikit-learn and by hand


def test_prototypes_are_class_means() -> None:
    train = np.array([[0, 0], [2, 0], [10, 0], [10, 4]], np.float32)
    # means (1, 0) and (10, 2); the point between them at 5.5 leans to either side
    test = np.array([[5, 1], [6, 1], [1, 0], [10, 9]], np.float32)
    assert nearest_prototypes(train, np.array([4, 4, 7, 7]), test).tolist() == [4, 7, 4, 7]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_prototypes_say_what_scikit_learns_nearest_centroid_says(seed: int) -> None:
    (train, labels), (test, _) = clusters(seed), clusters(seed + 10, 200)
    expected = NearestCentroid().fit(train, labels).predict(test)
    assert nearest_prototypes(train, labels, test).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_linear_probe_is_logistic_regression_on_standardised_features(seed: int) -> None:
    (train, labels), (test, _) = clusters(seed), clusters(seed + 10, 200)
    mean, deviation = train.astype(float).mean(axis=0), train.astype(float).std(axis=0)
    by_hand = LogisticRegression(C=1.0).fit((train - mean) / deviation, labels)
    assert linear_probe(train, labels, test).tolist() == by_hand.predict((test - mean) / deviation).tolist()


def test_a_feature_that_never_changes_is_no_error() -> None:
    train = np.array([[0, 3], [1, 3], [10, 3], [11, 3]], np.float32)
    assert linear_probe(train, np.array([0, 0, 1, 1]), np.array([[2, 3], [9, 3]], np.float32)).tolist() == [0, 1]


# features


def test_features_are_the_input_of_the_head() -> None:
    torch.manual_seed(0)
    network = build_network(Architecture("cnn", 4, 16, 16, 3, channels=(8, 8), dense=(10,), pooled_blocks=2)).eval()
    images = torch.randn(5, 3, 16, 16)
    read = features(network, images)
    assert read.shape == (5, 10)
    with torch.inference_mode():
        torch.testing.assert_close(head_of(network)(torch.from_numpy(read)), network(images))
    assert not head_of(network)._forward_pre_hooks


def test_maps_are_averaged_over_their_places() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images = torch.randn(5, 3, 7, 7)
    read = torch.from_numpy(features(network, images))
    with torch.inference_mode():
        torch.testing.assert_close(read, network[0](images).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("name", "size"), [("timm/vit_tiny_patch16_224", 32), ("timm/convnext_atto", 32), ("torchvision/squeezenet1_1", 64)]
)
def test_networks_of_libraries_have_features_too(name: str, size: int) -> None:
    network = build_network(Architecture(name, 4, size, size, 3)).eval()
    width = next(head_of(network).parameters()).shape[1]
    assert features(network, torch.randn(2, 3, size, size)).shape == (2, width)


# a data set


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Three classes of gray 8x8 images, dark to bright, that overlap a little."""
    folder = tmp_path_factory.mktemp("probes")
    random = np.random.default_rng(0)
    for label in range(3):
        for index in range(40):
            image = random.normal(60 + 60 * label + random.normal(0, 25), 20, (8, 8, 1)).clip(0, 255).astype(np.uint8)
            write(folder / "shades" / f"shade-{label}" / f"{index}.png", encoded(image))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(folder / "state"))
        return prepare(Data(source=str(folder / "shades")))


def fresh(data: PreparedData) -> nn.Module:
    torch.manual_seed(0)
    return build_network(architecture_of(Model(**SMALL), data))


def test_baselines_are_fitted_to_training_images_and_scored_on_test_images(shades: PreparedData) -> None:
    network = fresh(shades).eval()
    arrays = datasets.open_arrays(shades.path)
    found = {}
    for name in ("train", "test"):
        split = arrays.split(name)
        images = torch.from_numpy(split.batch(np.arange(len(split)))).permute(0, 3, 1, 2).float() / 255
        found[name] = features(network, (images - 0.25) / 0.5), split.labels
    (train, labels), (test, answers) = found["train"], found["test"]
    for batch_size in (7, 1000):
        scores = baselines(network, shades, (0.25,), (0.5,), batch_size, torch.device("cpu"))
        assert scores == {
            "probe_accuracy": pytest.approx((linear_probe(train, labels, test) == answers).mean()),
            "prototype_accuracy": pytest.approx((nearest_prototypes(train, labels, test) == answers).mean()),
        }
        assert scores["probe_accuracy"] > 0.6  # a guess is right for a third


def trained(data: PreparedData, folder: Path, probe: bool) -> dict[str, float]:
    policy = Policy(path=folder / "policy.json", preview=folder, name="none", transforms=())
    experiment = Experiment(
        data=Data(source=data.source),
        model=Model(**SMALL),
        training=Training(epochs=2, accelerator="cpu", learning_rate=0.1),
        evaluation=Evaluation(probe=probe),
    )
    model = fit(data, policy, experiment, folder)
    return {**model.baselines, "loss": model.history["val/loss"][-1]}


def test_training_scores_the_start_weights_when_asked_and_learns_the_same_either_way(
    shades: PreparedData, tmp_path: Path
) -> None:
    with_probe, without = (trained(shades, tmp_path / str(probe), probe) for probe in (True, False))
    assert set(with_probe) - set(without) == {"probe_accuracy", "prototype_accuracy"}
    assert with_probe["loss"] == without["loss"]
    start = baselines(fresh(shades), shades, shades.mean, shades.std, 256, torch.device("cpu"))
    assert {name: with_probe[name] for name in start} == start
