"""A registered model names planted wrong labels among the images that it was not trained on, and judges no others."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sample_images import encoded, folder_of, write
from sklearn.datasets import load_digits

from recognition import bundle, label_check, preparation, registry, tracking, versions
from recognition.data_settings import Data
from recognition.errors import DataError, ModelError, TrackingError
from recognition.label_check import with_wrong_labels
from recognition.records import AuditedData, Finding, Located

pytestmark = pytest.mark.server

PLANTED = 20


@dataclass(frozen=True)
class Digits:
    """The digits in class folders, as the shared run knows them."""

    folder: Path
    learned: set[str]
    """The files of the run's training images."""
    planted: set[str]
    """Files of other images, in the folder of the wrong class."""


def digits_in(folder: Path, run_id: str, splits: tuple[str, ...], wrong: int) -> Digits:
    """Write those digits as PNGs that the run has in some splits; ``wrong`` of its test images into a wrong folder."""
    table = versions.read_samples(tracking.samples_of(run_id))
    images = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    tested = [index for index, split in enumerate(table.split) if split == "test"]
    chosen = set(np.random.default_rng(0).choice(tested, wrong, replace=False).tolist())
    learned, planted = set(), set()
    for index, (name, split) in enumerate(zip(table.class_names, table.split, strict=True)):
        if split not in splits:
            continue
        shown = str((int(name) + 5) % 10) if index in chosen else name
        write(folder / shown / f"{index:04d}.png", encoded(Image.fromarray(images[index])))
        if split == "train":
            learned.add(f"{shown}/{index:04d}.png")
        if index in chosen:
            planted.add(f"{shown}/{index:04d}.png")
    return Digits(folder, learned, planted)


@pytest.fixture
def digits(in_house: dict[str, Any], tmp_path: Path) -> Digits:
    return digits_in(tmp_path / "digits", in_house["run_id"], ("train", "val", "test"), PLANTED)


def examined(source: Path, **settings: object) -> tuple[Data, Located, AuditedData]:
    data = Data.model_validate({"source": str(source), **settings})
    located = preparation.locate(data)
    return data, located, preparation.examine(data, located)


def finding_of(audited: AuditedData) -> Finding:
    (finding,) = [finding for finding in audited.findings if finding.kind == "likely_wrong_labels"]
    return finding


def test_planted_wrong_labels_are_named_and_learned_images_are_not_judged(
    in_house: dict[str, Any], digits: Digits
) -> None:
    first = examined(digits.folder)
    told: list[tuple[int, int, str]] = []
    audited = with_wrong_labels(*first, "models:/digits@champion", lambda *args: told.append(args))
    finding = finding_of(audited)
    named = set(finding.files)
    # the model has had two epochs, and is right about nine of ten digits; by chance not one would be named
    assert len(named & digits.planted) >= PLANTED / 2
    assert len(named & digits.planted) >= len(named) / 2
    assert not named & digits.learned
    judged = told[-1][1]
    assert told[-1] == (judged, judged, "judging labels")
    used = versions.read_samples(audited.path / versions.SAMPLES)
    others = [
        name for name, split in zip(used.sample_ids, used.split, strict=True) if split and name not in digits.learned
    ]
    assert judged == len(others)
    assert finding.count == len(named)
    assert finding.message.startswith(f"{finding.count} of {judged} images that models:/digits@champion was not")
    wrong, filed, looks = re.findall(r"(\S+) is filed as (\d), looks like (\d)", finding.message)[0]
    assert (wrong, filed) == (finding.files[0], finding.files[0][0])
    assert looks != filed


def test_the_report_stands_beside_the_first_and_is_whole(in_house: dict[str, Any], digits: Digits) -> None:
    data, located, first = examined(digits.folder)
    before = {path.name: path.read_bytes() for path in first.path.iterdir()}
    audited = with_wrong_labels(data, located, first, in_house["run_id"])
    assert audited.path != first.path
    assert {path.name: path.read_bytes() for path in first.path.iterdir()} == before
    assert {path.name for path in audited.path.iterdir()} == before.keys()
    assert audited.is_whole()
    assert (audited.path / versions.SAMPLES).read_bytes() == before[versions.SAMPLES]
    assert [finding.kind for finding in audited.findings] == [
        *(finding.kind for finding in first.findings),
        "likely_wrong_labels",
    ]
    assert audited.model_copy(update={"path": first.path, "findings": first.findings}) == first
    report = (audited.path / "report.html").read_text()
    assert finding_of(audited).files[0] in report
    kinds = [finding["kind"] for finding in json.loads((audited.path / "audit.json").read_text())["findings"]]
    assert "likely_wrong_labels" in kinds
    again = with_wrong_labels(data, located, first, "digits")
    assert again.path == audited.path, "its champion is of the same run"
    assert finding_of(again).files == finding_of(audited).files


def test_images_of_another_size_and_in_colour_are_judged_at_the_models_size(
    in_house: dict[str, Any], tmp_path: Path
) -> None:
    digits = digits_in(tmp_path / "digits", in_house["run_id"], ("test",), PLANTED)
    for path in digits.folder.rglob("*.png"):
        image = Image.open(path).convert("RGB").resize((24, 24), Image.Resampling.BILINEAR)
        write(path, encoded(image))
    audited = with_wrong_labels(*examined(digits.folder, channels="rgb"), "digits")
    assert len(set(finding_of(audited).files) & digits.planted) >= PLANTED / 2


def test_an_image_is_judged_as_by_the_models_own_run(
    in_house: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = digits_in(tmp_path / "digits", in_house["run_id"], ("test",), 0)
    seen: list[np.ndarray] = []

    def kept(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        seen.append(probabilities)
        return np.zeros(0, np.int64)

    monkeypatch.setattr(label_check, "suspicious", kept)
    audited = with_wrong_labels(*examined(digits.folder), "digits")
    used = versions.read_samples(audited.path / versions.SAMPLES)
    places = [int(Path(name).stem) for name, split in zip(used.sample_ids, used.split, strict=True) if split]
    scored = tracking.client().download_artifacts(in_house["run_id"], "evaluation/predictions.parquet")
    expected = pd.read_parquet(scored).set_index("sample_id")
    names = versions.read_samples(tracking.samples_of(in_house["run_id"])).sample_ids
    columns = [f"probability/{name}" for name in audited.class_names]
    np.testing.assert_allclose(seen[0], expected.loc[[names[place] for place in places], columns], atol=1e-5)


def test_classes_in_another_order_are_the_same_classes(
    in_house: dict[str, Any], digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = examined(digits.folder)
    expected = with_wrong_labels(*first, "digits")
    load = bundle.load

    def turned(folder: Path, device: str = "cpu") -> Any:
        classifier = load(folder, device)
        probabilities = classifier.probabilities
        classifier.class_names = classifier.class_names[::-1]
        classifier.probabilities = lambda images: probabilities(images)[:, ::-1]  # type: ignore[method-assign]
        return classifier

    monkeypatch.setattr(bundle, "load", turned)
    assert with_wrong_labels(*first, "digits") == expected


def test_a_model_of_other_classes_is_refused(in_house: dict[str, Any], tmp_path: Path) -> None:
    pets = folder_of(tmp_path / "pets", "cat", "dog", count=10)
    with pytest.raises(
        DataError, match=r"knows the classes 0, 1, .* the images are of cat, dog: take a model of these"
    ):
        with_wrong_labels(*examined(pets), "digits")


def test_a_model_that_was_trained_on_all_the_images_is_refused(in_house: dict[str, Any], tmp_path: Path) -> None:
    digits = digits_in(tmp_path / "digits", in_house["run_id"], ("train",), 0)
    data, located, first = examined(digits.folder)
    with pytest.raises(DataError, match=f"model of run {in_house['run_id']} was trained on all these images"):
        with_wrong_labels(data, located, first, "digits")
    assert [path.name for path in first.path.parent.glob(f"{first.path.name}-*")] == []


def test_right_labels_of_few_sure_images_give_no_names(
    in_house: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = digits_in(tmp_path / "digits", in_house["run_id"], ("test",), 0)
    classifier = bundle.load(registry.fetch_bundle("digits"))
    for path in digits.folder.rglob("*.png"):  # keep what the model is right about
        pixels = np.array(Image.open(path))[:, :, np.newaxis]
        if classifier.probabilities(classifier.prepare(pixels)[np.newaxis])[0].argmax() != int(path.parent.name):
            path.unlink()
    finding = finding_of(with_wrong_labels(*examined(digits.folder), "digits"))
    assert (finding.count, finding.files) == (0, ())
    assert re.fullmatch(
        r"None of \d+ images that digits was not trained on has likely a wrong label\.", finding.message
    )


def test_a_model_that_is_not_there_is_named(in_house: dict[str, Any], digits: Digits, tmp_path: Path) -> None:
    first = examined(digits.folder)
    with pytest.raises(ModelError, match="no model cats"):
        with_wrong_labels(*first, "cats")
    with pytest.raises(TrackingError, match="no run " + "a" * 32):
        with_wrong_labels(*first, "a" * 32)
    with pytest.raises(ModelError, match="no model"):
        with_wrong_labels(*first, str(registry.fetch_bundle("digits")))
