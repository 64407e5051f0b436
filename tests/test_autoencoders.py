"""Autoencoders have the sizes and losses that can be worked out by hand, restore images, and lend their encoder."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sample_images import encoded, write
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from lightning_modules import evaluation
from lightning_modules.autoencoding import ImageAutoencoder, divergence, reconstruction_loss
from lightning_modules.data_module import Batch
from lightning_modules.networks import Architecture, build_network
from lightning_modules.noise import UNLEARNED, noisy
from lightning_modules.training import architecture_of, fit
from recognition import bundle, datasets, policies, prediction, preparation, registry
from recognition.data_settings import Data
from recognition.errors import ConfigurationError, ModelError
from recognition.experiment import Experiment, Model, Training
from recognition.local_models import with_local_models
from recognition.records import Policy, PreparedData, Scores, TrainedModel

MODELS: dict[str, dict[str, Any]] = {
    "conv": {"network": "conv_autoencoder", "channels": [8, 16], "code": 6},
    "dense": {"network": "dense_autoencoder", "dense": [32], "code": 6},
    "variational": {"network": "conv_autoencoder", "channels": [8, 16], "code": 6, "variational": True},
}


def described(network: str = "conv_autoencoder", side: int = 28, image_channels: int = 1, **more: Any) -> Architecture:
    return Architecture(network, 3, side, side, image_channels, **more)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def dense(incoming: int, outgoing: int) -> int:
    return outgoing * (incoming + 1)


def block(incoming: int, outgoing: int) -> int:
    """A convolution with kernels of 4 and without a bias, and a scale and a shift a channel."""
    return 16 * incoming * outgoing + 2 * outgoing


# the network


# 28 -> 14 -> 7
ENCODER = block(1, 32) + block(32, 64) + dense(49 * 64, 64)
DECODER = dense(64, 49 * 64) + 2 * 64 + block(64, 32) + 16 * 32 + 1
BY_HAND = {
    "conv": (described(channels=(32, 64)), ENCODER + DECODER),
    "variational": (described(channels=(32, 64), variational=True), ENCODER + DECODER + dense(49 * 64, 64)),
    "encoder": (described("encoder", channels=(32, 64)), ENCODER + dense(64, 3)),
    # 13 -> 6 -> 3
    "odd sides": (
        described(side=13, image_channels=3, channels=(4, 5), code=7),
        block(3, 4) + block(4, 5) + dense(45, 7) + dense(7, 45) + 2 * 5 + block(5, 4) + 16 * 4 * 3 + 3,
    ),
    "dense": (
        described("dense_autoencoder", side=8, dense=(20, 10), code=5),
        dense(64, 20) + dense(20, 10) + dense(10, 5) + dense(5, 10) + dense(10, 20) + dense(20, 64),
    ),
}


@pytest.mark.parametrize("name", list(BY_HAND))
def test_parameters_are_as_many_as_worked_out_by_hand(name: str) -> None:
    architecture, expected = BY_HAND[name]
    assert parameters(build_network(architecture)) == expected


@pytest.mark.parametrize("network", ["conv_autoencoder", "dense_autoencoder"])
@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (13, 30, 3), (7, 9, 1), (4, 5, 3), (32, 32, 3)])
def test_images_of_any_size_come_back_in_it(
    network: str, variational: bool, height: int, width: int, channels: int
) -> None:
    architecture = Architecture(
        network, 3, height, width, channels, channels=(4, 6), dense=(9,), code=5, variational=variational
    )
    built: Any = build_network(architecture)
    images = torch.rand(2, channels, height, width)
    codes = built.encode(images)
    assert codes.shape == (2, 5)
    restored = built(images)
    assert restored.shape == images.shape
    assert 0 <= restored.min() <= restored.max() <= 1
    if variational:
        mean, log_variance = built.eval().distribution(images)
        assert mean.shape == log_variance.shape == (2, 5)
        assert torch.equal(mean, built.encode(images))


@pytest.mark.parametrize("network", ["conv_autoencoder", "encoder"])
def test_a_network_too_deep_for_the_images_is_refused(network: str) -> None:
    with pytest.raises(
        ValueError, match=r"block 3 of 3 has nothing left of an image of 5x5 pixels: fewer model\.channels"
    ):
        build_network(described(network, side=5, channels=(4, 4, 4)))


@pytest.mark.parametrize("network", ["conv_autoencoder", "dense_autoencoder", "encoder"])
@pytest.mark.parametrize("side", [2, 3, 8, 13, 28, 32, 64, 100, 128, 224])
def test_what_is_left_open_fits_every_size(network: str, side: int, slopes: PreparedData) -> None:
    data = slopes.model_copy(update={"height": side, "width": side})
    architecture = architecture_of(Model(network=network), data)
    assert architecture.code == 64
    with torch.device("meta"):
        built = build_network(architecture).eval()
        assert len(built(torch.zeros(1, 1, side, side))) == 1


def test_without_a_distribution_there_is_none_to_ask_for() -> None:
    network: Any = build_network(described(channels=(4,)))
    with pytest.raises(ValueError, match=r"set model\.variational=true"):
        network.distribution(torch.rand(1, 1, 28, 28))


# the loss


def test_the_divergence_is_that_of_torch_and_of_a_monte_carlo_estimate() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    given, standard = Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)
    ours = divergence(mean, log_variance)
    torch.testing.assert_close(ours, kl_divergence(given, standard).sum(dim=1))
    drawn = mean + (log_variance / 2).exp() * torch.randn(200_000, 3, 4, generator=generator, dtype=torch.float64)
    sampled = (given.log_prob(drawn) - standard.log_prob(drawn)).sum(dim=2).mean(dim=0)
    torch.testing.assert_close(ours, sampled, rtol=0.02, atol=0.02)
    assert divergence(torch.zeros(1, 4), torch.zeros(1, 4)) == 0


def test_reconstruction_losses_are_those_worked_out_by_hand() -> None:
    logits, targets = torch.zeros(1, 1, 1, 2), torch.tensor([0.5, 0.9]).view(1, 1, 1, 2)
    # half brightness against 0.5 and 0.9
    assert reconstruction_loss(logits, targets, "mse").item() == pytest.approx(0.4**2 / 2)
    assert reconstruction_loss(logits, targets, "l1").item() == pytest.approx(0.4 / 2)
    assert reconstruction_loss(logits, targets, "bce").item() == pytest.approx(np.log(2))


def module_of(settings: dict[str, Any], training: Training, side: int = 12) -> ImageAutoencoder:
    torch.manual_seed(0)
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    network: Any = build_network(Architecture(outputs=3, height=side, width=side, image_channels=1, **sizes))
    return ImageAutoencoder(network, (0.0,), (1.0,), training, seed=0)


def batch_of(count: int, side: int = 12) -> Batch:
    images = torch.randint(
        0, 256, (count, 1, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    return Batch(images, torch.zeros(count, dtype=torch.int64), torch.arange(count))


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_the_variational_loss_is_the_negative_lower_bound_over_the_number_of_pixels(beta: float) -> None:
    module = module_of(MODELS["variational"], Training(reconstruction_loss="bce", beta=beta))
    module.network.eval()
    batch = batch_of(5)
    torch.manual_seed(3)
    ours = module.training_step(batch, 0)
    images = batch.images / 255
    mean, log_variance = module.network.distribution(images)
    given = Normal(mean, (log_variance / 2).exp())
    torch.manual_seed(3)
    codes = mean + given.stddev * torch.randn_like(mean)
    likelihood = Bernoulli(logits=module.network.logits(codes), validate_args=False).log_prob(images).sum(dim=(1, 2, 3))
    bound = likelihood - beta * kl_divergence(given, Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(ours, -bound.mean() / 144)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_autoencoder_learns_one_batch_by_heart(name: str) -> None:
    module = module_of(MODELS[name], Training(beta=0.0))
    batch = batch_of(6)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)

    def loss() -> Tensor:
        return module.training_step(batch, 0)

    first = float(loss().detach())
    last = first
    for _ in range(400):
        optimizer.zero_grad()
        step = loss()
        step.backward()
        optimizer.step()
        last = float(step.detach())
        if last < 1e-3:
            break
    assert first > 0.05
    assert last < 1e-3


# noise


def test_noise_is_of_the_image_and_the_epoch_whatever_the_batch() -> None:
    images = torch.full((4, 1, 16, 16), 128, dtype=torch.uint8)
    positions = torch.tensor([7, 3, 9, 1])
    whole = noisy(images, positions, 0.1, 0, 1)
    alone = torch.cat([noisy(images[:1], positions[row : row + 1], 0.1, 0, 1) for row in range(4)])
    assert torch.equal(whole, alone)
    assert len({image.numpy().tobytes() for image in whole}) == 4
    for seed, epoch in ((0, 2), (1, 1), (0, UNLEARNED)):
        assert not torch.equal(whole, noisy(images, positions, 0.1, seed, epoch))


def test_noise_has_the_deviation_asked_for_and_stays_within_what_files_hold() -> None:
    gray, white = (torch.full((64, 1, 16, 16), value, dtype=torch.uint8) for value in (128, 255))
    added = noisy(gray, torch.arange(64), 0.1, 0, 1).float() - 128
    assert added.mean().item() == pytest.approx(0, abs=1)
    assert added.std().item() == pytest.approx(25.5, rel=0.03)
    over = noisy(white, torch.arange(64), 0.1, 0, 1)
    assert (over == 255).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(noisy(gray, torch.arange(64), 0.0, 0, 1), gray)


def test_training_sees_new_noise_each_epoch_and_validation_the_same() -> None:
    module, batch = module_of(MODELS["conv"], Training(noise=0.2)), batch_of(3)
    first, second = module.given(batch, 1), module.given(batch, 2)
    assert not torch.equal(first, second)
    assert torch.equal(module.given(batch, UNLEARNED), module.given(batch, UNLEARNED))
    assert torch.equal(module.targets(batch), batch.images / 255)


# from images to a model


def lit(root: Path, count: int = 30, side: int = 12) -> PreparedData:
    """Gray slopes, brighter at the top in one class and at the bottom in the other, each as steep as it likes."""
    random = np.random.default_rng(0)
    down, across = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    for name, sign in (("above", -1), ("below", 1)):
        for index in range(count):
            image = 128 + sign * random.uniform(30, 80) * down + random.uniform(-40, 40) * across
            image += random.normal(0, 4, image.shape)
            write(root / name / f"{index}.png", encoded(image.astype(np.uint8)[:, :, None]))
    return preparation.prepare(Data(source=str(root)))


def experiment_of(model: dict[str, Any], **training: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "model": model,
            "training": {"epochs": 4, "batch_size": 16, "accelerator": "cpu", "learning_rate": 1e-2, **training},
            "evaluation": {"examples": 4},
        }
    )


def trained(data: PreparedData, folder: Path, experiment: Experiment) -> TrainedModel:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "policy.json"
    path.write_text(policies.to_json(policies.build([], data.height, data.width)))
    policy = Policy(path=path, preview=path, name="none", transforms=())
    return fit(data, policy, experiment, folder)


def scored(data: PreparedData, model: TrainedModel, experiment: Experiment) -> Scores:
    return evaluation.evaluate(data, model.bundle, experiment.evaluation, model.path / "evaluation", accelerator="cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("autoencoders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(folder / "state"))
        yield folder


@pytest.fixture(scope="module")
def slopes(base: Path) -> PreparedData:
    return lit(base / "lit")


@pytest.fixture(scope="module")
def autoencoder(slopes: PreparedData, base: Path) -> TrainedModel:
    return trained(slopes, base / "conv", experiment_of(MODELS["conv"], epochs=20))


def test_the_history_has_both_losses_and_the_psnr_of_each_epoch(autoencoder: TrainedModel) -> None:
    assert {"train/loss", "val/loss", "val/psnr"} <= set(autoencoder.history)
    assert autoencoder.monitor == "val/loss"
    assert autoencoder.history["val/psnr"][-1] > autoencoder.history["val/psnr"][0] + 3


def test_a_variational_history_has_the_divergence(slopes: PreparedData, tmp_path: Path) -> None:
    model = trained(slopes, tmp_path, experiment_of(MODELS["variational"], epochs=2))
    assert len(model.history["val/divergence"]) == 2


def test_a_loaded_bundle_holds_no_pickle_and_restores_as_the_network_did(
    autoencoder: TrainedModel, slopes: PreparedData
) -> None:
    assert not [path for path in autoencoder.bundle.rglob("*") if path.suffix in {".pt", ".pth", ".ckpt", ".pkl"}]
    content = json.loads((autoencoder.bundle / "model.json").read_text())["architecture"]
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    network: Any = build_network(Architecture(**sizes)).eval()
    network.load_state_dict(load_file(autoencoder.bundle / "weights.safetensors"))
    images = datasets.open_arrays(slopes.path).split("test").batch(np.arange(5))
    scorer: Any = bundle.load(autoencoder.bundle)
    with torch.inference_mode():
        codes = network.encode(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
        restored = network.decode(codes).permute(0, 2, 3, 1)
    np.testing.assert_allclose(scorer.codes(images), codes.numpy(), atol=1e-6)
    np.testing.assert_allclose(scorer.decoded(scorer.codes(images)), restored.numpy(), atol=1e-6)


def test_test_scores_are_those_worked_out_by_hand(autoencoder: TrainedModel, slopes: PreparedData) -> None:
    experiment = experiment_of(MODELS["conv"])
    metrics = scored(slopes, autoencoder, experiment).metrics
    assert set(metrics) == {f"test/{name}" for name in ("mse", "psnr", "ssim", "pca_psnr", "probe_accuracy")}
    arrays = datasets.open_arrays(slopes.path)
    test, train = (arrays.split(name).batch(np.arange(len(arrays.split(name)))) / 255 for name in ("test", "train"))
    scorer: Any = bundle.load(autoencoder.bundle)
    errors = np.square(scorer.decoded(scorer.codes(np.rint(test * 255).astype(np.uint8))) - test).mean(axis=(1, 2, 3))
    assert metrics["test/mse"] == pytest.approx(errors.mean(), rel=1e-5)
    assert metrics["test/psnr"] == pytest.approx((-10 * np.log10(errors)).mean(), rel=1e-5)
    # six principal components beside a code of six numbers
    components = PCA(6, svd_solver="full").fit(train.reshape(len(train), -1))
    flat = test.reshape(len(test), -1)
    back = components.inverse_transform(components.transform(flat)).clip(0, 1)
    expected = (-10 * np.log10(np.square(back - flat).mean(axis=1))).mean()
    assert metrics["test/pca_psnr"] == pytest.approx(expected, rel=1e-3)
    assert metrics["test/probe_accuracy"] > 0.8
    folder = autoencoder.path / "evaluation"
    table = pd.read_parquet(folder / "reconstruction_errors.parquet")
    np.testing.assert_allclose(table["mse"], errors, rtol=1e-4)
    assert list(table.columns) == ["sample_id", "class", "mse", "psnr", "ssim"]
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert figures == {"reconstructions.png", "latent_map.png", "largest_errors.png"}


def test_a_denoiser_is_scored_beside_the_noisy_images(slopes: PreparedData, tmp_path: Path) -> None:
    experiment = experiment_of(MODELS["conv"], noise=0.2, epochs=20)
    model = trained(slopes, tmp_path, experiment)
    metrics = scored(slopes, model, experiment).metrics
    # noise of 0.2 is a squared error of 0.04, less what is cut off: 14 dB and a little more
    assert 14 < metrics["test/noisy_psnr"] < 15
    assert metrics["test/noisy_mse"] == pytest.approx(0.04, rel=0.2)
    assert metrics["test/psnr"] > metrics["test/noisy_psnr"]


def test_a_variational_autoencoder_shows_samples_and_the_way_between_images(
    slopes: PreparedData, tmp_path: Path
) -> None:
    experiment = experiment_of(MODELS["variational"], epochs=1)
    model = trained(slopes, tmp_path, experiment)
    scored(slopes, model, experiment)
    figures = {path.name for path in (tmp_path / "evaluation" / "figures").iterdir()}
    assert {"samples.png", "interpolation.png", "reconstructions.png"} <= figures


def test_codes_of_one_number_are_scored_and_drawn(slopes: PreparedData, tmp_path: Path) -> None:
    experiment = experiment_of({**MODELS["dense"], "code": 1}, epochs=1)
    model = trained(slopes, tmp_path, experiment)
    assert np.isfinite(list(scored(slopes, model, experiment).metrics.values())).all()
    assert (tmp_path / "evaluation" / "figures" / "latent_map.png").is_file()


def test_mixing_classes_is_refused(slopes: PreparedData, tmp_path: Path) -> None:
    experiment = experiment_of(MODELS["conv"]).model_copy(
        update={"augmentation": Experiment.model_validate({"augmentation": {"mixup": 0.2}}).augmentation}
    )
    with pytest.raises(ConfigurationError, match=r"augmentation\.mixup mixes classes"):
        trained(slopes, tmp_path, experiment)


# how it is asked


def test_predict_answers_with_the_code_the_error_and_the_restored_image(
    autoencoder: TrainedModel, base: Path, tmp_path: Path
) -> None:
    path = base / "lit" / "above" / "0.png"
    answer = prediction.predict_files(str(autoencoder.bundle), [path], {})[0]
    assert set(answer) == {"image", "code", "restored", "error"}
    assert len(answer["code"]) == 6
    restored = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["restored"]))))
    original = np.asarray(Image.open(path))
    assert restored.shape == original.shape == (12, 12)
    assert restored.dtype == np.uint8
    error = np.square((restored.astype(float) - original) / 255).mean()
    assert answer["error"] == pytest.approx(error, abs=1e-3)
    told = prediction.write_pictures([answer], tmp_path / "out")[0]
    assert told["restored"] == str(tmp_path / "out" / "0.png")
    np.testing.assert_array_equal(np.asarray(Image.open(told["restored"])), restored)


def test_an_autoencoder_asked_for_class_scores_is_refused(autoencoder: TrainedModel, base: Path) -> None:
    path = base / "lit" / "above" / "0.png"
    with pytest.raises(ConfigurationError, match=r"is for autoencoding and has no top_k; it has: none"):
        prediction.predict_files(str(autoencoder.bundle), [path], {"top_k": 2})
    with pytest.raises(
        ModelError, match=r"holds a model for autoencoding, which knows no class scores: name a classifier"
    ):
        bundle.load_classifier(autoencoder.bundle)
    with pytest.raises(ValueError, match=r"registration\.metric: models for autoencoding have no accuracy; use auto"):
        Experiment.model_validate(
            {"model": {"network": "conv_autoencoder"}, "registration": {"metric": "accuracy"}},
        )


# the encoder as a classifier's backbone


def probe_of(experiment: Experiment, autoencoder: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """The experiment as a stage gets it, with the autoencoder as the registered model."""
    monkeypatch.setattr(registry, "fetch_bundle", lambda model: autoencoder.bundle)
    return with_local_models(experiment, "classification")


REGISTERED = {"network": "encoder", "weights": "models:/lit-autoencoder@champion"}


def test_one_line_makes_the_encoder_a_classifiers_backbone_and_freezing_a_linear_probe(
    slopes: PreparedData, autoencoder: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = probe_of(experiment_of(REGISTERED, freeze="backbone", epochs=30), autoencoder, monkeypatch)
    assert experiment.model.channels == (8, 16)
    assert experiment.model.code == 6
    model = trained(slopes, tmp_path, experiment)
    before, after = (load_file(path / "weights.safetensors") for path in (autoencoder.bundle, model.bundle))
    body = [name for name in after if not name.startswith("head.")]
    assert body
    assert all(torch.equal(after[name], before[name]) for name in body)
    # two classes are told apart by one logit
    assert after["head.weight"].shape == (1, 6)
    description = json.loads((model.bundle / "model.json").read_text())
    assert description["preprocessing"]["mean"] == [0.0]
    assert description["preprocessing"]["std"] == [1.0]
    assert scored(slopes, model, experiment).metrics["test/accuracy"] > 0.8


def test_an_encoder_of_another_architecture_is_refused_with_the_settings_to_give(
    slopes: PreparedData, autoencoder: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = probe_of(experiment_of({**REGISTERED, "channels": [8, 8], "code": 7}), autoencoder, monkeypatch)
    expected = (
        r"is of another architecture than model\.channels=\[8, 8\], model\.code=7: "
        r"set model\.channels=\[8,16\] model\.code=6\."
    )
    with pytest.raises(ModelError, match=expected):
        trained(slopes, tmp_path, experiment)


def test_an_encoder_for_images_of_another_size_is_refused(
    base: Path, autoencoder: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = lit(base / "larger", side=16)
    experiment = probe_of(experiment_of(REGISTERED), autoencoder, monkeypatch)
    with pytest.raises(ModelError, match=r"than data\.image_size=16: set data\.image_size=12\."):
        trained(larger, tmp_path, experiment)


def test_an_encoder_starts_with_no_other_network(
    slopes: PreparedData, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = trained(slopes, base / "dense", experiment_of(MODELS["dense"], epochs=1))
    experiment = probe_of(experiment_of(REGISTERED), other, monkeypatch)
    with pytest.raises(ModelError, match=r"is dense_autoencoder for autoencoding; .* a conv_autoencoder: name one"):
        trained(slopes, tmp_path, experiment)


def test_the_encoder_of_a_variational_autoencoder_fits_as_well(
    slopes: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variational = trained(slopes, tmp_path / "vae", experiment_of(MODELS["variational"], epochs=1))
    experiment = probe_of(experiment_of(REGISTERED, epochs=1), variational, monkeypatch)
    assert trained(slopes, tmp_path / "probe", experiment).task == "classification"


def test_an_autoencoder_goes_on_learning_from_a_registered_one(
    slopes: PreparedData, autoencoder: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**MODELS["conv"], "weights": REGISTERED["weights"]}
    experiment = probe_of(experiment_of(settings, epochs=1, learning_rate=1e-30), autoencoder, monkeypatch)
    before, after = (
        load_file(path / "weights.safetensors")
        for path in (autoencoder.bundle, trained(slopes, tmp_path, experiment).bundle)
    )
    assert before.keys() == after.keys()
    assert all(
        torch.equal(after[name], before[name]) for name in before if "running" not in name and "num_" not in name
    )


def test_other_networks_keep_their_own_sizes(autoencoder: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = probe_of(
        experiment_of({**REGISTERED, "network": "conv_autoencoder", "channels": [4]}), autoencoder, monkeypatch
    )
    assert experiment.model.channels == (4,)
    assert experiment.model.code == 0
    assert experiment.model.weights == str(autoencoder.bundle)
