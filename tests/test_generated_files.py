"""A generator answers the same from every door, and files are all there or none."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image
from sample_images import pixels

from lightning_modules.networks import Architecture, build_network
from lightning_modules.training import NETWORKS_FOLDER
from recognition import bundle, events, tracking
from recognition.errors import ConfigurationError, ModelError
from recognition.experiment import Experiment, Model
from recognition.generation import generate_files
from recognition.local_models import with_local_models
from recognition.scoring.generator import Generator, as_pixels, noise
from recognition.tiles import tiled
from tasks.watching import watching

CLASSES = ["cat", "T-shirt/top", "Käfer"]


def saved(folder: Path, channels: int = 3, conditional: bool = True, task: str = "generation") -> Path:
    torch.manual_seed(0)
    network = "dcgan" if task == "generation" else "cnn"
    architecture = Architecture(
        network, 3, 12, 10, channels, channels=(4,), units=4, code=5, conditional=conditional, neck="average"
    )
    built = build_network(architecture)
    if task == "generation":
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.mul_(20)  # images that differ
    description = {
        "task": task,
        "architecture": dataclasses.asdict(architecture),
        "class_names": CLASSES,
        "threshold": 0.5,
        "preprocessing": {
            "height": 12, "width": 10, "channels": channels, "resize": "crop", "mean": [0.5] * channels,
            "std": [0.5] * channels,
        },
    }  # fmt: skip
    return bundle.save(folder, description, built.state_dict(), NETWORKS_FOLDER)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("generator") / "model")


def loaded(folder: Path) -> Generator:
    generator: Any = bundle.load(folder)
    return generator  # type: ignore[no-any-return]


def decoded(answer: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["image"]))))


# what is made


def test_images_are_what_the_network_makes_of_the_seeds_noise(model: Path) -> None:
    generator = loaded(model)
    labels = np.array([0, 1, 2, 1])
    with torch.inference_mode():
        made = generator.network(torch.from_numpy(noise(4, 5, 7)), torch.from_numpy(labels))
    expected = (made.permute(0, 2, 3, 1).numpy() + 1) * 127.5
    images = generator.generate(labels, 7)
    assert images.shape == (4, 12, 10, 3)
    assert images.dtype == np.uint8
    # half a level of rounding
    assert np.abs(images - expected).max() <= 0.51
    assert images.std() > 10


def test_the_same_seed_gives_the_same_images_whatever_their_number(model: Path) -> None:
    generator = loaded(model)
    labels = np.arange(70) % 3
    many = generator.generate(labels, 3)
    np.testing.assert_array_equal(loaded(model).generate(labels, 3), many)
    for count in (1, 31, 33):
        np.testing.assert_array_equal(generator.generate(labels[:count], 3), many[:count])
    assert not np.array_equal(generator.generate(labels, 4), many)
    assert generator.generate(labels[:0], 3).shape == (0, 12, 10, 3)


def test_noise_depends_on_seed_stream_and_row_alone() -> None:
    np.testing.assert_array_equal(noise(9, 5, 1), noise(40, 5, 1)[:9])
    assert not np.array_equal(noise(9, 5, 1), noise(9, 5, 2))
    assert not np.array_equal(noise(9, 5, 1), noise(9, 5, 1, stream=1))
    drawn = noise(2000, 5, 0)
    assert abs(drawn.mean()) < 0.05
    assert abs(drawn.std() - 1) < 0.05


def test_the_ends_of_the_scale_are_black_and_white() -> None:
    images = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3)
    assert as_pixels(images).tolist() == [[[[0], [128], [255]]]]


def test_an_answer_is_the_label_and_a_png(model: Path) -> None:
    generator = loaded(model)
    answers = generator.made(["Käfer", "cat"], {"seed": 2})
    assert [answer["label"] for answer in answers] == ["Käfer", "cat"]
    np.testing.assert_array_equal(
        np.stack([decoded(answer) for answer in answers]), generator.generate(np.array([2, 0]), 2)
    )


def test_no_label_is_each_class_in_turn(model: Path) -> None:
    answers = loaded(model).made(["", None, float("nan"), ""], {})  # type: ignore[list-item]
    assert [answer["label"] for answer in answers] == [*CLASSES, "cat"]


@pytest.mark.parametrize("label", ["dog", 1, ["cat"]])
def test_an_unknown_class_is_refused_with_those_there_are(model: Path, label: Any) -> None:
    with pytest.raises(ValueError, match=r"there is no class .*; the generator makes: cat, T-shirt/top, Käfer"):
        loaded(model).made(["cat", label], {"seed": 0})


def test_a_seed_below_0_is_refused(model: Path) -> None:
    with pytest.raises(ValueError, match="seed must be 0 or more, not -1"):
        loaded(model).made(["cat"], {"seed": -1})


def test_a_generator_reads_no_images(model: Path) -> None:
    with pytest.raises(ValueError, match="a generator reads no images"):
        loaded(model).answers([pixels(0)], ["image"], {})


# the scoring server's code


@pytest.mark.filterwarnings("ignore:.*type hint")  # MLflow's own, as it is imported
def test_the_served_model_makes_the_same_images(model: Path) -> None:
    from recognition.served_model import ServedModel

    served: Any = ServedModel()
    served.load_context(type("Context", (), {"artifacts": {"bundle": str(model)}})())
    direct = loaded(model).made(["cat", "", "Käfer"], {"seed": 5})
    assert served.predict(None, pd.DataFrame({"label": ["cat", "", "Käfer"]}), {"seed": 5}) == direct
    # `inputs` arrive as one list of texts in one cell
    assert served.predict(None, pd.DataFrame({"label": [["cat", "", "Käfer"]]}), {"seed": 5}) == direct
    with pytest.raises(MlflowException, match="there is no class 'dog'"):
        served.predict(None, pd.DataFrame({"label": ["dog"]}))


# files


@pytest.mark.parametrize("channels", [1, 3])
def test_files_hold_what_the_generator_answers(tmp_path: Path, channels: int) -> None:
    folder = saved(tmp_path / "model", channels)
    result = generate_files(str(folder), 12, "", 4, tmp_path / "out")
    assert result["model"] == str(folder)
    names = [Path(image["image"]).name for image in result["images"]]
    assert names[:4] == ["00-cat.png", "01-T-shirt-top.png", "02-Käfer.png", "03-cat.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*names, "overview.png"])
    answers = loaded(folder).made([""] * 12, {"seed": 4})
    for image, answer in zip(result["images"], answers, strict=True):
        assert image["label"] == answer["label"]
        np.testing.assert_array_equal(np.asarray(Image.open(image["image"])), decoded(answer))
    # 10 a row, 5 times enlarged, with gaps of 2
    assert Image.open(result["overview"]).size == (10 * 52 + 2, 2 * 62 + 2)


def test_one_class_is_made_where_it_is_asked_for(model: Path, tmp_path: Path) -> None:
    result = generate_files(str(model), 3, "T-shirt/top", 0, tmp_path / "out")
    assert [image["label"] for image in result["images"]] == ["T-shirt/top"] * 3


def test_an_empty_folder_is_filled_and_a_full_one_left_alone(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    generate_files(str(model), 2, "", 0, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(before) == 3
    with pytest.raises(ConfigurationError, match=r"--output: .*out is there already, and nothing in it is replaced"):
        generate_files(str(model), 5, "", 1, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_nothing_is_left_of_what_fails(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr("recognition.generation.tiled", fail)
    with pytest.raises(RuntimeError, match="no more"):
        generate_files(str(model), 2, "", 0, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_class_is_refused_before_anything_is_written(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no class 'dog'; the generator makes: cat"):
        generate_files(str(model), 2, "dog", 0, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_asked_to_generate_is_refused(tmp_path: Path) -> None:
    classifier = saved(tmp_path / "model", task="classification")
    with pytest.raises(ModelError, match=r"is for classification and makes no images: recognition predict .*dcgan"):
        generate_files(str(classifier), 2, "", 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# the judge


def test_a_judge_that_is_not_registered_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(model: str) -> Path:
        raise ModelError(f"There is no model {model}.")

    monkeypatch.setattr("recognition.registry.fetch_bundle", none)
    with pytest.raises(ModelError, match=r"evaluation\.judge: There is no model models:/digits@champion\. .*train one"):
        with_local_models(Experiment(model=Model(network="dcgan")), "generation")


# pictures of a training


def test_tiles_lie_beside_and_below_each_other_on_white() -> None:
    images = np.stack([np.full((60, 70, 1), value, np.uint8) for value in (10, 20, 30)])
    sheet = tiled(images, 2)
    assert sheet.shape == (2 * 62 + 2, 2 * 72 + 2, 1)
    assert (sheet[2:62, 2:72] == 10).all()
    assert (sheet[2:62, 74:144] == 20).all()
    assert (sheet[64:124, 2:72] == 30).all()
    assert (sheet[62:64] == 255).all()
    assert (sheet[64:, 74:] == 255).all()


def test_small_images_are_enlarged_by_whole_pixels() -> None:
    image = pixels(0, 8, 8)
    sheet = tiled(image[None], 5)
    assert sheet.shape == (60, 60, 3)
    np.testing.assert_array_equal(sheet[2:58:7, 2:58:7], image)


def test_a_picture_is_logged_by_step(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "samples.png"
    Image.fromarray(pixels(0)).save(path)
    with tracking.tracked_run(Experiment(), {}) as run_id, watching(run_id, "train") as emit:
        for step in (1, 2):
            emit(events.Picture("samples", step, path))
    store: MlflowClient = tracking.client()
    names = [Path(item.path).name for item in store.list_artifacts(run_id, "images")]
    assert len([name for name in names if name.startswith("samples+step+1+") and name.endswith(".png")]) == 1
    assert len([name for name in names if name.startswith("samples+step+2+") and name.endswith(".png")]) == 1
    found = next(item.path for item in store.list_artifacts(run_id, "images") if item.path.endswith(".png"))
    np.testing.assert_array_equal(np.asarray(Image.open(store.download_artifacts(run_id, found))), pixels(0))
