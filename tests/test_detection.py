"""Detectors learn, are kept without pickle, answer in pixels of the image that was sent, and refuse nonsense."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from object_images import COLOURS, scene
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection import RetinaNet

from lightning_modules import detection
from lightning_modules.data_module import Batch
from lightning_modules.detection import ObjectDetector
from lightning_modules.networks import Architecture, build_network, example_inputs
from lightning_modules.setup import Setup
from lightning_modules.training import NETWORKS_FOLDER
from lightning_modules.weights import load_start_weights
from recognition import box_figures, bundle
from recognition.box_scores import Found, ObjectScores, matched
from recognition.errors import ConfigurationError
from recognition.experiment import Experiment, Model, Training
from recognition.objects import Objects
from recognition.prediction import write_pictures
from recognition.scoring.detector import Detector

SIDE = 64
NAMES = list(COLOURS)
MEAN, STD = (0.15,) * 3, (0.25,) * 3
TORCHVISION = (
    "torchvision/ssdlite320_mobilenet_v3_large",
    "torchvision/retinanet_resnet50_fpn",
    "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn",
)


def architecture(network: str, width: int = 0, side: int = SIDE, channels: int = 3) -> Architecture:
    units = width or (16 if network == "retinanet" else 8)
    return Architecture(network, len(NAMES), side, side, channels, units=units)


def scenes(count: int, first: int = 0) -> tuple[NDArray[np.uint8], list[Objects]]:
    """Pictures, uint8 (count, 64, 64, 3), and the objects on them."""
    pictures, objects = [], []
    for number in range(first, first + count):
        picture, shapes = scene(number, SIDE)
        pictures.append(picture)
        masks = np.stack([mask for _, mask in shapes]).astype(np.uint8)
        rows, columns = masks.any(axis=2), masks.any(axis=1)
        edges = [
            (
                np.flatnonzero(across)[0],
                np.flatnonzero(down)[0],
                np.flatnonzero(across)[-1] + 1,
                np.flatnonzero(down)[-1] + 1,
            )
            for across, down in zip(columns, rows, strict=True)
        ]
        labels = np.array([NAMES.index(name) for name, _ in shapes])
        objects.append(Objects(np.array(edges, np.float32), labels, masks))
    return np.stack(pictures), objects


NOTHING = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, SIDE, SIDE), np.uint8))


def batch_of(pictures: NDArray[np.uint8], objects: list[Objects]) -> Batch:
    count = len(pictures)
    targets: list[dict[str, Tensor]] = []
    for one in objects:
        assert one.masks is not None
        arrays = {"boxes": one.boxes, "labels": one.labels, "masks": one.masks}
        targets.append({name: torch.from_numpy(array) for name, array in arrays.items()})
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    return Batch(images, torch.zeros(count, dtype=torch.int64), torch.arange(count), objects=targets)


def module_of(network: str, **training: Any) -> ObjectDetector:
    torch.manual_seed(0)
    task = "instance_segmentation" if network == "maskrcnn" else "detection"
    built = build_network(architecture(network))
    return ObjectDetector(built, task == "instance_segmentation", MEAN, STD, Training(**training))


def description(network: str, **changes: Any) -> dict[str, Any]:
    preprocessing = {"height": SIDE, "width": SIDE, "channels": 3, "resize": "pad", "mean": MEAN, "std": STD}
    return {
        "task": "instance_segmentation" if network == "maskrcnn" else "detection",
        "architecture": dataclasses.asdict(architecture(network)),
        "class_names": NAMES,
        "score_threshold": 0.5,
        "preprocessing": preprocessing,
    } | changes


def loaded(folder: Path, network: str, module: ObjectDetector, **changes: Any) -> Detector:
    saved = bundle.save(folder, description(network, **changes), module.network.state_dict(), NETWORKS_FOLDER)
    detector: Any = bundle.load(saved)
    return detector


class _Same(nn.Module):
    """A network that finds, with masks of full certainty, what it was told on every image."""

    first_label = 1

    def __init__(self, objects: Objects, confidences: list[float]) -> None:
        super().__init__()
        self._objects, self._confidences = objects, confidences

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        assert self._objects.masks is not None
        found = {
            "boxes": torch.from_numpy(self._objects.boxes),
            "labels": torch.from_numpy(self._objects.labels) + 1,
            "scores": torch.tensor(self._confidences),
            "masks": torch.from_numpy(self._objects.masks).float()[:, None],
        }
        return [found] * len(images)


def learned(module: ObjectDetector, batch: Batch) -> tuple[float, float]:
    """Train on one batch for at most 70 steps; the first loss and the last."""
    parameters = module.network.parameters()
    one_stage = isinstance(module.network, RetinaNet)
    optimizer = torch.optim.SGD(parameters, 2e-2, momentum=0.9) if one_stage else torch.optim.AdamW(parameters, 5e-3)
    enough = 12 if one_stage else 6
    losses: list[float] = []
    while len(losses) < 70 and (len(losses) < 30 or max(losses[-3:]) > losses[0] / enough):
        loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


@pytest.mark.parametrize("network", ["retinanet", "fasterrcnn", "maskrcnn"])
def test_one_batch_is_learned_and_its_objects_are_found_the_same_when_loaded_without_pickle(
    network: str, tmp_path: Path
) -> None:
    pictures, objects = scenes(2)
    module = module_of(network)
    batch = batch_of(pictures, objects)
    first, last = learned(module, batch)
    assert last < first / 4
    detector = loaded(tmp_path / "model", network, module)
    found = [Found(**one) for one in detector.detections(pictures)]
    for there, said in zip(objects, found, strict=True):
        assert set(range(len(there))) <= set(matched(there, said.sure(0.5)).tolist())
    scores = ObjectScores(len(NAMES), masks=network == "maskrcnn")
    scores.add(objects, found)
    assert all(average.summary()["map_50"] > 0.99 for average in scores.result().values())
    with torch.no_grad():
        direct = module.eval()(batch.images)
    for ours, theirs in zip(found, direct, strict=True):
        order = torch.argsort(theirs["scores"], descending=True, stable=True)
        np.testing.assert_allclose(ours.boxes, theirs["boxes"][order], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(ours.confidences, theirs["scores"][order], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(ours.labels, theirs["labels"][order])
        if ours.masks is not None:
            np.testing.assert_array_equal(ours.masks, theirs["masks"][order])


@pytest.mark.parametrize("network", ["retinanet", "fasterrcnn", "maskrcnn", *TORCHVISION])
def test_images_without_objects_teach_and_take_no_harm(network: str) -> None:
    module = module_of(network)
    pictures, objects = scenes(2)
    for some in ([objects[0], NOTHING], [NOTHING, NOTHING]):
        loss = module.training_step(batch_of(pictures, some), 0)
        loss.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(loss)
    assert {"boxes", "labels", "scores"} <= set(module.eval()(batch_of(pictures, objects).images)[0])


@pytest.mark.parametrize("network", ["retinanet", "fasterrcnn", *TORCHVISION])
def test_networks_take_images_as_they_are_prepared(network: str) -> None:
    built: Any = build_network(architecture(network)).eval()
    images = torch.randn(2, 3, SIDE, SIDE)
    taken, targets = built.transform(list(images))
    assert targets is None
    assert torch.equal(taken.tensors, images)
    assert built.first_label == (0 if "retinanet" in network else 1)
    with torch.no_grad():
        assert len(built(*example_inputs(architecture(network)))) == 1


def test_classes_are_counted_from_one_where_zero_is_the_background() -> None:
    """The heads of both kinds end in as many outputs as there are classes, with the background where it counts."""
    one_stage: Any = build_network(architecture("retinanet"))
    assert one_stage.head.classification_head.num_classes == 2
    two_stages: Any = build_network(architecture("fasterrcnn"))
    assert two_stages.roi_heads.box_predictor.cls_score.out_features == 3
    by_name: Any = build_network(architecture("torchvision/ssdlite320_mobilenet_v3_large"))
    assert by_name.head.classification_head.num_columns == 3


@pytest.mark.parametrize("network", ["retinanet", "maskrcnn"])
def test_weights_of_a_detector_of_other_classes_are_taken_but_for_its_head(network: str, tmp_path: Path) -> None:
    older = build_network(dataclasses.replace(architecture(network), outputs=5))
    save_file(older.state_dict(), tmp_path / "older.safetensors")
    newer = build_network(architecture(network))
    model = Model(network=network, weights=str(tmp_path / "older.safetensors"))
    load_start_weights(newer, model, architecture(network))
    theirs, ours = older.state_dict(), newer.state_dict()
    other = {name for name in ours if ours[name].shape != theirs[name].shape}
    assert other
    assert all(name.startswith(("head.classification_head", "roi_heads.")) for name in other)
    assert all(torch.equal(ours[name], theirs[name]) for name in set(ours) - other)


@pytest.mark.parametrize(("side", "strides"), [(64, (4, 8, 16, 32)), (320, (8, 16, 32, 64))])
def test_anchors_fit_the_size_of_the_images(side: int, strides: tuple[int, ...]) -> None:
    built: Any = build_network(architecture("retinanet", width=8, side=side)).eval()
    features = built.backbone(torch.zeros(1, 3, side, side))
    assert list(features) == list("0123")
    assert [side // level.shape[-1] for level in features.values()] == list(strides)
    assert {level.shape[1] for level in features.values()} == {16}
    smallest = min(float((cell[:, 2:] - cell[:, :2]).prod(dim=1).min().sqrt()) for cell in _cells(built))
    assert smallest == pytest.approx(2.5 * strides[0], rel=0.1)


def _cells(network: Any) -> list[Tensor]:
    cells: list[Tensor] = network.anchor_generator.cell_anchors
    return cells


def test_an_epoch_logs_the_losses_and_the_scores_and_validation_moves_nothing() -> None:
    pictures, objects = scenes(4)
    batch = batch_of(pictures, [*objects[:3], NOTHING])
    module = module_of("maskrcnn", epochs=1, learning_rate=1e-3)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    # without a generator of its own a loader draws from torch's stream
    loader: Any = DataLoader([batch], batch_size=None, generator=torch.Generator())
    trainer.fit(module, loader, loader)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    parts = {"classifier", "box_reg", "mask", "objectness", "rpn_box_reg"}
    assert set(logged) == {"train/loss", "val/loss", "val/map", "val/map_50", "val/mask_map", "val/mask_map_50"} | {
        f"train/{part}_loss" for part in parts
    }
    assert logged["train/loss"] == pytest.approx(sum(logged[f"train/{part}_loss"] for part in parts), rel=1e-5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    stream = torch.get_rng_state()
    values = []
    for _ in range(2):
        trainer.validate(module, loader, verbose=False)
        values.append(float(trainer.callback_metrics["val/loss"]))
    assert values[0] == values[1] == pytest.approx(logged["val/loss"], rel=1e-6)
    assert torch.equal(stream, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
def test_answers_are_in_pixels_of_the_image_that_was_sent(resize: str, tmp_path: Path) -> None:
    """On an image of 256x128, a square of 32 pixels lies where the network finds it at 64x64."""
    places = {"pad": (16, 24, 24, 32), "crop": (0, 16, 16, 32), "stretch": (16, 16, 24, 32)}
    left, top, right, bottom = places[resize]
    mask = np.zeros((1, SIDE, SIDE), np.uint8)
    mask[0, top:bottom, left:right] = 1
    told = Objects(np.array([places[resize]], np.float32), np.array([1]), mask)
    preprocessing = {**description("maskrcnn")["preprocessing"], "resize": resize}
    detector = loaded(tmp_path / "model", "maskrcnn", module_of("maskrcnn"), preprocessing=preprocessing)
    detector.network = _Same(told, [0.75])
    answer = detector.answers([np.zeros((128, 256, 3), np.uint8)], ["image"], {})[0]
    (found,) = answer["objects"]
    assert (found["label"], found["confidence"]) == ("square", 0.75)
    assert found["box"] == [64, 32, 96, 64]
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["mask"]))))
    assert drawn.shape == (128, 256)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == pytest.approx(found["box"], abs=2)


def test_objects_are_answered_from_the_models_threshold_on_or_from_the_callers(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 8, 8], [8, 8, 16, 16], [16, 16, 32, 32]], np.float32)
    told = Objects(boxes, np.array([0, 1, 0]), np.ones((3, SIDE, SIDE), np.uint8))
    detector = loaded(tmp_path / "model", "retinanet", module_of("retinanet"), score_threshold=0.6)
    detector.network = _Same(told, [0.5, 0.9, 0.65])
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)

    def confidences(**parameters: float) -> list[float]:
        answer = detector.answers([picture], ["image"], {**detector.parameters, **parameters})[0]
        return [round(one["confidence"], 3) for one in answer["objects"]]

    assert confidences() == [0.9, 0.65]
    assert confidences(threshold=0.4) == [0.9, 0.65, 0.5]
    assert confidences(threshold=0.95) == []
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"threshold must lie between 0 \(the model's own, 0.6\) and 1"):
            confidences(threshold=wrong)


def test_what_was_found_is_drawn_over_the_images_it_was_found_on(tmp_path: Path) -> None:
    picture = Image.new("RGB", (80, 60), "white")
    picture.save(tmp_path / "cell.png")
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 10:50] = 255
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    found = {
        "label": "disc",
        "confidence": 0.9,
        "box": [10.0, 20.0, 50.0, 40.0],
        "mask": base64.b64encode(buffer.getvalue()).decode(),
    }
    answers = [{"image": str(tmp_path / "cell.png"), "objects": [found]}]
    (told,) = write_pictures(answers, tmp_path / "drawn")
    assert told["objects"] == [{name: found[name] for name in ("label", "confidence", "box")}]
    drawn = np.asarray(Image.open(told["picture"]).convert("RGB")).astype(int)
    assert drawn.shape == (60, 80, 3)
    assert (drawn[50:] == 255).all()
    edge, inside = drawn[39, 30], drawn[35, 30]
    assert (edge < 200).any()
    assert (edge < inside).any()
    assert (inside < 255).any()


def test_the_figure_counts_right_missed_and_false_objects(tmp_path: Path) -> None:
    pictures, objects = scenes(3)
    exact = [Found(one.boxes, one.labels, np.full(len(one), 0.9, np.float32), one.masks) for one in objects]
    nothing = Found(NOTHING.boxes, NOTHING.labels, np.zeros(0, np.float32), NOTHING.masks)
    path = tmp_path / "detections.png"
    box_figures.detections(pictures, objects, [exact[0], nothing, exact[2]], NAMES, ["a", "b", "c"], 0.5, path)
    with Image.open(path) as figure:
        assert figure.width > 800
        assert figure.mode == "P"
    box_figures.detections(pictures[:1, :, :, :1], [NOTHING], [nothing], NAMES, ["gray"], 0.5, path)


def test_what_cannot_be_built_is_refused_with_the_fix() -> None:
    with pytest.raises(
        ValueError, match=r"no detector 'retinanet_resnet5'; did you mean torchvision/retinanet_resnet50"
    ):
        build_network(architecture("torchvision/retinanet_resnet5"))
    with pytest.raises(ValueError, match=r"colour images only: set data\.channels=rgb"):
        build_network(architecture("torchvision/fasterrcnn_resnet50_fpn", channels=1))
    with pytest.raises(ValueError, match=r"at least 32 pixels, not 16x16: set a larger data\.image_size"):
        build_network(architecture("fasterrcnn", side=16))


def test_images_whose_boxes_would_be_mixed_are_refused() -> None:
    experiment = Experiment.model_validate({"model": {"network": "retinanet"}, "augmentation": {"mixup": 0.2}})
    network = build_network(architecture("retinanet"))
    unused: Any = None
    setup = Setup(network, architecture("retinanet"), experiment.model, unused, experiment, MEAN, STD)
    with pytest.raises(ConfigurationError, match=r"augmentation\.mixup mixes the classes of whole images"):
        detection.build(setup)
