"""Segmenters learn a batch by heart, answer in the size that was asked, and come back from disk as they were."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from object_images import instance_folder, scene
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_modules import evaluation, segmentation, training
from lightning_modules.data_module import ImageData, SplitDataset
from lightning_modules.freezing import depth_groups
from lightning_modules.networks import Architecture, build_network
from lightning_modules.segmentation import SegmentationLoss
from lightning_modules.setup import Setup
from recognition import bundle, datasets, policies, preparation
from recognition.errors import ConfigurationError
from recognition.experiment import Augmentation, Data, Experiment, Training
from recognition.objects import IGNORED
from recognition.records import PreparedData, TrainedModel
from recognition.scoring.segmenter import NOT_SEEN, Segmenter

SIDE = 32


def architecture(network: str = "unet", **settings: Any) -> Architecture:
    given = {"outputs": 2, "height": SIDE, "width": SIDE, "image_channels": 3} | settings
    return Architecture(network=network, **given)


def experiment(**sections: Any) -> Experiment:
    return Experiment.model_validate({"model": {"network": "unet", "width": 4, "depth": 2}} | sections)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """24 pictures of 32x32 pixels with a mask an object."""
    base = tmp_path_factory.mktemp("cells")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(base / "state"))
        return preparation.prepare(Data(source=str(instance_folder(base / "source", 24)), image_size=SIDE))


@pytest.fixture(scope="module")
def learned(cells: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A U-Net after three epochs."""
    folder = tmp_path_factory.mktemp("run")
    settings = experiment(training={"epochs": 3, "batch_size": 4, "learning_rate": 1e-2})
    policy = policies.augment(cells, settings.augmentation, 0, folder / "augmentation")
    return training.fit(cells, policy, settings, folder)


def loaded(model: TrainedModel) -> Segmenter:
    """The segmenter of a bundle, with the code in it."""
    return cast(Segmenter, bundle.load(model.bundle))


# networks


def by_hand(channels: int, outputs: int, widths: list[int], batch_norm: bool) -> int:
    """Parameters of a U-Net, counted layer by layer."""

    def convolution(incoming: int, outgoing: int) -> int:
        return 9 * incoming * outgoing + (2 * outgoing if batch_norm else outgoing)

    total, incoming = 0, channels
    for width in widths:
        total += convolution(incoming, width) + convolution(width, width)
        incoming = width
    for width in widths[:-1]:
        total += (4 * 2 * width * width + width) + convolution(2 * width, width) + convolution(width, width)
    return total + widths[0] * outputs + outputs


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_unet_has_the_parameters_counted_by_hand(batch_norm: bool) -> None:
    network = build_network(architecture(units=8, depth=3, batch_norm=batch_norm))
    assert sum(p.numel() for p in network.parameters()) == by_hand(3, 3, [8, 16, 32, 64], batch_norm)


def test_the_smallest_unet_is_counted_in_the_head() -> None:
    # down 1->1 and 1->1, 1->2 and 2->2; enlarge 2->1; up 2->1 and 1->1; head 1->2; each 3x3 with a bias
    expected = (10 + 10) + (20 + 38) + (8 + 1) + (19 + 10) + 4
    network = build_network(architecture(outputs=1, image_channels=1, units=1, depth=1, batch_norm=False))
    assert sum(p.numel() for p in network.parameters()) == expected == 120


def test_the_paper_has_31_million_parameters() -> None:
    # gray images, background and one class, no normalisation
    network = build_network(architecture(outputs=1, image_channels=1, units=64, depth=4, batch_norm=False))
    assert sum(p.numel() for p in network.parameters()) == 31_030_658


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (17, 64)])
def test_logits_have_the_size_of_the_images_whatever_it_is(height: int, width: int) -> None:
    network = build_network(architecture(height=height, width=width, units=2, depth=3)).eval()
    assert network(torch.randn(2, 3, height, width)).shape == (2, 3, height, width)


def test_what_is_added_to_uneven_sizes_is_cut_off_again() -> None:
    network = build_network(architecture(units=2, depth=2)).eval()
    image = torch.randn(1, 3, 30, 29)
    padded = torch.nn.functional.pad(image, (0, 3, 0, 2), mode="replicate")
    torch.testing.assert_close(network(image), network(padded)[..., :30, :29])


@pytest.mark.parametrize(("side", "depth", "most"), [(32, 5, 4), (10, 3, 2)])
def test_a_network_too_deep_for_the_images_is_refused_with_the_fix(side: int, depth: int, most: int) -> None:
    words = (
        rf"halves images {depth} times.*{side}x64 pixels: set model.depth to at most {most}, or set data.image_size to"
    )
    with pytest.raises(ValueError, match=words):
        build_network(architecture(height=side, width=64, depth=depth))
    build_network(architecture(height=side, width=64, depth=most, units=1))


def test_the_refusal_of_a_deep_network_names_the_setting(cells: PreparedData, tmp_path: Path) -> None:
    settings = experiment(model={"network": "unet", "depth": 6})
    policy = policies.augment(cells, settings.augmentation, 0, tmp_path)
    with pytest.raises(ConfigurationError, match=r"model\.network: unet halves images 6 times"):
        training.fit(cells, policy, settings, tmp_path)


@pytest.mark.parametrize(("side", "halvings"), [(8, 1), (32, 2), (64, 3), (128, 4), (512, 4)])
def test_an_open_depth_fits_the_images(side: int, halvings: int) -> None:
    network = build_network(architecture(height=side, width=side, units=1))
    assert sum(isinstance(module, nn.ConvTranspose2d) for module in network.modules()) == halvings


def test_stages_thaw_from_the_head_to_the_image() -> None:
    network = build_network(architecture(units=2, depth=2))
    names = {id(module): name for name, module in network.named_modules()}
    groups = [[names[id(module)] for module in group] for group in depth_groups(network)]
    assert groups == [["down.0"], ["down.1"], ["down.2"], ["up.0"], ["up.1"], ["head"]]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_networks_of_torchvision_give_logits_alone(name: str, channels: int) -> None:
    network = build_network(architecture(f"torchvision/{name}", height=64, width=64, image_channels=channels)).eval()
    logits = network(torch.zeros(1, channels, 64, 64))
    assert isinstance(logits, Tensor)
    assert logits.shape == (1, 3, 64, 64)


def test_weights_of_torchvision_keep_their_names() -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    theirs = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    ours = build_network(architecture("torchvision/lraspp_mobilenet_v3_large"))
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images)["out"])


def test_an_unknown_network_of_torchvision_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean torchvision/fcn_resnet50\?"):
        build_network(architecture("torchvision/fcn_resnet5"))
    with pytest.raises(ValueError, match=r"no dropout to set: leave model\.dropout out"):
        build_network(architecture("torchvision/lraspp_mobilenet_v3_large", dropout=0.1))


# loss


def test_the_loss_is_cross_entropy_plus_soft_dice() -> None:
    torch.manual_seed(0)
    logits, maps = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5), dtype=torch.uint8)
    p = logits.softmax(dim=1)
    dices = []
    for number in (1, 2):
        truth = maps == number
        both = sum(float(p[n, number, r, c]) for n, r, c in truth.nonzero().tolist())
        dices.append(2 * both / (float(p[:, number].sum()) + float(truth.sum())))
    expected = float(cross_entropy(logits, maps.long())) + 1 - sum(dices) / 2
    assert float(SegmentationLoss(2)(logits, maps)) == pytest.approx(expected, abs=1e-6)


def test_ignored_pixels_neither_count_nor_teach() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    maps = torch.randint(0, 2, (1, 4, 4), dtype=torch.uint8)
    maps[0, :2] = IGNORED
    loss = SegmentationLoss(1)(logits, maps)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, :2].any()
    assert logits.grad[:, :, 2:].all()
    seen_alone = SegmentationLoss(1)(logits[:, :, 2:], maps[:, 2:])
    torch.testing.assert_close(loss, seen_alone)
    assert SegmentationLoss(1)(logits, torch.full_like(maps, IGNORED)).item() == 0


def test_a_right_and_certain_answer_costs_nothing() -> None:
    maps = torch.tensor([[[0, 1], [2, 0]]], dtype=torch.uint8)
    certain = 40 * torch.nn.functional.one_hot(maps.long(), 3).movedim(-1, 1).float()
    assert float(SegmentationLoss(2)(certain, maps)) < 1e-6
    assert float(SegmentationLoss(1)(certain[:, :2], torch.zeros_like(maps))) < 20  # no class there: no Dice part


# learning


def test_one_batch_is_learned_by_heart() -> None:
    torch.manual_seed(0)
    scenes = [scene(number, SIDE) for number in range(4)]
    images = torch.from_numpy(np.stack([picture for picture, _ in scenes])).permute(0, 3, 1, 2).float() / 255
    maps = torch.zeros(4, SIDE, SIDE, dtype=torch.uint8)
    for own, (_, objects) in zip(maps, scenes, strict=True):
        for name, mask in objects:
            own[torch.from_numpy(mask)] = 1 + ["disc", "square"].index(name)
    network = build_network(architecture(units=8, depth=2))
    loss_of, optimizer = SegmentationLoss(2), torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss = loss_of(network(images), maps)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05
    assert torch.equal(network(images).argmax(dim=1).to(torch.uint8), maps)


def test_training_reports_dice_and_loss_each_epoch(learned: TrainedModel) -> None:
    assert learned.monitor == "val/dice_macro"
    assert set(learned.history) >= {"train/loss", "val/loss", "val/dice_macro", "val/iou_macro"}
    assert all(len(values) == 3 for values in learned.history.values())
    assert learned.history["train/loss"][-1] < learned.history["train/loss"][0]
    dice, iou = learned.history["val/dice_macro"], learned.history["val/iou_macro"]
    np.testing.assert_allclose(iou, [d / (2 - d) for d in dice], atol=1e-6, err_msg="of one class")


def test_a_network_of_torchvision_is_trained_and_answers(cells: PreparedData, tmp_path: Path) -> None:
    settings = experiment(
        model={"network": "torchvision/lraspp_mobilenet_v3_large"}, training={"epochs": 1, "batch_size": 10}
    )
    policy = policies.augment(cells, settings.augmentation, 0, tmp_path / "augmentation")
    answer = loaded(training.fit(cells, policy, settings, tmp_path)).answers([scene(0, 40)[0]], ["a.png"], {})[0]
    assert mask_of(answer).shape == (40, 40)


def test_validation_scores_are_those_of_all_pixels_together(cells: PreparedData, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = experiment(training={"epochs": 1, "batch_size": 2})
    network = build_network(architecture(outputs=1, units=2, depth=1, image_channels=cells.channels))
    setup = Setup(
        network, architecture(), settings.model, cells, settings, (0.5,) * cells.channels, (0.5,) * cells.channels
    )
    module = segmentation.build(setup).eval()
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    said = trainer.validate(module, ImageData(cells.path, None, 2, 0, task="segmentation"), verbose=False)[0]
    val = datasets.open_arrays(cells.path).split("val")
    everything = np.arange(len(val))
    with torch.no_grad():
        found = module(torch.from_numpy(val.batch(everything)).permute(0, 3, 1, 2)).argmax(dim=1).numpy() == 1
    truth = val.class_maps(everything) == 1
    assert said["val/iou_macro"] == pytest.approx((found & truth).sum() / (found | truth).sum(), abs=1e-6)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"augmentation": {"mixup": 0.2}}, "augmentation.mixup mixes classes of whole images"),
        ({"augmentation": {"cutmix": 1.0}}, "augmentation.cutmix mixes classes of whole images"),
        ({"training": {"class_weights": "balanced"}}, "training.class_weights=balanced weighs classes of whole images"),
    ],
)
def test_what_is_for_whole_images_is_refused(cells: PreparedData, sections: dict[str, Any], words: str) -> None:
    settings = experiment(**sections)
    setup = Setup(nn.Identity(), architecture(), settings.model, cells, settings, (0.5,), (0.5,))
    with pytest.raises(ConfigurationError, match=words):
        segmentation.build(setup)


# batches


def test_a_batch_has_a_class_map_for_each_image(cells: PreparedData, tmp_path: Path) -> None:
    policy = policies.augment(cells, Augmentation(transforms=({"HorizontalFlip": {"p": 1.0}},)), 0, tmp_path)
    keys = [((0, position), 4) for position in (3, 1, 0, 2)]
    plain = SplitDataset(cells.path, "train", task="segmentation")[keys]
    flipped = SplitDataset(cells.path, "train", policy.path, task="segmentation")[keys]
    assert plain.maps is not None
    assert flipped.maps is not None
    assert plain.maps.dtype == torch.uint8
    assert plain.maps.shape == (4, SIDE, SIDE)
    assert torch.equal(flipped.maps, plain.maps.flip(-1))
    assert torch.equal(flipped.images, plain.images.flip(-1))
    moved = flipped.to(torch.device("cpu")).maps
    assert moved is not None
    assert torch.equal(moved, flipped.maps)


def test_a_batch_has_the_objects_of_each_image(cells: PreparedData, tmp_path: Path) -> None:
    policy = policies.augment(cells, Augmentation(transforms=({"HorizontalFlip": {"p": 1.0}},)), 0, tmp_path)
    keys = [((0, position), 4) for position in range(4)]
    plain = SplitDataset(cells.path, "train", task="instance_segmentation")[keys]
    flipped = SplitDataset(cells.path, "train", policy.path, task="instance_segmentation")[keys].to(torch.device("cpu"))
    assert plain.objects is not None
    assert flipped.objects is not None
    assert plain.maps is None
    for before, after in zip(plain.objects, flipped.objects, strict=True):
        left, top, right, bottom = before["boxes"].T
        torch.testing.assert_close(after["boxes"], torch.stack([SIDE - right, top, SIDE - left, bottom], dim=1))
        assert torch.equal(after["masks"], before["masks"].flip(-1))
        assert torch.equal(after["labels"], before["labels"])
        assert before["boxes"].dtype == torch.float32
        assert before["labels"].dtype == torch.int64
        assert before["masks"].dtype == torch.uint8
    boxes = SplitDataset(cells.path, "train", policy.path, task="detection")[keys].objects
    assert boxes is not None
    assert set(boxes[0]) == {"boxes", "labels"}


def test_a_policy_without_box_parameters_is_refused_before_training(cells: PreparedData, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(policies.to_json(policies.build(policies.presets()["photo"], SIDE, SIDE)))
    for task in ("detection", "instance_segmentation"):
        with pytest.raises(ConfigurationError, match=r"policy\.json has no box parameters.*Build it anew"):
            ImageData(cells.path, path, 4, 0, task=task)  # type: ignore[arg-type]  # one of the tasks
    ImageData(cells.path, path, 4, 0, task="segmentation")


def test_a_policy_that_leaves_no_object_in_sight_is_refused(cells: PreparedData, tmp_path: Path) -> None:
    away = {"Affine": {"translate_percent": {"x": [0.97, 0.97], "y": [0.97, 0.97]}, "p": 1.0}}
    with pytest.raises(ConfigurationError, match="the policy custom leaves none in sight"):
        policies.augment(cells, Augmentation(transforms=(away,)), 0, tmp_path)


def test_the_preview_shows_objects(cells: PreparedData, tmp_path: Path) -> None:
    policy = policies.augment(cells, Augmentation(), 0, tmp_path)
    assert policy.name == "objects"
    with Image.open(policy.preview) as preview:
        assert preview.size[0] > 500


# the model as it is used


def test_a_saved_model_predicts_the_same(learned: TrainedModel, cells: PreparedData) -> None:
    segmenter = loaded(learned)
    checkpoint = training.network_weights(learned.path / "checkpoints" / "best.ckpt")
    network = build_network(
        dataclasses.replace(architecture(outputs=1, units=4, depth=2), image_channels=cells.channels)
    ).eval()
    network.load_state_dict(checkpoint)
    images = datasets.open_arrays(cells.path).split("test").batch(np.arange(3))
    with torch.no_grad():
        expected = network(segmenter.normalised(images)).softmax(dim=1).numpy()
    np.testing.assert_allclose(segmenter.probabilities(images), expected, atol=1e-6)


def test_the_bundle_holds_no_pickle(learned: TrainedModel) -> None:
    assert not [path.name for path in learned.bundle.rglob("*") if path.suffix in (".pkl", ".pt", ".pth", ".ckpt")]


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def mask_of(answer: dict[str, Any]) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(answer["mask"]))) as image:
        return np.array(image)


def with_resize(learned: TrainedModel, how: str) -> Segmenter:
    segmenter = loaded(learned)
    segmenter.preprocessing = {**segmenter.preprocessing, "resize": how}
    return segmenter


@pytest.mark.parametrize("how", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(32, 32), (50, 90), (91, 40), (20, 17)])
def test_a_mask_has_the_size_of_the_image_it_is_for(learned: TrainedModel, how: str, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    segmenter = with_resize(learned, how)
    answer = segmenter.answers([png(image)], ["a.png"], {})[0]
    mask = mask_of(answer)
    assert mask.shape == size
    assert list(answer["shares"]) == ["background", *segmenter.class_names]
    assert sum(answer["shares"].values()) == pytest.approx(1)
    seen = mask != NOT_SEEN
    assert answer["shares"]["background"] == pytest.approx((mask[seen] == 0).mean())
    assert seen.all() or (how == "crop" and size[0] != size[1])


def test_pixels_that_were_cropped_are_marked_as_not_seen(learned: TrainedModel) -> None:
    segmenter = with_resize(learned, "crop")
    mask = segmenter._mask(np.stack([np.zeros((SIDE, SIDE)), np.ones((SIDE, SIDE))]).astype(np.float32), 40, 100)
    assert (mask[:, 30:70] == 1).all()
    assert (mask[:, :30] == NOT_SEEN).all()
    assert (mask[:, 70:] == NOT_SEEN).all()


@pytest.mark.parametrize("how", ["crop", "pad", "stretch"])
def test_a_square_is_found_where_it_lies_in_the_image_as_it_came(learned: TrainedModel, how: str) -> None:
    segmenter = with_resize(learned, how)
    original = np.zeros((48, 80, 1), np.uint8)
    original[16:32, 32:48] = 255
    prepared = segmenter.pixels.prepare_array(original, SIDE, SIDE, 1, how)[:, :, 0] / 255
    mask = segmenter._mask(np.stack([1 - prepared, prepared]).astype(np.float32), 48, 80)
    expected = original[:, :, 0] > 0
    found = (mask == 1) & (mask != NOT_SEEN)
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9


def test_an_answer_is_the_same_for_a_file_and_its_pixels_alone_and_in_company(learned: TrainedModel) -> None:
    segmenter = loaded(learned)
    images = [scene(number, 40)[0] for number in range(3)]
    together = segmenter.answers(images, ["a", "b", "c"], {})
    assert segmenter.answers([png(images[1])], ["b"], {})[0] == together[1]


def test_what_is_no_image_is_refused_by_name(learned: TrainedModel) -> None:
    with pytest.raises(ValueError, match=r"cat\.txt is text, not an image"):
        loaded(learned).answers([b"no image"], ["cat.txt"], {})


# evaluation


def test_evaluation_scores_each_class_and_shows_the_worst(
    learned: TrainedModel, cells: PreparedData, tmp_path: Path
) -> None:
    settings = experiment(evaluation={"examples": 3, "batch_size": 2})
    scores = evaluation.evaluate(cells, learned.bundle, settings.evaluation, tmp_path, learned.history)
    name = cells.class_names[0]
    assert set(scores.metrics) == {
        f"test/{score}"
        for score in (
            "dice_macro", "iou_macro", "pixel_accuracy", "dice_per_image", f"dice/{name}", f"iou/{name}",
        )
    }  # fmt: skip
    test = datasets.open_arrays(cells.path).split("test")
    everything = np.arange(len(test))
    found = loaded(learned).class_maps(test.batch(everything)) == 1
    truth = test.class_maps(everything) == 1
    expected = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert scores.metrics["test/dice_macro"] == pytest.approx(expected)
    lines = (tmp_path / "per_image.csv").read_text().splitlines()
    assert len(lines) == 1 + len(test)
    dices = [float(line.split(",")[1]) for line in lines[1:]]
    assert dices == sorted(dices)
    assert (tmp_path / "per_class.csv").read_text().splitlines()[1].startswith("background,")
    assert (tmp_path / "figures" / "overlays.png").read_bytes().startswith(b"\x89PNG")


def test_training_settings_of_pixels_reach_the_loss() -> None:
    assert Training(loss="focal").focal_gamma == 2.0
    logits, maps = torch.randn(1, 2, 4, 4), torch.ones(1, 4, 4, dtype=torch.uint8)
    assert float(SegmentationLoss(1, 2.0)(logits, maps)) < float(SegmentationLoss(1)(logits, maps))
