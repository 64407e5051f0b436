"""A model bundle is whole, free of pickle, and gives the same answers wherever it lies."""

from __future__ import annotations

import dataclasses
import json
import pickletools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_images import encoded, pixels
from torch import nn

import recognition.scoring
from lightning_modules.networks import Architecture, build_network
from lightning_modules.training import NETWORKS_FOLDER
from recognition import bundle
from recognition.errors import ModelError

CLASSES = ["cat", "dog", "Käfer"]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
ARCHITECTURE = Architecture("cnn", 3, 12, 12, 3, channels=(4, 6), pooled_blocks=2, dense=(5,))


def description(architecture: Architecture = ARCHITECTURE, **changes: Any) -> dict[str, Any]:
    preprocessing = {"height": 12, "width": 12, "channels": 3, "resize": "crop", "mean": list(MEAN), "std": list(STD)}
    content = {
        "task": "classification",
        "architecture": dataclasses.asdict(architecture),
        "class_names": CLASSES,
        "threshold": 0.5,
        "preprocessing": preprocessing,
    }
    return content | changes


def network_of(architecture: Architecture = ARCHITECTURE, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = build_network(architecture)
    network(torch.randn(8, 3, 12, 12))  # statistics that are not the first ones
    return network.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return bundle.save(tmp_path / "model", description(), network_of().state_dict(), NETWORKS_FOLDER)


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    architecture = dataclasses.replace(ARCHITECTURE, outputs=1)
    content = description(architecture, class_names=["no", "yes"], threshold=0.3)
    return bundle.save(tmp_path / "binary", content, network_of(architecture).state_dict(), NETWORKS_FOLDER)


SOURCES = {"networks": NETWORKS_FOLDER, "scoring": Path(recognition.scoring.__file__).parent}
IMAGES = np.stack([pixels(seed) for seed in range(5)])


def by_hand(network: nn.Module) -> np.ndarray:
    images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255
    normalised = (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.inference_mode():
        return network(normalised).softmax(dim=1).numpy()


def test_a_loaded_bundle_answers_as_the_network_did(saved: Path) -> None:
    np.testing.assert_allclose(bundle.load(saved).probabilities(IMAGES), by_hand(network_of()), atol=1e-6)


def test_probabilities_sum_to_one(saved: Path, binary: Path) -> None:
    for path, classes in ((saved, 3), (binary, 2)):
        probabilities = bundle.load(path).probabilities(IMAGES)
        assert probabilities.shape == (5, classes)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-12)


def test_one_logit_is_the_probability_of_the_second_class(binary: Path) -> None:
    architecture = dataclasses.replace(ARCHITECTURE, outputs=1)
    images = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(
        STD
    ).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = torch.sigmoid(network_of(architecture)(images))[:, 0]
    np.testing.assert_allclose(bundle.load(binary).probabilities(IMAGES)[:, 1], expected.numpy(), atol=1e-6)


def test_it_works_from_a_moved_folder_when_the_original_is_gone(saved: Path, tmp_path: Path) -> None:
    before = bundle.load(saved).probabilities(IMAGES)
    moved = Path(shutil.move(saved, tmp_path / "elsewhere"))
    assert not saved.exists()
    np.testing.assert_array_equal(bundle.load(moved).probabilities(IMAGES), before)


def test_two_bundles_with_different_code_live_side_by_side(saved: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(saved, tmp_path / "other"))
    code = other / "networks" / "cnn.py"
    changed = code.read_text().replace("nn.ReLU(inplace=True)", "nn.Tanh()")
    assert changed != code.read_text()
    first = bundle.load(saved)
    before = first.probabilities(IMAGES)
    code.write_text(changed)
    different = bundle.load(other).probabilities(IMAGES)
    assert np.abs(different - before).max() > 1e-3
    np.testing.assert_array_equal(first.probabilities(IMAGES), before)
    np.testing.assert_array_equal(bundle.load(saved).probabilities(IMAGES), before)
    # other code at a place that was loaded from before
    shutil.copyfile(code, saved / "networks" / "cnn.py")
    np.testing.assert_array_equal(bundle.load(saved).probabilities(IMAGES), different)


def test_nothing_in_it_is_a_pickle_and_loading_adds_nothing(saved: Path) -> None:
    bundle.load(saved)
    files = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    parts = {"model.json", "weights.safetensors", "pixels.py"}
    code = {f"{name}/{path.name}" for name in ("scoring", "networks") for path in SOURCES[name].glob("*.py")}
    assert files == parts | code
    for name in files:
        with pytest.raises(ValueError):
            list(pickletools.genops((saved / name).read_bytes()))


def test_saving_replaces_an_older_bundle_and_leaves_nothing_beside_it(saved: Path) -> None:
    (saved / "left over").write_text("from before")
    bundle.save(saved, description(), network_of(seed=1).state_dict(), NETWORKS_FOLDER)
    np.testing.assert_allclose(bundle.load(saved).probabilities(IMAGES), by_hand(network_of(seed=1)), atol=1e-6)
    assert not (saved / "left over").exists()
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_save_that_fails_leaves_the_older_bundle(saved: Path) -> None:
    before = bundle.load(saved).probabilities(IMAGES)
    with pytest.raises(TypeError):
        bundle.save(saved, description(threshold=object()), network_of(seed=1).state_dict(), NETWORKS_FOLDER)
    np.testing.assert_array_equal(bundle.load(saved).probabilities(IMAGES), before)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_any_memory_order_and_shared_memory_are_saved(tmp_path: Path) -> None:
    network = network_of().to(memory_format=torch.channels_last)
    weights = network.state_dict()
    shared = weights["head.1.bias"]
    path = bundle.save(tmp_path / "model", description(), weights, NETWORKS_FOLDER)
    np.testing.assert_allclose(bundle.load(path).probabilities(IMAGES), by_hand(network), atol=1e-6)
    # `again` is the same memory
    bundle.save(tmp_path / "shared", description(), {**weights, "again": shared}, NETWORKS_FOLDER)


@pytest.mark.parametrize("part", ["model.json", "weights.safetensors", "scoring", "pixels.py", "networks"])
def test_a_missing_part_is_named(saved: Path, part: str) -> None:
    path = saved / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ModelError, match=part.partition(".")[0]) as caught:
        bundle.load(saved)
    assert str(saved) in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere is no whole model"):
        bundle.load(tmp_path / "nowhere")


def test_weights_of_another_architecture_are_refused(saved: Path) -> None:
    wider = description(dataclasses.replace(ARCHITECTURE, channels=(4, 7)))
    (saved / "model.json").write_text(json.dumps({"format": bundle.FORMAT, **wider}))
    with pytest.raises(ModelError, match="are not those of its architecture"):
        bundle.load(saved)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weights.safetensors", b"no weights"),
        ("weights.safetensors", b""),
        ("model.json", b"{"),
        ("model.json", b"\xff\xfe"),
        ("model.json", b"[]"),
        ("model.json", b"{}"),
        ("model.json", b'{"format": 2}'),
        ("model.json", b'{"format": 2, "class_names": [], "preprocessing": {}, "architecture": {"layers": 3}}'),
    ],
)
def test_a_damaged_part_is_refused(saved: Path, name: str, content: bytes) -> None:
    (saved / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        bundle.load(saved)
    assert str(saved) in str(caught.value)


def test_a_later_format_is_refused(saved: Path) -> None:
    (saved / "model.json").write_text(json.dumps({"format": 99, **description()}))
    with pytest.raises(ModelError, match="has format 99; this version reads 2"):
        bundle.load(saved)


# answers


def test_files_and_arrays_give_the_same_pixels(saved: Path) -> None:
    classifier = bundle.load(saved)
    image = pixels(3, 20, 30)
    from_array = classifier.prepare(image)
    assert from_array.shape == (12, 12, 3)
    assert from_array.dtype == np.uint8
    np.testing.assert_array_equal(classifier.prepare(encoded(image), "image.png"), from_array)


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 1), (12, 12, 3), (12, 12, 4), (40, 9, 3)])
def test_gray_colour_and_transparent_arrays_of_any_size_are_taken(saved: Path, shape: tuple[int, ...]) -> None:
    classifier = bundle.load(saved)
    prepared = classifier.prepare(np.full(shape, 200, np.uint8))
    assert classifier.probabilities(prepared[None]).shape == (1, 3)


def test_what_is_no_image_is_refused_by_name(saved: Path) -> None:
    classifier = bundle.load(saved)
    with pytest.raises(ValueError, match=r"letter\.jpg"):
        classifier.prepare(b"Dear Sir or Madam", "letter.jpg")
    with pytest.raises(ValueError, match="float"):
        classifier.prepare(np.zeros((12, 12, 3)))  # type: ignore[arg-type]


def test_the_threshold_decides_between_two_classes(binary: Path) -> None:
    classifier = bundle.load(binary)
    assert classifier.threshold == 0.3
    answers = [classifier.answer(np.array([1 - p, p])) for p in (0.29, 0.3, 0.45, 0.9)]
    assert [answer["label"] for answer in answers] == ["no", "yes", "yes", "yes"]
    assert [answer["confidence"] for answer in answers] == pytest.approx([0.71, 0.3, 0.45, 0.9])


def test_an_answer_names_the_likeliest_first(saved: Path) -> None:
    classifier = bundle.load(saved)
    answer = classifier.answer(np.array([0.2, 0.3, 0.5]))
    assert answer == {"label": "Käfer", "confidence": 0.5, "probabilities": {"Käfer": 0.5, "dog": 0.3, "cat": 0.2}}
    assert list(answer["probabilities"]) == ["Käfer", "dog", "cat"]
    assert list(classifier.answer(np.array([0.2, 0.3, 0.5]), top_k=2)["probabilities"]) == ["Käfer", "dog"]
