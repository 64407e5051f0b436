"""Preflight: combinations that cannot work are refused by name before anything is fetched, others are estimated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import House
from object_images import instance_folder, voc_folder
from safetensors.torch import save_file
from sample_images import folder_of
from torch import nn

from lightning_modules import footprint
from lightning_modules.networks import Architecture, build_network
from lightning_modules.preflight import examine, examine_model
from lightning_modules.setup import operations, with_first_weights
from lightning_modules.training import fit
from recognition import estimates, promotion, registry, tracking
from recognition.access import UNRESTRICTED
from recognition.configuration import load_experiment
from recognition.errors import ConfigurationError, DataError, ModelError, RecognitionError
from recognition.estimates import Footprint, memory, seconds, told
from recognition.expectations import as_prepared, expect, of_prepared
from recognition.experiment import Training
from recognition.families import NETWORKS
from recognition.policies import augment
from recognition.preparation import prepare
from recognition.records import Preflight
from tasks.examining import examine as examine_all
from tasks.preflight import as_markdown

pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")
ELSEWHERE = "data.source=https://example.org/pets.zip"


def examined(*words: str, timed: bool = False) -> Preflight:
    experiment = load_experiment(None, words)
    return examine(experiment, expect(experiment.data), timed)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {
        "classes": folder_of(folder / "pets", "cat", "dog", "eel", count=4, height=32, width=32),
        "boxes": voc_folder(folder / "shapes", 8),
        "instances": instance_folder(folder / "cells", 8),
    }


NAMES = [name for name in NETWORKS if name not in ("encoder", "dcgan")]


@pytest.mark.parametrize("network", [*NAMES, "timm/resnet18", "torchvision/mobilenet_v3_small"])
def test_parameters_and_operations_are_those_of_the_real_network(
    state: Path, sources: dict[str, Path], network: str
) -> None:
    task = NETWORKS[network].task if network in NETWORKS else "classification"
    kind = {"detection": "boxes", "segmentation": "instances", "instance_segmentation": "instances"}.get(
        task, "classes"
    )
    experiment = load_experiment(None, [f"data.source={sources[kind]}", f"model.network={network}"])
    expected = expect(experiment.data)
    real = with_first_weights(prepare(experiment.data), experiment)
    found = examine(experiment, expected, False)
    assert found.parameters == sum(parameter.numel() for parameter in real.network.parameters())
    # how many regions a Mask R-CNN looks at hangs on its first weights
    tolerance = 0.2 if network == "maskrcnn" else 0
    assert found.flops == pytest.approx(operations(real.network, real.architecture), rel=tolerance)
    assert found.memory_mb["activations"] > 0
    assert (found.task, found.network, found.warnings) == (task, network, ())


def test_the_estimate_of_a_training_is_the_training_that_follows(state: Path, tmp_path: Path) -> None:
    experiment = load_experiment(None, ["training.epochs=1"])
    data = prepare(experiment.data)
    model = fit(data, augment(data, experiment.augmentation, 0, tmp_path / "policy"), experiment, tmp_path / "run")
    found = examined("training.epochs=1", timed=True)
    assert (found.parameters, found.flops) == (model.parameters, model.flops)
    assert (found.device, found.devices) == (("cuda" if torch.cuda.is_available() else "cpu"), 1)
    assert min(found.seconds, found.rate) > 0
    assert found.rate_from
    assert 0 < found.needed_mb < found.total_mb


def test_what_is_kept_for_the_backward_pass_is_counted_as_by_hand() -> None:
    # a linear layer keeps its input (the image itself), ReLU its result, the last layer that again
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 5))
    assert footprint.kept_bytes(network, (torch.zeros(2, 4),)) == 2 * 3 * 4
    network[0].requires_grad_(False)
    network[2].requires_grad_(False)
    assert footprint.kept_bytes(network, (torch.zeros(2, 4),)) == 0


def test_a_network_without_content_keeps_as_much_as_a_real_one() -> None:
    architecture = Architecture("cnn", 10, 32, 32, 3, channels=(16, 32), pooled_blocks=2)
    images = torch.zeros(2, 3, 32, 32)
    with torch.device("meta"):
        meta = footprint.kept_bytes(build_network(architecture), (images.to("meta"),))
    assert meta == footprint.kept_bytes(build_network(architecture), (images,)) > 0


def test_memory_is_the_sum_of_its_parts() -> None:
    expected = expect(load_experiment(None, []).data)
    network = Footprint(1_000_000, 1_000_000, 4_000_000, 10, kept_bytes=50_000, step_flops=30)
    parts = memory(network, Training(batch_size=100), expected, "cpu")
    assert (parts["weights"], parts["gradients"], parts["optimiser"]) == (4, 4, 8)
    assert parts["activations"] == 5 * estimates.SPARE
    halved = memory(network, Training(batch_size=100, devices=2, optimizer="sgd", momentum=0), expected, "cpu")
    assert (halved["optimiser"], halved["activations"]) == (0, parts["activations"] / 2)
    assert memory(network, Training(ema_decay=0.9), expected, "cpu")["weights"] == 8


def test_time_grows_with_epochs_and_falls_with_devices() -> None:
    expected = expect(load_experiment(None, ["data.source=mnist"]).data)
    network = Footprint(1, 1, 4, flops=10**8, kept_bytes=1, step_flops=3 * 10**8)
    once, twice = (seconds(network, Training(epochs=n), expected, 1e10, 0, 0) for n in (1, 2))
    assert twice - once == pytest.approx(once - estimates.START_SECONDS)
    # 54,000 images of 0.03 s, and 6,000 of 0.01 s
    assert once == pytest.approx(1680, rel=0.01)
    assert seconds(network, Training(devices=2), expected, 1e10, 0, 0) < 0.6 * once * 15


def test_a_frozen_backbone_keeps_less() -> None:
    words = ("data.source=cifar10", "model.network=timm/resnet18")
    whole, frozen = examined(*words), examined(*words, "training.freeze=backbone")
    assert frozen.memory_mb["activations"] < whole.memory_mb["activations"] / 10
    assert frozen.memory_mb["gradients"] < whole.memory_mb["gradients"] / 100


WRONG: list[tuple[list[str], str]] = [
    (["model.channels=[8,8,8,8]"], "model.network: block 4 of 4 has nothing left.*fewer model.channels"),
    (["model.network=vit", "model.patch_size=3"], "model.network: patches of 3x3 pixels do not divide.*patch_size"),
    (["model.network=vit", "data.image_size=23"], "model.patch_size: no patches.*data.image_size"),
    (["model.network=torchvision/vit_b_16"], "model.network: .* does not take images of 8x8 pixels.*data.image_size"),
    (["model.network=timm/vit_tiny_patch16_224"], "model.network: .* does not take images of 8x8 pixels"),
    (["model.network=timm/resnet19"], "model.network: timm has no model 'resnet19'; did you mean"),
    (["model.head=sigmoid"], "model.head=sigmoid is for two classes; these images have 10"),
    (["model.network=unet"], "model.network=unet: segmentation learns from masks"),
    (["model.task=detection"], "model.task=detection: detection learns from boxes"),
    (
        ['augmentation.transforms=[{"RandomCrop": {"height": 20, "width": 20}}]'],
        "augmentation.transforms: the policy custom fails on images of 8x8x1",
    ),
    (
        ['augmentation.transforms=[{"Resize": {"height": 20, "width": 20}}]'],
        "augmentation.transforms: the policy custom makes 20x20x1 of images of 8x8x1.*@height",
    ),
    (['augmentation.transforms=[{"HorizontalFlop": {}}]'], "did you mean HorizontalFlip"),
    (["model.weights=nowhere.safetensors"], "model.weights: there is no file nowhere.safetensors"),
    (["model.pretrained=true"], "model.pretrained: there are no pretrained weights"),
    (["model.network=rnn", 'training.precision="16"', "training.accelerator=cpu"], "training.precision=16 needs a GPU"),
    (["training.devices=100", "training.batch_size=64"], "training.batch_size=64 gives 100 devices less than"),
    (["model.network=conv_autoencoder", "model.adapter_rank=4"], "model.adapter_rank=4 is for classifiers"),
    (["model.network=conv_autoencoder", "augmentation.mixup=0.2"], "augmentation.mixup mixes classes"),
    (["data.source=cifar100", "data.image_size=1024", "training.batch_size=65536"], "training.batch_size=65536 takes"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[words[-1] for words, _ in WRONG])
def test_what_cannot_work_is_refused_by_its_name(state: Path, words: list[str], message: str) -> None:
    with pytest.raises(RecognitionError, match=message):
        examined(*words)


def test_a_batch_that_is_refused_says_how_many_images_fit(state: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"takes [\d,.]+ GB at least, but the \w+ has .*: \d+ or fewer fit"):
        examined("data.source=cifar10", "data.image_size=256", "training.batch_size=60000")


def test_what_depends_on_images_that_are_not_known_is_a_warning(state: Path) -> None:
    found = examined(ELSEWHERE, "model.network=torchvision/vit_b_16", "data.image_size=100")
    assert found.parameters == 0
    assert "set data.image_size to" in found.warnings[0]
    assert "if the images are of 100x100x3 in 10 classes (assumed)" in found.warnings[0]
    crop = 'augmentation.transforms=[{"RandomCrop": {"height": 300, "width": 300}}]'
    assert "augmentation.transforms" in examined(ELSEWHERE, crop).warnings[0]
    assert examined(ELSEWHERE, "model.head=sigmoid").warnings[0].startswith("model.head=sigmoid is for two classes")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.network=timm/resnet19"], "did you mean timm/"),
        (["model.network=torchvision/resnet19"], "did you mean torchvision/"),
        (["model.weights=nowhere.pt"], "model.weights: there is no file nowhere.pt"),
        (['augmentation.transforms=[{"HorizontalFlop": {}}]'], "did you mean HorizontalFlip"),
        (['training.precision="16"', "training.accelerator=cpu"], "training.precision"),
    ],
)
def test_what_is_wrong_whatever_the_images_is_refused_all_the_same(state: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        examined(ELSEWHERE, *words)


def test_transforms_that_leave_boxes_behind_are_refused(state: Path, sources: dict[str, Path]) -> None:
    with pytest.raises(ConfigurationError, match=r"augmentation.transforms\[0\]: .* cannot take boxes along"):
        examined(f"data.source={sources['boxes']}", 'augmentation.transforms=[{"OverlayElements": {}}]')


def _weights(path: Path, **changed: torch.Tensor) -> Path:
    setup = with_first_weights(as_prepared(expect(load_experiment(None, []).data)), load_experiment(None, []))
    save_file({name: value.contiguous() for name, value in (setup.network.state_dict() | changed).items()}, path)
    return path


def test_start_weights_are_compared_by_shape_but_for_the_output_layer(state: Path, tmp_path: Path) -> None:
    names = list(
        with_first_weights(
            as_prepared(expect(load_experiment(None, []).data)), load_experiment(None, [])
        ).network.state_dict()
    )
    fitting = _weights(tmp_path / "head.safetensors", **{names[-1]: torch.zeros(3)})
    assert examined(f"model.weights={fitting}").warnings == ()
    other = _weights(tmp_path / "other.safetensors", **{names[0]: torch.zeros(5, 1, 3, 3)})
    with pytest.raises(ModelError, match=f"model.weights: .*another architecture: 1 of .* such as {names[0]}"):
        examined(f"model.weights={other}")
    # other images might make it another network
    assert "another architecture" in examined(ELSEWHERE, f"model.weights={other}").warnings[0]


@pytest.mark.parametrize("source", ["data.source=digits", ELSEWHERE])
def test_files_that_hold_no_tensors_are_refused_for_any_images(state: Path, tmp_path: Path, source: str) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    torch.save({"model": Path("code")}, tmp_path / "code.pt")
    for name, words in (("cut.safetensors", "no whole safetensors file"), ("code.pt", "no file of tensors alone")):
        with pytest.raises(ModelError, match=f"model.weights: .*{name} is {words}"):
            examined(source, f"model.weights={tmp_path / name}")


def test_a_generator_is_measured_with_its_discriminator_and_wants_a_judge_of_its_images(
    state: Path, tmp_path: Path
) -> None:
    experiment = load_experiment(None, ["data.source=mnist", "model.network=dcgan", f"evaluation.judge={tmp_path}"])
    with pytest.raises(ConfigurationError, match=r"evaluation.judge: .* is no whole model"):
        examine(experiment, expect(experiment.data), False)
    (tmp_path / "model.json").write_text(json.dumps({"format": 2, **_judge("mnist")}))
    found = examine(experiment, expect(experiment.data), False)
    assert found.parameters == sum(
        p.numel() for p in with_first_weights(as_prepared(found.data), experiment).network.parameters()
    )
    assert found.memory_mb["gradients"] > 4 * found.parameters / 1e6
    (tmp_path / "model.json").write_text(json.dumps({"format": 2, **_judge("fashion_mnist")}))
    with pytest.raises(ConfigurationError, match=r"evaluation.judge: .* tells T-shirt/top, "):
        examine(experiment, expect(experiment.data), False)


def _judge(source: str) -> dict[str, Any]:
    found = expect(load_experiment(None, [f"data.source={source}"]).data)
    sizes = {"height": 28, "width": 28, "channels": 1}
    return {"task": "classification", "class_names": list(found.class_names), "preprocessing": sizes}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["registration.model_name=.."], r"registration.model_name: '\.\.' is no name"),
        (["registration.model_name=" + "x" * 300], "registration.model_name: .* 1 to 250 characters"),
        (["registration.metric=map"], "registration.metric: models for classification have no map"),
        (["evaluation.judge=models:/none@champion"], "evaluation.judge: There is no model models:/none@champion"),
        (["model.weights=models:/none@champion"], "There is no model models:/none@champion"),
        (["training.monitor=val/psnr"], "training.monitor: models for classification have no val/psnr"),
    ],
)
def test_what_the_registry_would_refuse_at_the_end_is_refused_at_the_start(
    in_house: dict[str, Any], words: list[str], message: str
) -> None:
    with pytest.raises(RecognitionError, match=message):
        examine_all(load_experiment(None, words))


def test_a_champion_that_cannot_be_beaten_or_compared_is_said(in_house: dict[str, Any]) -> None:
    def warned(*words: str) -> list[str]:
        return promotion.warnings_about(load_experiment(None, list(words)), "classification")

    assert warned() == []
    assert "was scored on test images of data.split_seed=0" in warned("data.split_seed=1")[0]
    assert warned("data.split_seed=1", "registration.model_name=another") == []
    assert warned("data.split_seed=1", "registration.enabled=false") == []
    assert warned("registration.minimum_gain=-0.1")[0].startswith(
        "registration.minimum_gain=-0.1: a model with a worse"
    )
    assert "no later model" in warned("registration.minimum_gain=1")[0]


def test_asking_about_a_champion_makes_no_store(state: Path) -> None:
    assert promotion.warnings_about(load_experiment(None, []), "classification") == []
    assert not (state / "mlflow.db").exists()


def test_a_preflight_is_a_page_a_table_and_metrics_of_the_run(in_house: dict[str, Any]) -> None:
    run = tracking.find_run(in_house["run_id"])
    metrics, tags = run.data.metrics, run.data.tags
    assert metrics["preflight/parameters"] == metrics["model/parameters"]
    assert metrics["preflight/memory_mb"] > 100
    assert metrics["preflight/seconds"] > 0
    assert "seconds/preflight" in metrics
    assert (tags["preflight.data"], tags["preflight.warnings"]) == ("data set", "0")
    page = as_markdown(examined(ELSEWHERE, "model.head=sigmoid"))
    assert "| data | https://example.org/pets.zip: 10,000 images" in page
    assert "assumed: nothing is known before they are fetched" in page
    assert "## Warnings" in page
    assert "model.head=sigmoid is for two classes" in page
    assert [name for name, _ in told(examined())][:4] == ["data", "splits", "network", "device"]


def test_credentials_in_an_address_are_not_shown(state: Path) -> None:
    found = examined(ELSEWHERE)
    secret = found.model_copy(
        update={"data": found.data.model_copy(update={"source": "https://u:HUSH@example.org/a?token=HUSH"})}
    )
    assert "HUSH" not in as_markdown(secret)


def test_scoring_again_is_looked_at_before_it_begins(in_house: dict[str, Any], tmp_path: Path) -> None:
    experiment = load_experiment(None, [])
    model, data = registry.fetch_bundle("models:/digits@champion"), prepare(experiment.data)
    found = examine_model(experiment, model, of_prepared(data))
    assert (found.task, found.network, found.parameters) == ("classification", "cnn", 21_482)
    with pytest.raises(DataError, match=r"set data\.image_size and data.channels to the model's"):
        examine_model(experiment, model, of_prepared(data.model_copy(update={"height": 9})))
    with pytest.raises(ModelError, match="is no whole model"):
        examine_model(experiment, tmp_path, of_prepared(data))


def test_a_preflight_in_a_process_of_its_own_gives_the_same(state: Path) -> None:
    found = examine_all(load_experiment(None, []), UNRESTRICTED)
    assert (found.parameters, found.model_name, found.policy) == (21_482, "digits", "shift_rotate")
    assert found.rate_from


def test_a_dry_run_tells_what_a_run_would_be_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    house = House(tmp_path / "state", tmp_path, tmp_path / "user")
    found = house.json("train", "--dry-run", "training.epochs=3")
    assert (found["parameters"], found["device"], found["warnings"]) == (21_482, "cpu", [])
    assert min(found["seconds"], found["needed_mb"]) > 0
    assert list(house.state.rglob("*")) == []
    refused = house.run("train", "--dry-run", "model.channels=[8,8,8,8]")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "error: model.network: block 4 of 4 has nothing left" in refused.stderr
