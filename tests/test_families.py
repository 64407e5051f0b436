"""What is known of tasks and networks fits together, and what does not fit is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from recognition.defaults import require_fit, resolve_model, resolve_task
from recognition.errors import ConfigurationError
from recognition.experiment import Experiment, Model, Monitor
from recognition.families import FAMILIES, KINDS, NETWORKS, TASKS, Kind, Task, is_better_when_lower, task_of
from recognition.records import PreparedData
from recognition.registry import judge
from recognition.scoring import SCORERS
from recognition.settings import PromotionMetric


def test_every_task_is_known_everywhere() -> None:
    from lightning_modules.families import BUILDERS, EVALUATORS

    assert set(TASKS) == set(FAMILIES) == set(SCORERS) == set(BUILDERS) == set(EVALUATORS)


@pytest.mark.parametrize("task", TASKS)
def test_the_facts_of_a_task_fit_each_other(task: Task) -> None:
    family = FAMILIES[task]
    assert task_of(family.network) == task
    assert family.metric in family.metrics
    assert family.monitor in get_args(Monitor)
    assert set(family.metrics) <= set(get_args(PromotionMetric))


@pytest.mark.parametrize(
    ("network", "task"),
    [
        ("vit", "classification"),
        ("timm/vit_tiny_patch16_224", "classification"),
        ("torchvision/resnet18", "classification"),
        ("torchvision/ssdlite320_mobilenet_v3_large", "detection"),
        ("torchvision/fasterrcnn_resnet50_fpn", "detection"),
        ("torchvision/maskrcnn_resnet50_fpn", "instance_segmentation"),
        ("torchvision/lraspp_mobilenet_v3_large", "segmentation"),
        ("torchvision/deeplabv3_resnet50", "segmentation"),
        ("unet", "segmentation"),
        ("dcgan", "generation"),
        ("conv_autoencoder", "autoencoding"),
    ],
)
def test_a_network_says_what_it_is_for(network: str, task: Task) -> None:
    assert task_of(network) == task
    assert Experiment.model_validate({"model": {"network": network}}).task == task


@pytest.mark.parametrize("network", ["vitt", "timm/", "tim/resnet18", "", "torchvision"])
def test_an_unknown_network_is_refused_with_all_that_there_are(network: str) -> None:
    with pytest.raises(ValueError, match=r"is none of auto, cnn, rnn, .*, timm/<name>, torchvision/<name>"):
        task_of(network)


def test_a_network_of_another_task_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'vit' is for classification, not for detection: leave one of"):
        Model(network="vit", task="detection")
    assert Model(network="vit", task="classification").task == "classification"


@pytest.mark.parametrize(
    ("kind", "task"),
    [("classes", "classification"), ("boxes", "detection"), ("masks", "segmentation"), ("instances", "segmentation")],
)
def test_without_a_network_the_data_decide(kind: Kind, task: Task) -> None:
    assert resolve_task(Model(), kind) == task


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        (
            {"network": "cnn"},
            "boxes",
            "model.network=cnn: classification learns from a class for each image, but the data",
        ),
        (
            {"task": "detection"},
            "classes",
            "model.task=detection: detection learns from boxes around objects or a mask",
        ),
        ({"network": "unet"}, "boxes", "set model.task=detection, or give other data"),
        ({"network": "maskrcnn"}, "masks", "instance_segmentation learns from a mask for each object, but"),
    ],
)
def test_data_of_another_kind_are_refused_with_the_fix(settings: dict[str, str], kind: Kind, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve_task(Model.model_validate(settings), kind)


def test_objects_with_masks_have_boxes_too() -> None:
    for task in ("detection", "segmentation", "instance_segmentation"):
        assert resolve_task(Model(task=task), "instances") == task


def test_class_scores_of_an_autoencoder_are_refused() -> None:
    with pytest.raises(ValueError, match="models for autoencoding have no accuracy; use auto, or one of psnr"):
        Experiment.model_validate({"model": {"task": "autoencoding"}, "registration": {"metric": "accuracy"}})


def prepared(kind: Kind) -> PreparedData:
    return PreparedData(
        path=Path("unused"),
        images=Path("unused"),
        digest="",
        test_digest="images",
        source="",
        kind=kind,
        class_names=("cat", "dog"),
        height=32,
        width=32,
        channels=3,
        counts={},
        class_counts={},
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_monitored_score_of_another_task_is_refused(task: Task) -> None:
    assert FAMILIES[task].monitor in FAMILIES[task].monitors
    for other in FAMILIES:
        for monitor in FAMILIES[other].monitors:
            settings = {"model": {"task": task}, "training": {"monitor": monitor}}
            if monitor in FAMILIES[task].monitors:
                assert Experiment.model_validate(settings).training.monitor == monitor
            else:
                with pytest.raises(
                    ValueError, match=f"training.monitor: models for {task} have no {monitor}; use auto"
                ):
                    Experiment.model_validate(settings)


def test_where_the_data_decide_a_metric_of_another_task_is_refused_when_they_are_known() -> None:
    experiment = Experiment.model_validate({"registration": {"metric": "map"}})
    require_fit(experiment, "boxes")
    with pytest.raises(ConfigurationError, match="models for classification have no map; use auto, or one of accuracy"):
        require_fit(experiment, "classes")


@pytest.mark.parametrize("kind", KINDS)
def test_a_resolved_model_leaves_nothing_open(kind: Kind) -> None:
    resolved = resolve_model(Model(), prepared(kind))
    assert "auto" not in (resolved.task, resolved.network, resolved.head, resolved.neck)
    assert resolved.task == resolve_task(Model(), kind)


def test_for_distances_less_is_better() -> None:
    assert is_better_when_lower("val/loss")
    assert is_better_when_lower("frechet_distance")
    assert not is_better_when_lower("val/dice_macro")
    champion = (10.0, "same")
    assert judge(8.0, "frechet_distance", 1.0, "same", champion).promote
    assert not judge(9.5, "frechet_distance", 1.0, "same", champion).promote
    assert "less 1" in judge(9.5, "frechet_distance", 1.0, "same", champion).reason
    assert not judge(8.0, "map", 0.0, "same", champion).promote


def test_each_network_of_ours_says_something_about_itself() -> None:
    assert all(network.about and network.task in TASKS for network in NETWORKS.values())


def test_generators_are_compared_only_where_the_same_judge_scored_them(tmp_path: Path) -> None:
    from lightning_modules.evaluation import scored_against
    from recognition.experiment import Evaluation

    judges = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_bytes(name.encode())
        judges.append(Evaluation(judge=str(tmp_path / name)))
    data = prepared("classes")
    gan = {"task": "generation", "noise": 0.0}
    first, second = (scored_against(data, judge, gan) for judge in judges)
    assert first == scored_against(data, judges[0], gan) != second
    assert first != scored_against(data, judges[0].model_copy(update={"samples": 50}), gan)
    plain, denoising = ({"task": "autoencoding", "noise": noise} for noise in (0.0, 0.3))
    assert scored_against(data, Evaluation(), plain) == data.test_digest
    assert scored_against(data, Evaluation(), denoising) != data.test_digest
    assert scored_against(data, judges[0], {"task": "classification", "noise": 0.0}) == data.test_digest
