"""Few images of a class: which are drawn, what stays as it was, and how several draws are summed up."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from safetensors.torch import load_file
from sample_images import folder_of, write

import tasks.evaluate
import tasks.train
from lightning_modules.training import fit
from recognition import bundle, datasets, tracking, versions
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, DataError, ModelError
from recognition.events import Emit
from recognition.experiment import Evaluation, Experiment, Model, Training
from recognition.families import headline
from recognition.few_shot import NOT_DRAWN, check_kind, drawn, over_draws
from recognition.preparation import arrange, draws, examine, few, locate, prepare
from recognition.records import Policy, PreparedData, Scores, TrainedModel
from recognition.settings import run_folder
from recognition.versions import read_samples
from tasks.isolation import resolve

NAMES = ("cat", "dog", "owl")


def digests(*numbers: int) -> NDArray[np.uint8]:
    """A made-up digest for each number."""
    return np.stack([np.random.default_rng(number).integers(0, 256, 32, np.uint8) for number in numbers])


@pytest.fixture
def pets(tmp_path: Path, state: Path) -> Path:
    return folder_of(tmp_path / "pets", *NAMES, count=20)


def train_ids(data: PreparedData) -> set[str]:
    return set(datasets.open_arrays(data.path).split("train").sample_ids())


# which images


def test_so_many_of_each_class_are_drawn_and_another_draw_takes_others() -> None:
    content, labels = digests(*range(300)), np.repeat([0, 1, 2], 100)
    first, second = (drawn(content, labels, NAMES, 5, seed=0, draw=number) for number in (0, 1))
    assert np.bincount(labels[first]).tolist() == [5, 5, 5]
    assert first.tolist() == sorted(set(first.tolist()))
    assert drawn(content, labels, NAMES, 5, seed=0, draw=0).tolist() == first.tolist()
    # two random fives of a hundred share less than one image on average
    assert len(set(first) & set(second)) <= 3
    assert drawn(content, labels, NAMES, 5, seed=1, draw=0).tolist() != first.tolist()


def test_a_draw_does_not_depend_on_order_or_on_other_images() -> None:
    content, labels = digests(*range(60)), np.repeat([0, 1, 2], 20)
    chosen = {content[index].tobytes() for index in drawn(content, labels, NAMES, 4)}
    order = np.random.default_rng(0).permutation(60)
    shuffled = drawn(content[order], labels[order], NAMES, 4)
    assert {content[order][index].tobytes() for index in shuffled} == chosen
    alone = drawn(content[:20], labels[:20], NAMES[:1], 4)
    assert {content[index].tobytes() for index in alone} == {
        c for c in chosen if c in {row.tobytes() for row in content[:20]}
    }


def test_more_images_of_a_class_contain_the_fewer() -> None:
    content, labels = digests(*range(60)), np.repeat([0, 1, 2], 20)
    assert set(drawn(content, labels, NAMES, 3)) < set(drawn(content, labels, NAMES, 7))


def test_a_new_image_moves_one_image_of_a_draw_at_most() -> None:
    content, labels = digests(*range(20)), np.zeros(20, np.int64)
    before = set(drawn(content, labels, ("cat",), 5).tolist())
    for number in range(100, 120):
        grown = drawn(np.concatenate([content, digests(number)]), np.zeros(21, np.int64), ("cat",), 5)
        assert len(before - set(grown.tolist())) <= 1


def test_every_image_is_drawn_about_equally_often() -> None:
    content, labels = digests(*range(10)), np.zeros(10, np.int64)
    counts = np.zeros(10)
    for number in range(1000):
        counts[drawn(content, labels, ("cat",), 3, draw=number)] += 1
    # 300 each; 14.5 is the standard deviation of a binomial count
    assert np.abs(counts - 300).max() < 5 * 14.5


def test_copies_of_an_image_count_once() -> None:
    content = digests(0, 0, 0, 1, 2)
    chosen = drawn(content, np.zeros(5, np.int64), ("cat",), 3)
    assert len({content[index].tobytes() for index in chosen}) == 3
    with pytest.raises(DataError, match="'cat' has 3"):
        drawn(content, np.zeros(5, np.int64), ("cat",), 4)


def test_too_few_images_are_refused_with_the_class_and_the_fix() -> None:
    labels = np.array([0] * 6 + [1] * 2 + [2] * 4)
    with pytest.raises(DataError) as refused:
        drawn(digests(*range(12)), labels, NAMES, 5)
    assert str(refused.value) == (
        "data.per_class=5 asks for more different training images than there are: 'dog' has 2, 'owl' has 4. Set"
        " data.per_class=2, or add images of these classes."
    )


# the prepared data set


def test_only_the_training_images_become_fewer(pets: Path) -> None:
    whole, few = (prepare(Data(source=str(pets), per_class=count)) for count in (0, 3))
    assert few.counts == {**whole.counts, "train": 9}
    assert few.class_counts == {**whole.class_counts, "train": dict.fromkeys(NAMES, 3)}
    assert few.test_digest == whole.test_digest
    assert few.digest != whole.digest
    one, other = datasets.open_arrays(whole.path), datasets.open_arrays(few.path)
    for name in ("val", "test"):
        assert other.split(name).sample_ids() == one.split(name).sample_ids()
    assert set(other.split("train").sample_ids()) < set(one.split("train").sample_ids())
    assert few.images == whole.images


def test_mean_and_deviation_are_those_of_the_drawn_images(pets: Path) -> None:
    data = prepare(Data(source=str(pets), per_class=3))
    train = datasets.open_arrays(data.path).split("train")
    images = train.batch(np.arange(9)) / 255
    np.testing.assert_allclose(data.mean, images.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(data.std, images.std(axis=(0, 1, 2)))


def test_the_table_of_images_says_what_was_not_drawn_and_gives_the_digest(pets: Path) -> None:
    data = prepare(Data(source=str(pets), per_class=3))
    table = read_samples(data.path / versions.SAMPLES)
    assert table.left_out.count(NOT_DRAWN) == 60 - sum(data.counts.values())
    assert {split for split, why in zip(table.split, table.left_out, strict=True) if why == NOT_DRAWN} == {""}
    assert table.digest() == data.digest
    assert table.digest("test") == data.test_digest


def test_draws_are_the_same_from_whichever_data_set_they_are_made(pets: Path) -> None:
    settings = Data(source=str(pets), per_class=3, draws=3)
    first = prepare(settings)
    second, third = draws(settings, first)
    assert len({data.digest for data in (first, second, third)}) == 3
    assert second == prepare(Data(source=str(pets), per_class=3, draw=1))
    assert [data.digest for data in draws(settings, third)] == [second.digest, third.digest]
    assert few(Data(source=str(pets), per_class=3), third).digest == first.digest
    assert draws(Data(source=str(pets), per_class=3), first) == []


def test_the_same_images_in_another_folder_under_other_names_are_drawn(pets: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(pets.rglob("*.png"))):
        write(tmp_path / "moved" / path.parent.name / f"{1000 - number}.png", path.read_bytes())
    one, other = (prepare(Data(source=str(root), per_class=3)) for root in (pets, tmp_path / "moved"))
    assert one.digest == other.digest
    assert train_ids(one) != train_ids(other)


def test_a_draw_audits_and_decodes_nothing_again(pets: Path, state: Path) -> None:
    settings = Data(source=str(pets))
    audited = examine(settings, locate(settings))
    arrange(settings, audited)
    arrange(Data(source=str(pets), per_class=3, draw=7), audited)
    assert len(list((state / "audits").glob("*/report.html"))) == 1
    assert sorted(path.name.partition("-")[2] for path in (state / "datasets").glob("*/")) == ["", "3-7"]


def test_a_class_with_too_few_training_images_is_refused_and_leaves_nothing(pets: Path, state: Path) -> None:
    with pytest.raises(DataError, match=r"data\.per_class=19 .* Set data\.per_class=\d+, or add images"):
        prepare(Data(source=str(pets), per_class=19))
    assert [path.name for path in (state / "datasets").glob("*-19-*/")] == []


def test_images_without_a_class_each_are_refused(pets: Path) -> None:
    boxes = prepare(Data(source=str(pets))).model_copy(update={"kind": "boxes"})
    with pytest.raises(ConfigurationError, match=r"data\.per_class counts .* but the data hold boxes around objects"):
        check_kind(boxes)


def test_draws_without_per_class_are_refused() -> None:
    with pytest.raises(ValueError, match=r"set data\.per_class too"):
        Data(draws=3)


# scores of several draws


def test_scores_of_draws_are_summed_up_beside_the_first(tmp_path: Path) -> None:
    values = [0.5, 0.7, 0.9]
    scores = [
        Scores(
            path=tmp_path,
            test_digest="",
            metrics={"test/accuracy": value, "test/probe_accuracy": 1 - value, "test/recall/cat": value},
        )
        for value in values
    ]
    metrics = over_draws(4, scores).metrics
    assert metrics["test/accuracy"] == 0.5
    assert metrics["draws/accuracy_mean"] == pytest.approx(0.7)
    assert metrics["draws/accuracy_sd"] == pytest.approx(statistics.stdev(values)) == pytest.approx(0.2)
    assert metrics["draws/probe_accuracy_mean"] == pytest.approx(0.3)
    assert set(metrics) - set(scores[0].metrics) == {
        f"draws/{score}_{kind}" for score in ("accuracy", "probe_accuracy") for kind in ("mean", "sd")
    }
    rows = (tmp_path / "draws.csv").read_text().splitlines()
    assert rows[0] == "draw,accuracy,probe_accuracy"
    assert [row.split(",")[:2] for row in rows[1:]] == [["4", "0.5"], ["5", "0.7"], ["6", "0.9"]]
    assert headline(metrics, "classification") == [
        ("accuracy", "0.5000"),
        ("probe_accuracy", "0.5000"),
        ("accuracy, all draws", "0.7000 ± 0.2000"),
        ("probe_accuracy, all draws", "0.3000 ± 0.2000"),
    ]


# from the weights of another model


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a small network that tells two other classes apart, on larger images."""
    folder = tmp_path_factory.mktemp("earlier")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(folder / "state"))
        data = prepare(Data(source=str(folder_of(folder / "cars", "bus", "van", count=12, height=16, width=16))))
        return trained(data, folder, {}).bundle


def trained(data: PreparedData, folder: Path, model: dict[str, Any], **training: Any) -> TrainedModel:
    settings = {"network": "cnn", "channels": (6, 8), "neck": "average", "head": "softmax", **model}
    experiment = Experiment(
        data=Data(source=data.source),
        model=Model(**settings),
        training=Training(**{"epochs": 1, "accelerator": "cpu", **training}),
    )
    policy = Policy(path=folder / "policy.json", preview=folder, name="none", transforms=())
    return fit(data, policy, experiment, folder / "run")


def test_another_models_features_are_learned_on(earlier: Path, pets: Path, tmp_path: Path) -> None:
    data = prepare(Data(source=str(pets), per_class=3))
    result = trained(data, tmp_path, {"weights": str(earlier)}, freeze="backbone")
    before, after = (load_file(folder / "weights.safetensors") for folder in (earlier, result.bundle))
    assert before.keys() == after.keys()
    changed = {
        name for name in before if before[name].shape != after[name].shape or not before[name].equal(after[name])
    }
    assert changed == {"head.1.weight", "head.1.bias"}


@pytest.mark.parametrize(
    ("model", "fix"),
    [
        ({"channels": (6, 9)}, r"Set model\.channels=\[6,8\]\."),
        ({"network": "vit", "channels": (), "neck": "auto"}, r"Set model\.network=cnn model\.channels=\[6,8\] .*\."),
        ({"network": "cnn", "neck": "flatten", "dense": (4,)}, r"Set model\.neck=average model\.dense=\[\]\."),
    ],
)
def test_weights_of_another_architecture_are_refused_with_the_fix(
    earlier: Path, pets: Path, tmp_path: Path, model: dict[str, Any], fix: str
) -> None:
    data = prepare(Data(source=str(pets), per_class=3))
    with pytest.raises(ModelError, match=rf"model\.weights: .* fits another architecture: .* {fix}$"):
        trained(data, tmp_path, {**model, "weights": str(earlier)})
    assert not (tmp_path / "run" / "checkpoints").exists()


# the stages of a run


def inline(
    target: str, *arguments: Any, on_event: Emit, processes: int = 1, environment: dict[str, str] | None = None
) -> Any:
    """A stage in this process."""
    return resolve(target)(*arguments, emit=on_event)


def test_a_run_trains_a_network_a_draw_and_registers_the_first(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tasks.train, tasks.evaluate):
        monkeypatch.setattr(module, "run_isolated", inline)
    experiment = Experiment(
        data=Data(source=str(pets), per_class=3, draw=4, draws=3),
        model=Model(network="cnn", channels=(6, 8), neck="average"),
        training=Training(epochs=2, accelerator="cpu"),
        evaluation=Evaluation(probe=True, explanations=0),
    )
    first = prepare(experiment.data)
    policy = Policy(path=tmp_path / "policy.json", preview=tmp_path, name="none", transforms=())
    with tracking.tracked_run(experiment, {}) as run_id:
        model = tasks.train.fit.fn(run_id, first, policy, experiment)
        scores = tasks.evaluate.evaluate.fn(run_id, first, model.bundle, experiment, model)
    assert len(model.others) == 2
    assert len({one.bundle for one in (model, *model.others)}) == 3
    assert model.bundle == run_folder(run_id) / "bundle"
    table = pd.read_csv(scores.path / "draws.csv")
    assert table["draw"].tolist() == [4, 5, 6]
    for name in ("accuracy", "f1_macro", "probe_accuracy", "prototype_accuracy"):
        assert scores.metrics[f"test/{name}"] == pytest.approx(table[name][0])
        assert scores.metrics[f"draws/{name}_mean"] == pytest.approx(table[name].mean())
        assert scores.metrics[f"draws/{name}_sd"] == pytest.approx(table[name].std())
    test = datasets.open_arrays(first.path).split("test")
    for row, one in enumerate((model, *model.others)):
        probabilities = bundle.load_classifier(one.bundle).probabilities(test.batch(np.arange(len(test))))
        assert (probabilities.argmax(axis=1) == test.labels).mean() == pytest.approx(table["accuracy"][row])
    run = tracking.find_run(run_id)
    assert run.data.metrics["draws/accuracy_mean"] == pytest.approx(table["accuracy"].mean())
    # the curves are the first network's: one value an epoch
    curve = tracking.client().get_metric_history(run_id, "val/loss")
    assert [point.value for point in curve] == pytest.approx(model.history["val/loss"])
