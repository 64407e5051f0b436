"""Training does what its settings say, compared with the same step made by hand in plain torch."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sample_images import encoded, write
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from lightning_modules import schedules
from lightning_modules.mixing import mix
from lightning_modules.networks import build_network
from lightning_modules.preflight import check
from lightning_modules.training import architecture_of, fit
from recognition import bundle, datasets, policies
from recognition.errors import ConfigurationError, ModelError, RecognitionError
from recognition.events import Emit, EpochEnd, Event, ignore
from recognition.experiment import Augmentation, Data, Experiment, Model, Training
from recognition.preparation import prepare
from recognition.randomness import permutation
from recognition.records import Policy, PreparedData, TrainedModel

RATE = 0.01
WHOLE = 10_000
"""A batch size that makes an epoch one step."""
PLAIN = {"channels": (6, 8), "batch_norm": False, "dense": (16,)}
ONE_STEP = {"epochs": 1, "batch_size": WHOLE, "schedule": "constant", "learning_rate": RATE, "weight_decay": 0.0}
SGD = {**ONE_STEP, "optimizer": "sgd", "momentum": 0.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for prepared data sets."""
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(folder / "state"))
        yield folder
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def digits(base: Path) -> PreparedData:
    return prepare(Data())


def quadrants(root: Path, *counts: int) -> PreparedData:
    """Noisy gray images of 8x8 pixels; in those of class k, quadrant k is brighter."""
    random = np.random.default_rng(0)
    for label, count in enumerate(counts):
        for index in range(count):
            image = random.integers(0, 160, (8, 8))
            row, column = 4 * (label // 2), 4 * (label % 2)
            image[row : row + 4, column : column + 4] += 60
            write(root / f"quadrant-{label}" / f"{index}.png", encoded(image.astype(np.uint8)[:, :, None]))
    return prepare(Data(source=str(root)))


@pytest.fixture(scope="module")
def four(base: Path) -> PreparedData:
    """Four classes of unlike sizes: 86 training images."""
    return quadrants(base / "four", 40, 20, 40, 20)


@pytest.fixture(scope="module")
def two(base: Path) -> PreparedData:
    return quadrants(base / "two", 30, 20)


def policy_of(data: PreparedData, folder: Path, name: str) -> Policy:
    transforms = policies.presets()[name]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "policy.json"
    path.write_text(policies.to_json(policies.build(transforms, data.height, data.width)))
    return Policy(path=path, preview=path, name=name, transforms=tuple(key for item in transforms for key in item))


def experiment_of(
    training: dict[str, Any],
    model: dict[str, Any] | None = None,
    augmentation: dict[str, Any] | None = None,
    seed: int = 0,
) -> Experiment:
    return Experiment(
        seed=seed,
        augmentation=Augmentation(**(augmentation or {})),
        model=Model(**(PLAIN if model is None else model)),
        training=Training(**{"accelerator": "cpu", "loader_workers": 0, **training}),
    )


def trained(
    data: PreparedData,
    folder: Path,
    training: dict[str, Any],
    model: dict[str, Any] | None = None,
    augmentation: dict[str, Any] | None = None,
    seed: int = 0,
    policy: str = "none",
    emit: Emit = ignore,
) -> TrainedModel:
    experiment = experiment_of(training, model, augmentation, seed)
    return fit(data, policy_of(data, folder, policy), experiment, folder, emit=emit)


def weights_of(result: TrainedModel) -> dict[str, Tensor]:
    return load_file(result.bundle / "weights.safetensors")


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], other[name], rtol=1e-5, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


def checkpoint(result: TrainedModel, name: str = "last") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(result.path / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content


def network_in(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}


def fresh(data: PreparedData, model: dict[str, Any] | None = None, seed: int = 0) -> nn.Module:
    """The network as training starts with it."""
    torch.manual_seed(seed)
    return build_network(architecture_of(Model(**(PLAIN if model is None else model)), data))


def batch_of(data: PreparedData, seed: int = 0, split: str = "train") -> tuple[Tensor, Tensor]:
    """The normalised images of a split in the order of the first epoch, and their labels."""
    part = datasets.open_arrays(data.path).split(split)
    order = permutation(seed, 0, len(part)) if split == "train" else np.arange(len(part))
    images = torch.from_numpy(part.batch(order)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(data.mean).view(1, -1, 1, 1), torch.tensor(data.std).view(1, -1, 1, 1)
    return (images - mean) / std, torch.from_numpy(part.labels[order])


# what a training leaves


@pytest.fixture(scope="module")
def result(base: Path, digits: PreparedData) -> tuple[TrainedModel, list[Event]]:
    """Three epochs on the digits, with batch normalisation and augmentation."""
    events: list[Event] = []
    training = {"epochs": 3, "batch_size": 64, "learning_rate": 0.01}
    model = {"channels": (8, 16)}
    return trained(digits, base / "result", training, model, policy="shift_rotate", emit=events.append), events


def test_the_history_holds_every_metric_of_every_epoch(result: tuple[TrainedModel, list[Event]]) -> None:
    model, events = result
    expected = {
        "train/loss",
        "train/accuracy",
        "val/loss",
        "val/accuracy",
        "val/f1_macro",
        "epoch/learning_rate",
        "epoch/seconds",
    }
    assert set(model.history) == expected
    assert {len(values) for values in model.history.values()} == {3}
    assert model.epochs == 3
    assert json.loads((model.path / "history.json").read_text()) == model.history
    ends = [event for event in events if isinstance(event, EpochEnd)]
    assert [(event.epoch, event.epochs) for event in ends] == [(0, 3), (1, 3), (2, 3)]
    assert [event.metrics["val/loss"] for event in ends] == model.history["val/loss"]


def test_it_learns(result: tuple[TrainedModel, list[Event]]) -> None:
    history = result[0].history
    assert history["val/accuracy"][-1] > 0.8
    assert history["val/loss"][-1] < history["val/loss"][0]


def test_parameters_and_operations_are_counted(result: tuple[TrainedModel, list[Event]]) -> None:
    # convolutions without bias, normalisation, the output of 2x2x16 features
    assert result[0].parameters == 72 + 16 + 16 * 72 + 32 + 650
    # a multiplication and an addition for each weight and place
    assert result[0].flops == 2 * (72 * 64 + 16 * 72 * 16 + 640)


@pytest.mark.parametrize("monitor", ["val/loss", "val/accuracy"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_bundle_is_the_best_epoch_and_scores_as_the_history_says(
    digits: PreparedData, tmp_path: Path, monitor: str, ema: float
) -> None:
    # a rate too high, so that the last epoch is not the best
    training = {"epochs": 4, "batch_size": 256, "learning_rate": 0.2, "schedule": "constant", "ema_decay": ema}
    model = trained(digits, tmp_path, {**training, "monitor": monitor}, {"channels": (8,)})
    values = model.history[monitor]
    assert model.best_epoch == values.index(min(values) if monitor == "val/loss" else max(values))
    assert checkpoint(model, "best")["epoch"] == model.best_epoch
    assert checkpoint(model, "last")["epoch"] == 3
    assert equal(weights_of(model), network_in(checkpoint(model, "best")["state_dict"]))
    val = datasets.open_arrays(digits.path).split("val")
    probabilities = bundle.load(model.bundle).probabilities(val.batch(np.arange(len(val))))
    accuracy = (probabilities.argmax(axis=1) == val.labels).mean()
    assert model.history["val/accuracy"][model.best_epoch] == pytest.approx(accuracy, abs=1e-6)
    loss = -np.log(probabilities[np.arange(len(val)), val.labels]).mean()
    assert model.history["val/loss"][model.best_epoch] == pytest.approx(loss, rel=1e-4)


def test_weights_are_saved_in_plain_memory_order(result: tuple[TrainedModel, list[Event]]) -> None:
    stored = weights_of(result[0])
    assert all(value.is_contiguous() for value in stored.values())
    assert equal(stored, network_in(checkpoint(result[0], "best")["state_dict"]))


def test_the_bundle_tells_what_it_is(result: tuple[TrainedModel, list[Event]], digits: PreparedData) -> None:
    described = json.loads((result[0].bundle / "model.json").read_text())
    assert described["class_names"] == list(digits.class_names)
    assert described["preprocessing"]["mean"] == list(digits.mean)
    expected = dataclasses.asdict(architecture_of(Model(channels=(8, 16)), digits))
    assert described["architecture"] == json.loads(json.dumps(expected))


# the same again


def test_the_same_seed_gives_the_same_bits_whatever_the_workers(digits: PreparedData, tmp_path: Path) -> None:
    training = {"epochs": 2, "batch_size": 256, "deterministic": True}
    model = {"channels": (8,), "dropout": 0.3}

    def run(name: str, workers: int, seed: int) -> TrainedModel:
        more = {"loader_workers": workers}
        mixed = {"mixup": 0.2}
        return trained(digits, tmp_path / name, training | more, model, mixed, seed, "shift_rotate")

    one, again, with_workers, other = run("one", 0, 5), run("again", 0, 5), run("workers", 2, 5), run("other", 0, 6)
    for repeated in (again, with_workers):
        assert equal(weights_of(one), weights_of(repeated))
        assert one.history["train/loss"] == repeated.history["train/loss"]
        assert one.history["val/loss"] == repeated.history["val/loss"]
    assert not equal(weights_of(one), weights_of(other))


# one step, by hand


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_step_is_torchs(four: PreparedData, tmp_path: Path, optimizer: str) -> None:
    decay = 0.3
    training = {**ONE_STEP, "optimizer": optimizer, "momentum": 0.5, "weight_decay": decay}
    ours = weights_of(trained(four, tmp_path, training))
    network = fresh(four)
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in network.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    theirs: torch.optim.Optimizer
    if optimizer == "sgd":
        theirs = torch.optim.SGD(groups, RATE, momentum=0.5, nesterov=True)
    else:
        theirs = (torch.optim.Adam if optimizer == "adam" else torch.optim.AdamW)(groups, RATE)
    images, labels = batch_of(four)
    F.cross_entropy(network(images), labels).backward()
    theirs.step()
    # Adam's first step is the sign of the gradient, also where that is nearly 0
    close(ours, network.state_dict(), 1e-6 if optimizer == "sgd" else 2e-4)


def balanced(data: PreparedData) -> Tensor:
    labels = batch_of(data)[1].numpy()
    return torch.tensor(compute_class_weight("balanced", classes=np.unique(labels), y=labels), dtype=torch.float32)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"label_smoothing": 0.2},
        {"class_weights": "balanced"},
        {"class_weights": "balanced", "label_smoothing": 0.2},
        {"loss": "focal", "focal_gamma": 1.5},
    ],
)
def test_the_loss_is_what_the_settings_say(four: PreparedData, tmp_path: Path, settings: dict[str, Any]) -> None:
    history = trained(four, tmp_path, {**SGD, **settings}).history
    images, labels = batch_of(four)
    with torch.inference_mode():
        logits = fresh(four)(images)
    if settings.get("loss") == "focal":
        p = logits.softmax(dim=1)[torch.arange(len(labels)), labels]
        expected = (-((1 - p) ** 1.5) * p.log()).mean()
    else:
        weight = balanced(four) if "class_weights" in settings else None
        expected = F.cross_entropy(logits, labels, weight, label_smoothing=settings.get("label_smoothing", 0.0))
    # an epoch of one step: its loss is that of the first weights
    assert history["train/loss"] == pytest.approx([float(expected)], rel=1e-5)
    assert history["train/accuracy"] == pytest.approx([float((logits.argmax(dim=1) == labels).float().mean())])


def test_l1_pulls_weights_to_0_and_leaves_biases(four: PreparedData, tmp_path: Path) -> None:
    without = weights_of(trained(four, tmp_path / "without", SGD))
    with_l1 = weights_of(trained(four, tmp_path / "with", {**SGD, "l1": 0.5}))
    start = fresh(four).state_dict()
    expected = {
        name: value - (RATE * 0.5 * start[name].sign() if value.ndim > 1 else 0.0) for name, value in without.items()
    }
    close(with_l1, expected)


def test_clipping_bounds_the_step(four: PreparedData, tmp_path: Path) -> None:
    start = fresh(four).state_dict()

    def moved(clip: float) -> dict[str, Tensor]:
        after = weights_of(trained(four, tmp_path / str(clip), {**SGD, "gradient_clip": clip}))
        return {name: after[name] - start[name] for name in start}

    def norm(change: dict[str, Tensor]) -> float:
        return float(torch.cat([value.flatten() for value in change.values()]).norm())

    free, clipped = moved(0.0), moved(1e-2)
    assert norm(free) > 2 * RATE * 1e-2
    assert norm(clipped) == pytest.approx(RATE * 1e-2, rel=1e-2)
    share = norm(clipped) / norm(free)
    close(clipped, {name: value * share for name, value in free.items()}, 1e-7)


def test_accumulated_batches_make_the_step_of_one_large_batch(four: PreparedData, tmp_path: Path) -> None:
    half, left = divmod(four.counts["train"], 2)
    assert left == 0
    whole = trained(four, tmp_path / "whole", SGD)
    halves = trained(four, tmp_path / "halves", {**SGD, "batch_size": half, "accumulate": 2})
    close(weights_of(whole), weights_of(halves), 1e-7)
    separate = trained(four, tmp_path / "separate", {**SGD, "batch_size": half})
    assert not equal(weights_of(whole), weights_of(separate))


def test_averaged_weights_are_the_average_and_are_what_is_kept(four: PreparedData, tmp_path: Path) -> None:
    training = {**SGD, "learning_rate": 0.5}

    def last(name: str, **more: Any) -> TrainedModel:
        return trained(four, tmp_path / name, {**training, **more})

    first = network_in(checkpoint(last("first"))["state_dict"])
    second = network_in(checkpoint(last("second", epochs=2))["state_dict"])
    averaged = last("averaged", epochs=2, ema_decay=0.75)
    # the average starts with the weights after the first step
    expected = {name: 0.75 * first[name] + 0.25 * second[name] for name in first}
    close(network_in(checkpoint(averaged)["state_dict"]), expected)
    close(network_in(checkpoint(averaged)["current_model_state"]), second)
    assert equal(weights_of(averaged), network_in(checkpoint(averaged, "best")["state_dict"]))


@pytest.mark.parametrize("mixing", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_batches_are_mixed(four: PreparedData, tmp_path: Path, mixing: dict[str, float]) -> None:
    history = trained(four, tmp_path, SGD, augmentation=mixing, seed=3).history
    images, labels = batch_of(four, seed=3)
    shares = {"mixup": 0.0, "cutmix": 0.0} | mixing
    mixed, targets = mix(images, labels, 4, **shares, seed=3, epoch=0, batch=0)  # type: ignore[arg-type]
    with torch.inference_mode():
        expected = F.cross_entropy(fresh(four, seed=3)(mixed), targets)
    assert history["train/loss"] == pytest.approx([float(expected)], rel=1e-5)


def test_bf16_computes_in_16_bits_and_keeps_weights_in_32(four: PreparedData, tmp_path: Path) -> None:
    whole = trained(four, tmp_path / "32", SGD)
    half = trained(four, tmp_path / "16", {**SGD, "precision": "bf16"})
    assert {value.dtype for value in weights_of(half).values()} == {torch.float32}
    assert not equal(weights_of(whole), weights_of(half))
    # bfloat16 has 8 significant bits
    assert half.history["train/loss"] == pytest.approx(whole.history["train/loss"], rel=2**-7)
    close(weights_of(whole), weights_of(half), 1e-3)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "step"])
def test_the_rate_follows_the_schedule(four: PreparedData, tmp_path: Path, schedule: str) -> None:
    settings = {"epochs": 6, "schedule": schedule, "step_epochs": 2, "step_factor": 0.5, "warmup_epochs": 1}
    history = trained(four, tmp_path, {**SGD, "batch_size": 43, **settings}).history
    # the rate after an epoch's two steps
    expected = [RATE * schedules.factor(schedule, 2 * epoch, 12, 2, 4, 0.5) for epoch in range(1, 7)]
    assert history["epoch/learning_rate"] == pytest.approx(expected)


def test_early_stopping_ends_a_training_that_does_not_improve(four: PreparedData, tmp_path: Path) -> None:
    # a rate that moves no weight: the validation loss stays
    model = trained(four, tmp_path, {**SGD, "learning_rate": 1e-30, "epochs": 9, "early_stopping": 2})
    assert len(set(model.history["val/loss"])) == 1
    assert model.epochs == 3
    assert model.best_epoch == 0


def test_a_frozen_backbone_stays_and_the_head_learns(four: PreparedData, tmp_path: Path) -> None:
    described = {"channels": (6, 8)}  # with batch normalisation
    training = {**SGD, "epochs": 2, "batch_size": 43}
    start = fresh(four, described).state_dict()
    after = weights_of(trained(four, tmp_path / "frozen", {**training, "freeze": "backbone"}, described))
    moved = {name for name in after if not torch.equal(after[name], start[name])}
    assert moved == {"head.1.weight", "head.1.bias"}
    thawed = {**training, "freeze": "backbone", "unfreeze_epoch": 1}
    result = network_in(checkpoint(trained(four, tmp_path / "thawed", thawed, described))["state_dict"])
    assert {name for name in result if not torch.equal(result[name], start[name])} == set(start)
    # the second epoch alone counts batches for the backbone
    assert int(result["blocks.0.1.num_batches_tracked"]) == 2


def test_lower_stages_learn_slower(four: PreparedData, tmp_path: Path) -> None:
    start = fresh(four).state_dict()
    alike = weights_of(trained(four, tmp_path / "alike", SGD))
    layered = weights_of(trained(four, tmp_path / "layered", {**SGD, "layer_decay": 0.5}))
    depth = {"head.1": 0, "head.0": 1, "blocks.1": 2, "blocks.0": 3}
    for name, value in start.items():
        factor = 0.5 ** next(below for prefix, below in depth.items() if name.startswith(prefix))
        torch.testing.assert_close(layered[name] - value, factor * (alike[name] - value), rtol=1e-3, atol=1e-7)


# heads


def test_two_classes_get_one_logit_and_binary_cross_entropy(two: PreparedData, tmp_path: Path) -> None:
    model = trained(two, tmp_path, SGD)
    assert weights_of(model)["head.1.bias"].shape == (1,)
    images, labels = batch_of(two)
    with torch.inference_mode():
        expected = F.binary_cross_entropy_with_logits(fresh(two)(images)[:, 0], labels.float())
    assert model.history["train/loss"] == pytest.approx([float(expected)], rel=1e-5)
    probabilities = bundle.load(model.bundle).probabilities(np.zeros((3, 8, 8, 1), np.uint8))
    assert probabilities.shape == (3, 2)


def test_two_classes_learn_with_two_logits_too(two: PreparedData, tmp_path: Path) -> None:
    model = trained(two, tmp_path, SGD, {**PLAIN, "head": "softmax"})
    assert weights_of(model)["head.1.bias"].shape == (2,)


def test_a_sigmoid_head_is_refused_for_more_than_two_classes(digits: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model.head=sigmoid is for two classes; these images have 10"):
        trained(digits, tmp_path, SGD, {"head": "sigmoid"})
    assert not (tmp_path / "checkpoints").exists()


# start weights


@pytest.fixture(scope="module")
def earlier(base: Path, four: PreparedData) -> TrainedModel:
    return trained(four, base / "earlier", {**SGD, "epochs": 3}, seed=9)


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_training_starts_with_the_weights_of_a_file(
    four: PreparedData, earlier: TrainedModel, tmp_path: Path, kind: str
) -> None:
    path = earlier.bundle / "weights.safetensors"
    if kind == "pt":
        path = tmp_path / "weights.pt"
        torch.save({"state_dict": weights_of(earlier)}, path)
    start = fresh(four)
    start.load_state_dict(weights_of(earlier))
    images, labels = batch_of(four)
    with torch.inference_mode():
        expected = F.cross_entropy(start(images), labels)
    history = trained(four, tmp_path, SGD, {**PLAIN, "weights": str(path)}).history
    assert history["train/loss"] == pytest.approx([float(expected)], rel=1e-5)


def test_a_head_for_other_classes_is_left_as_initialised(
    two: PreparedData, earlier: TrainedModel, tmp_path: Path
) -> None:
    path = str(earlier.bundle / "weights.safetensors")
    result = weights_of(trained(two, tmp_path, {**SGD, "learning_rate": 1e-30}, {**PLAIN, "weights": path}))
    stored, start = weights_of(earlier), fresh(two).state_dict()
    for name, value in result.items():
        assert torch.equal(value, start[name] if name.startswith("head.1") else stored[name]), name


def test_weights_for_colour_images_are_added_up_for_gray_ones(four: PreparedData, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Model(**PLAIN)
    colour = build_network(dataclasses.replace(architecture_of(model, four), image_channels=3))
    save_file(colour.state_dict(), tmp_path / "colour.safetensors")
    training = {**SGD, "learning_rate": 1e-30}
    result = trained(four, tmp_path, training, {**PLAIN, "weights": str(tmp_path / "colour.safetensors")})
    gray = fresh(four)
    gray.load_state_dict(weights_of(result))
    images = torch.randn(3, 1, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(gray(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_weights_of_another_architecture_are_refused(four: PreparedData, earlier: TrainedModel, tmp_path: Path) -> None:
    path = str(earlier.bundle / "weights.safetensors")
    with pytest.raises(ModelError, match=r"fits another architecture: \d of 6 tensors .*, such as blocks.1.0.weight"):
        trained(four, tmp_path, SGD, {**PLAIN, "channels": (6, 9), "weights": path})


class _Harmful:
    """What a pickle can do: call anything when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("kind", ["torch", "plain"])
def test_a_pickle_is_refused_and_nothing_in_it_executed(four: PreparedData, tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "weights.pt", tmp_path / "written"
    content = {"a": _Harmful(target)}
    if kind == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ModelError, match="is no file of tensors alone"):
        trained(four, tmp_path, SGD, {**PLAIN, "weights": str(path)})
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pt", b"", "is no file of tensors alone"),
        ("text.pt", b"these are no weights", "is no file of tensors alone"),
        ("cut.pt", b"PK\x03\x04\x14\x00", "is no file of tensors alone"),
        ("text.safetensors", b"these are no weights", "is no whole safetensors file"),
        ("empty.safetensors", b"", "is no whole safetensors file"),
    ],
)
def test_a_file_without_weights_is_refused(
    four: PreparedData, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(ModelError, match=message):
        trained(four, tmp_path, SGD, {**PLAIN, "weights": str(path)})


def test_a_tensor_without_a_name_and_a_missing_file_are_refused(four: PreparedData, tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "one.pt")
    with pytest.raises(ModelError, match="holds no tensors by name"):
        trained(four, tmp_path, SGD, {**PLAIN, "weights": str(tmp_path / "one.pt")})
    with pytest.raises(ModelError, match="there is no file"):
        trained(four, tmp_path, SGD, {**PLAIN, "weights": str(tmp_path / "none.pt")})


def test_there_are_no_pretrained_weights_for_cnn(four: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no pretrained weights for cnn"):
        trained(four, tmp_path, SGD, {**PLAIN, "pretrained": True})


# what cannot be trained


def test_a_loss_that_is_no_number_stops_the_training(four: PreparedData, tmp_path: Path) -> None:
    # each step multiplies the weights by -999
    training = {**SGD, "learning_rate": 100.0, "weight_decay": 10.0, "batch_size": 4, "epochs": 9}
    with pytest.raises(RecognitionError, match=r"the loss is (nan|inf) after epoch 1\. Lower training.learning_rate"):
        trained(four, tmp_path, training)
    assert not (tmp_path / "bundle").exists()


def test_a_network_too_deep_for_the_images_is_refused(four: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model.network: block 4 of 4 has nothing left of an image of 8x8"):
        trained(four, tmp_path, SGD, {"channels": (4, 4, 4, 4)})


def test_a_network_for_another_size_is_refused(four: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"does not take images of 8x8 pixels .*data.image_size"):
        trained(four, tmp_path, SGD, {"network": "torchvision/alexnet"})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"model": {"weights": "none.safetensors"}}, "model.weights: there is no file none.safetensors"),
        (
            {"augmentation": {"transforms": [{"HorizontlFlip": {}}]}},
            r"transforms\[0\]: .*did you mean HorizontalFlip\?",
        ),
        ({"training": {"accelerator": "gpu"}}, "training.accelerator=gpu, but this machine shows no GPU"),
        ({"training": {"accelerator": "mps"}}, "training.accelerator=mps, but this machine has no Apple GPU"),
        ({"training": {"precision": "16"}}, "training.precision=16 needs a GPU"),
        ({"training": {"devices": 2, "batch_size": 1}}, "training.batch_size=1 gives 2 devices"),
    ],
)
def test_what_only_the_libraries_know_is_refused_before_any_image_is_read(
    section: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match=message):
        check(Experiment.model_validate(section))


def test_more_devices_than_there_are_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigurationError, match=r"training\.devices=2, but this machine has 1 GPUs"):
        check(Experiment(training=Training(devices=2)))


# several processes

SCRIPT = """
import sys
from pathlib import Path

from lightning_modules.training import fit
from recognition.experiment import Experiment
from recognition.records import Policy, PreparedData

data, policy, experiment, folder = sys.argv[1:]
fit(
    PreparedData.model_validate_json(data),
    Policy.model_validate_json(policy),
    Experiment.model_validate_json(experiment),
    Path(folder),
)
"""


@pytest.mark.parametrize("freeze", [{}, {"freeze": "backbone", "unfreeze_epoch": 1}])
def test_two_processes_train_to_the_weights_of_one(four: PreparedData, tmp_path: Path, freeze: dict[str, Any]) -> None:
    # 86 images in batches of 20: the last 6 are 3 for each process
    training = {**SGD, "epochs": 2, "batch_size": 20, "schedule": "cosine", "gradient_clip": 1.0, **freeze}
    policy = policy_of(four, tmp_path, "shift_rotate")
    alone = fit(four, policy, experiment_of(training), tmp_path / "alone")
    records = (four, policy, experiment_of({**training, "devices": 2}))
    script = write(tmp_path / "train.py", SCRIPT.encode())
    words = [record.model_dump_json() for record in records]
    done = subprocess.run(
        [sys.executable, str(script), *words, str(tmp_path / "shared")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "UserWarning" not in done.stderr
    shared = load_file(tmp_path / "shared" / "bundle" / "weights.safetensors")
    close(weights_of(alone), shared, 1e-5)
    history = json.loads((tmp_path / "shared" / "history.json").read_text())
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/f1_macro"):
        assert history[name] == pytest.approx(alone.history[name], rel=1e-4), name
