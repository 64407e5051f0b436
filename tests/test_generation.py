"""A GAN is trained as its settings say, is measured by a classifier, and what it makes depends on its seed alone."""

from __future__ import annotations

import dataclasses
import json
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from safetensors.torch import load_file
from sample_images import encoded, write
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from lightning_modules.data_module import ImageData
from lightning_modules.evaluation import evaluate
from lightning_modules.generation import ImageGenerator, build, spread_labels
from lightning_modules.judges import Judge
from lightning_modules.networks import build_network
from lightning_modules.preflight import check
from lightning_modules.setup import Setup
from lightning_modules.training import architecture_of, fit
from recognition import bundle, datasets
from recognition.defaults import resolve_model
from recognition.distribution_scores import frechet_distance, gaussian_of
from recognition.errors import ConfigurationError
from recognition.events import EpochEnd, Event, Message, Picture, ignore
from recognition.experiment import Augmentation, Data, Evaluation, Experiment, Model, Training
from recognition.preparation import prepare
from recognition.records import Policy, PreparedData, Scores, TrainedModel
from recognition.scoring.generator import noise

SMALL = {"network": "dcgan", "width": 8, "code": 6}
QUICK = {"epochs": 2, "batch_size": 32, "learning_rate": 2e-3, "optimizer": "adam", "weight_decay": 0.0}


def bright_halves(root: Path, classes: int = 2) -> PreparedData:
    """Gray images of 8x8 pixels, 30 a class, of which either the upper or the lower half is bright."""
    random = np.random.default_rng(0)
    for label in range(classes):
        for index in range(30):
            image = random.integers(0, 20, (8, 8, 1))
            image[4 * (label % 2) : 4 * (label % 2) + 4] += 200 - 60 * (label // 2)
            write(root / f"class-{label}" / f"{index}.png", encoded(image.astype(np.uint8)))
    return prepare(Data(source=str(root)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("generation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(folder / "state"))
        yield folder


@pytest.fixture(scope="module")
def halves(base: Path) -> PreparedData:
    return bright_halves(base / "halves")


def plain(folder: Path) -> Policy:
    return Policy(path=folder, preview=folder, name="none", transforms=())


@pytest.fixture(scope="module")
def judge(base: Path, halves: PreparedData) -> Path:
    """A classifier that tells the two halves apart."""
    experiment = Experiment(
        model=Model(channels=(4,), dense=(6,)),
        training=Training(epochs=20, learning_rate=0.02, accelerator="cpu"),
    )
    return fit(halves, plain(base), experiment, base / "judge").bundle


def experiment_of(judge: Path | str, training: dict[str, Any], **sections: dict[str, Any]) -> Experiment:
    return Experiment(
        seed=sections.get("more", {}).get("seed", 0),
        augmentation=Augmentation(**sections.get("augmentation", {})),
        model=Model(**{**SMALL, **sections.get("model", {})}),
        training=Training(**{"accelerator": "cpu", "loader_workers": 0, **QUICK, **training}),
        evaluation=Evaluation(**{"judge": str(judge), "samples": 40, "examples": 3, **sections.get("evaluation", {})}),
    )


def module_of(data: PreparedData, experiment: Experiment) -> ImageGenerator:
    torch.manual_seed(experiment.seed)
    model = resolve_model(experiment.model, data)
    architecture = architecture_of(experiment.model, data)
    half = (0.5,) * data.channels
    return build(Setup(build_network(architecture), architecture, model, data, experiment, half, half))


def weights_of(model: TrainedModel, prefix: str = "network.", name: str = "last") -> dict[str, Tensor]:
    state = torch.load(model.path / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


@pytest.fixture(scope="module")
def trained(base: Path, halves: PreparedData, judge: Path) -> tuple[TrainedModel, list[Event]]:
    """A GAN that learned one batch, all training images, for a while."""
    events: list[Event] = []
    training = {"epochs": 60, "batch_size": 1000, "learning_rate": 1e-2, "ema_decay": 0.5, "schedule": "constant"}
    return fit(halves, plain(base), experiment_of(judge, training), base / "gan", emit=events.append), events


@pytest.fixture(scope="module")
def scored(
    base: Path, halves: PreparedData, judge: Path, trained: tuple[TrainedModel, list[Event]]
) -> tuple[Scores, list[Event]]:
    events: list[Event] = []
    model = trained[0]
    evaluation = experiment_of(judge, {}).evaluation
    scores = evaluate(
        halves, model.bundle, evaluation, base / "scores", model.history, model.best_epoch, "cpu", emit=events.append
    )
    return scores, events


# learning


def test_one_batch_is_learned_until_every_sample_is_of_its_class(
    trained: tuple[TrainedModel, list[Event]], judge: Path
) -> None:
    labels = np.arange(60) % 2
    images = bundle.load(trained[0].bundle).generate(labels, 0)  # type: ignore[attr-defined]
    bright = images[labels == 0, :4].mean(), images[labels == 1, 4:].mean()
    dark = images[labels == 0, 4:].mean(), images[labels == 1, :4].mean()
    assert min(bright) > 170
    assert max(dark) < 50
    assert (Judge.load(str(judge)).look(images)[1] == labels).all()
    distances = trained[0].history["val/frechet_distance"]
    assert min(distances) < distances[0] / 20


@pytest.mark.parametrize("loss", ["hinge", "non_saturating", "wgan_gp"])
def test_the_discriminator_learns_to_tell_one_batch_from_samples(halves: PreparedData, judge: Path, loss: str) -> None:
    module = module_of(halves, experiment_of(judge, {"adversarial_loss": loss}))
    train = datasets.open_arrays(halves.path).split("train")
    images = module.normalise(torch.from_numpy(train.batch(np.arange(32))).permute(0, 3, 1, 2))
    labels = torch.from_numpy(train.labels[:32].copy())
    optimizer = torch.optim.Adam(module.discriminator.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        value = module.discriminator_loss(images, labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    # a gap between the two as wide as the critic's slope allows is below 0 for Wasserstein's loss
    assert losses[-1] < {"hinge": 0.05, "non_saturating": 0.8, "wgan_gp": -2.0}[loss]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("loss", ["wgan_gp", "hinge", "non_saturating"])
def test_spectral_normalisation_is_where_no_penalty_is(halves: PreparedData, judge: Path, loss: str) -> None:
    module = module_of(halves, experiment_of(judge, {"adversarial_loss": loss}))
    normalised = any("parametrizations" in name for name in module.discriminator.state_dict())
    assert normalised == (loss != "wgan_gp")


def test_the_history_holds_both_losses_and_the_distance_of_every_epoch(
    trained: tuple[TrainedModel, list[Event]],
) -> None:
    model, events = trained
    assert set(model.history) == {
        "train/loss",
        "train/discriminator_loss",
        "val/loss",
        "val/discriminator_loss",
        "val/frechet_distance",
        "epoch/learning_rate",
        "epoch/seconds",
    }
    assert {len(values) for values in model.history.values()} == {60}
    assert np.isfinite(list(model.history.values())).all()
    assert model.monitor == "val/frechet_distance"
    assert model.best_epoch == int(np.argmin(model.history["val/frechet_distance"]))
    assert [event.epoch for event in events if isinstance(event, EpochEnd)] == list(range(60))
    assert json.loads((model.path / "history.json").read_text()) == model.history


def test_each_epoch_shows_a_grid_of_the_same_noise(trained: tuple[TrainedModel, list[Event]]) -> None:
    pictures = [event for event in trained[1] if isinstance(event, Picture)]
    assert [(picture.name, picture.step) for picture in pictures] == [("samples", step) for step in range(1, 61)]
    sizes = {Image.open(picture.path).size for picture in pictures}
    # 2 classes below each other, 10 samples of each, 7 times enlarged, with gaps of 2
    assert sizes == {(10 * 58 + 2, 2 * 58 + 2)}


def test_the_samples_that_are_looked_at_are_fixed(halves: PreparedData, judge: Path) -> None:
    module = module_of(halves, experiment_of(judge, {}))
    first = module.pictures()["samples"]
    torch.manual_seed(99)
    torch.randn(17)
    np.testing.assert_array_equal(module.pictures()["samples"], first)
    assert module.network.training
    other = module_of(halves, experiment_of(judge, {}, more={"seed": 1}))
    assert not np.array_equal(other.pictures()["samples"], first)


def test_the_same_seed_trains_the_same_generator(halves: PreparedData, judge: Path, tmp_path: Path) -> None:
    results = [
        fit(halves, plain(tmp_path), experiment_of(judge, {}, more={"seed": seed}), tmp_path / name)
        for name, seed in (("one", 3), ("again", 3), ("other", 4))
    ]
    one, again, other = (weights_of(result) for result in results)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_kept_generator_is_the_moving_average_of_the_learning_one(
    halves: PreparedData, judge: Path, tmp_path: Path
) -> None:
    def learned(epochs: int, decay: float) -> TrainedModel:
        training = {"epochs": epochs, "batch_size": 1000, "schedule": "constant", "ema_decay": decay}
        return fit(halves, plain(tmp_path), experiment_of(judge, training), tmp_path / f"{epochs}-{decay}")

    first, second, third = (weights_of(learned(epochs, 0.0)) for epochs in (1, 2, 3))
    averaged = learned(3, 0.75)
    expected = {
        name: 0.75 * (0.75 * first[name] + 0.25 * second[name]) + 0.25 * third[name]
        for name in first
        if first[name].is_floating_point()
    }
    kept, learning = weights_of(averaged), weights_of(averaged, "learner.")
    assert first.keys() == kept.keys() == learning.keys()
    for name, value in expected.items():
        torch.testing.assert_close(kept[name], value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(learning[name], third[name], rtol=1e-5, atol=1e-6)
    assert int(kept["stages.0.0.num_batches_tracked"]) == int(third["stages.0.0.num_batches_tracked"])


def test_the_generator_steps_once_for_so_many_steps_of_the_discriminator(
    halves: PreparedData, judge: Path, tmp_path: Path
) -> None:
    # 46 images in batches of 8: 6 steps of the discriminator, 2 of the generator
    assert halves.counts["train"] == 46
    model = fit(
        halves, plain(tmp_path), experiment_of(judge, {"epochs": 1, "batch_size": 8, "critic_steps": 3}), tmp_path
    )
    content = torch.load(model.path / "checkpoints" / "last.ckpt", weights_only=True)
    assert int(content["state_dict"]["steps"]) == 2
    steps = [{int(state["step"]) for state in optimizer["state"].values()} for optimizer in content["optimizer_states"]]
    assert steps == [{2}, {6}]
    assert content["global_step"] == 8
    assert [scheduler["last_epoch"] for scheduler in content["lr_schedulers"]] == [2, 6]


@pytest.mark.parametrize(("loss", "betas"), [("wgan_gp", [0.0, 0.9]), ("hinge", [0.5, 0.999])])
def test_adams_momentum_is_that_of_the_losss_paper(
    halves: PreparedData, judge: Path, tmp_path: Path, loss: str, betas: list[float]
) -> None:
    model = fit(halves, plain(tmp_path), experiment_of(judge, {"epochs": 1, "adversarial_loss": loss}), tmp_path)
    content = torch.load(model.path / "checkpoints" / "last.ckpt", weights_only=True)
    for optimizer in content["optimizer_states"]:
        assert [list(group["betas"]) for group in optimizer["param_groups"]] == [betas] * len(optimizer["param_groups"])


@pytest.mark.parametrize("loss", ["hinge", "wgan_gp"])
def test_bf16_trains_and_keeps_weights_in_32_bits(halves: PreparedData, judge: Path, tmp_path: Path, loss: str) -> None:
    training = {"epochs": 1, "precision": "bf16", "adversarial_loss": loss, "ema_decay": 0.9}
    model = fit(halves, plain(tmp_path), experiment_of(judge, training), tmp_path)
    assert all(np.isfinite(values).all() for values in model.history.values())
    kinds = {value.dtype for value in weights_of(model).values() if value.is_floating_point()}
    assert kinds == {torch.float32}


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # no callbacks are needed here
def test_a_training_goes_on_where_its_checkpoint_ended(halves: PreparedData, judge: Path, tmp_path: Path) -> None:
    training = {"epochs": 2, "batch_size": 8, "critic_steps": 2, "ema_decay": 0.9}
    model = fit(halves, plain(tmp_path), experiment_of(judge, training), tmp_path)
    before = torch.load(model.path / "checkpoints" / "last.ckpt", weights_only=True)
    module = module_of(halves, experiment_of(judge, training | {"epochs": 3}))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    data = ImageData(halves.path, None, 8, 0, loader_workers=0, task="generation")
    trainer.fit(module, datamodule=data, ckpt_path=model.path / "checkpoints" / "last.ckpt")
    # 6 batches an epoch: 6 steps of the discriminator and 3 of the generator
    assert int(before["state_dict"]["steps"]) == 6
    assert int(module.steps) == 9
    assert trainer.global_step == 3 * 9
    adam = trainer.optimizers[0]
    assert {int(state["step"]) for state in adam.state.values()} == {9}
    assert [config.scheduler.last_epoch for config in trainer.lr_scheduler_configs] == [9, 18]
    assert module.trainer.callback_metrics["val/frechet_distance"] >= 0


# the distance


def test_the_distance_is_torchmetrics_of_the_judges_features(
    halves: PreparedData, judge: Path, scored: tuple[Scores, list[Event]], trained: tuple[TrainedModel, list[Event]]
) -> None:
    network = bundle.load_classifier(judge)
    looked = Judge(network)

    class Features(torch.nn.Module):
        num_features = 6

        def forward(self, images: Tensor) -> Tensor:
            return torch.from_numpy(looked.look(images.permute(0, 2, 3, 1).contiguous().numpy())[0])

    measure = FrechetInceptionDistance(feature=Features())
    test = datasets.open_arrays(halves.path).split("test")
    images = bundle.load(trained[0].bundle).generate(spread_labels(halves.class_counts["test"].values(), 40), 0)  # type: ignore[attr-defined]
    measure.update(torch.from_numpy(test.batch(np.arange(len(test)))).permute(0, 3, 1, 2), real=True)
    measure.update(torch.from_numpy(images).permute(0, 3, 1, 2), real=False)
    assert scored[0].metrics["test/frechet_distance"] == pytest.approx(float(measure.compute()), rel=1e-3, abs=1e-3)


def test_the_judges_features_are_what_its_head_reads(halves: PreparedData, judge: Path) -> None:
    classifier = bundle.load_classifier(judge)
    images = datasets.open_arrays(halves.path).split("val").batch(np.arange(5))
    features, said = Judge(classifier).look(images)
    head = load_file(judge / "weights.safetensors")
    logits = features @ head["head.1.weight"].double().numpy().T + head["head.1.bias"].double().numpy()
    probabilities = classifier.probabilities(images)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 0])), probabilities[:, 1], atol=1e-6)
    assert said.tolist() == (probabilities[:, 1] >= 0.5).astype(int).tolist()


def test_who_judges_does_not_change_what_is_trained(judge: Path) -> None:
    before = torch.random.get_rng_state()
    Judge.load(str(judge))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_last_distance_is_that_of_the_fixed_samples_to_the_validation_images(
    halves: PreparedData, judge: Path, trained: tuple[TrainedModel, list[Event]]
) -> None:
    looked = Judge.load(str(judge))
    val = datasets.open_arrays(halves.path).split("val")
    generator = bundle.load(trained[0].bundle).network
    latents = torch.from_numpy(noise(40, 6, 0, 1))
    with torch.inference_mode():
        made = generator(latents, torch.from_numpy(spread_labels(halves.class_counts["train"].values(), 40)))
    images = ((made + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    expected = frechet_distance(
        gaussian_of(looked.look(val.batch(np.arange(len(val))))[0]), gaussian_of(looked.look(images)[0])
    )
    best = trained[0].history["val/frechet_distance"][trained[0].best_epoch]
    assert best == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_labels_are_spread_in_the_proportions_of_the_classes() -> None:
    assert spread_labels((1, 1), 4).tolist() == [0, 0, 1, 1]
    assert np.bincount(spread_labels((10, 30, 0, 60), 1000), minlength=4).tolist() == [100, 300, 0, 600]
    assert spread_labels((5, 3, 2), 1).tolist() == [1]


# scores and figures


def test_scores_and_figures_are_those_of_the_family(scored: tuple[Scores, list[Event]]) -> None:
    scores, events = scored
    assert set(scores.metrics) == {"test/frechet_distance", "test/precision", "test/recall", "test/recognised"}
    assert scores.metrics["test/recognised"] == 1.0
    assert all(0 <= scores.metrics[f"test/{name}"] <= 1 for name in ("precision", "recall"))
    for name in ("samples.png", "nearest.png", "learning_curves.png"):
        assert Image.open(scores.path / "figures" / name).size > (100, 100)
    said = [event.text for event in events if isinstance(event, Message)]
    assert any("val/frechet_distance fell from" in text for text in said)
    assert any("Inception weights" in text for text in said)


def test_an_unconditional_generator_is_not_asked_for_classes(halves: PreparedData, judge: Path, tmp_path: Path) -> None:
    experiment = experiment_of(judge, {"epochs": 1}, model={"conditional": False})
    model = fit(halves, plain(tmp_path), experiment, tmp_path)
    scores = evaluate(halves, model.bundle, experiment.evaluation, tmp_path / "scores", accelerator="cpu")
    assert "test/recognised" not in scores.metrics
    generator = bundle.load(model.bundle)
    assert [answer["label"] for answer in generator.made(["", ""], {"seed": 0})] == ["", ""]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="of no class in particular: leave out the label 'class-0'"):
        generator.made(["class-0"], {"seed": 0})  # type: ignore[attr-defined]


def test_the_bundle_is_the_best_epoch_holds_no_pickle_and_makes_what_the_network_made(
    trained: tuple[TrainedModel, list[Event]], halves: PreparedData
) -> None:
    model = trained[0]
    for path in model.bundle.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            with pytest.raises(ValueError):
                list(pickletools.genops(path.read_bytes()))
    network = build_network(architecture_of(Model(**SMALL), halves))  # type: ignore[arg-type]
    network.load_state_dict(weights_of(model, name="best"))
    network.eval()
    loaded = bundle.load(model.bundle)
    inputs = torch.randn(7, 6), torch.arange(7) % 2
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network(*inputs), network(*inputs), rtol=0, atol=1e-6)
    assert loaded.description["architecture"] == json.loads(
        json.dumps(dataclasses.asdict(architecture_of(Model(**SMALL), halves)))  # type: ignore[arg-type]
    )


# what makes no sense


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("training", {"accumulate": 2}, r"training\.accumulate=2 is not for generation: .*training.batch_size"),
        ("training", {"gradient_clip": 1.0}, r"training\.gradient_clip=1\.0 is not for generation"),
        ("training", {"l1": 0.1}, r"training\.l1=0\.1"),
        ("training", {"devices": 2}, r"training\.devices=2 .* one device"),
        ("training", {"optimizer": "sgd"}, r"training\.optimizer=sgd .*adam"),
        ("training", {"precision": "16"}, r"training\.precision=16 .*bf16"),
        ("training", {"freeze": "backbone"}, r"training\.freeze=backbone"),
        ("training", {"layer_decay": 0.5}, r"training\.layer_decay=0\.5"),
        ("augmentation", {"mixup": 0.2}, r"augmentation\.mixup=0\.2"),
        ("augmentation", {"cutmix": 1.0}, r"augmentation\.cutmix=1\.0"),
    ],
)
def test_settings_that_a_gan_cannot_have_are_refused_before_any_image_is_read(
    section: str, settings: dict[str, Any], message: str
) -> None:
    training = settings if section == "training" else {}
    more = {} if section == "training" else {section: settings}
    with pytest.raises(ConfigurationError, match=message):
        check(experiment_of("", training, **more))


def test_other_pixels_than_a_generator_makes_are_refused(halves: PreparedData, judge: Path, tmp_path: Path) -> None:
    experiment = experiment_of(judge, {}, augmentation={"normalization": "dataset"})
    with pytest.raises(ConfigurationError, match=r"augmentation.normalization=dataset: .*half"):
        fit(halves, plain(tmp_path), experiment, tmp_path)


def test_a_classifiers_head_is_refused(halves: PreparedData, judge: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model.head=sigmoid is for classifiers"):
        fit(halves, plain(tmp_path), experiment_of(judge, {}, model={"head": "sigmoid"}), tmp_path)


def test_more_critic_steps_than_an_epoch_has_batches_are_refused(
    halves: PreparedData, judge: Path, tmp_path: Path
) -> None:
    experiment = experiment_of(judge, {"batch_size": 24, "critic_steps": 5})
    with pytest.raises(ConfigurationError, match=r"training.critic_steps=5, but an epoch has 2 batches"):
        fit(halves, plain(tmp_path), experiment, tmp_path)


def test_a_judge_that_is_none_is_refused(halves: PreparedData, tmp_path: Path) -> None:
    for judge, message in (("", "evaluation.judge is empty"), (tmp_path, "evaluation.judge: .* is no whole model")):
        with pytest.raises(ConfigurationError, match=f"{message}.*train a classifier of these images first"):
            fit(halves, plain(tmp_path), experiment_of(judge, {}), tmp_path / "run")


def test_a_judge_of_another_task_is_refused(
    halves: PreparedData, trained: tuple[TrainedModel, list[Event]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"evaluation.judge: .* is for generation: train a classifier"):
        fit(halves, plain(tmp_path), experiment_of(trained[0].bundle, {}), tmp_path)


def test_a_judge_of_other_classes_is_refused(base: Path, judge: Path, tmp_path: Path) -> None:
    three = bright_halves(base / "thirds", 3)
    with pytest.raises(
        ConfigurationError, match=r"tells class-0, class-1 apart, but the images are of class-0, class-1, class-2"
    ):
        fit(three, plain(tmp_path), experiment_of(judge, {}), tmp_path)


def test_a_judge_of_another_size_is_refused(base: Path, judge: Path, tmp_path: Path) -> None:
    larger = prepare(Data(source=str(base / "halves"), image_size=12))
    with pytest.raises(
        ConfigurationError, match=r"reads images of 8x8x1, but these are prepared at 12x12x1: .*data.image_size"
    ):
        fit(larger, plain(tmp_path), experiment_of(judge, {}), tmp_path)


def test_the_judge_is_checked_again_when_a_model_is_scored(
    halves: PreparedData, trained: tuple[TrainedModel, list[Event]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"evaluation.judge is empty"):
        evaluate(halves, trained[0].bundle, Evaluation(), tmp_path, accelerator="cpu", emit=ignore)
