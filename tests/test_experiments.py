"""Experiments on real images, as a user runs them, with the image sets of ``../shared/data`` beside the checkout."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, SHARED_DATA, House

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server,
    pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"the image sets are not at hand: no folder {SHARED_DATA}"),
]


MIRROR = f"data.mirror={SHARED_DATA}"
FASHION = ["data.source=fashion_mnist", MIRROR]
BCCD, NUCLEI, FLOWERS = (f"data.source={SHARED_DATA / name}.zip" for name in ("bccd", "nuclei-256px", "flowers-128px"))


# in this order: the GAN is judged by the first, the probe stands on the autoencoder
@pytest.mark.parametrize(
    ("experiment", "settings", "score", "least"),
    [
        ("fashion_mnist_cnn", [MIRROR], "accuracy", 0.91),
        ("mnist_rnn", FASHION, "accuracy", 0.87),
        ("fashion_mnist_cnn_rnn", [MIRROR], "accuracy", 0.9),
        ("fashion_mnist_vit", [MIRROR], "accuracy", 0.87),
        ("flowers_cnn", [FLOWERS], "accuracy", 0.69),
        ("fashion_mnist_autoencoder", [MIRROR], "psnr", 21),
        ("fashion_mnist_probe", [MIRROR], "accuracy", 0.82),
        ("fashion_mnist_gan", [MIRROR], "recognised", 0.85),
        ("bccd_detection", [BCCD], "map_50", 0.6),
        ("nuclei_unet", [NUCLEI], "dice_macro", 0.85),
        ("nuclei_maskrcnn", [NUCLEI], "mask_map_50", 0.5),
    ],
)
def test_an_experiment_reaches_its_score(
    house: House, experiment: str, settings: list[str], score: str, least: float
) -> None:
    patient = replace(house, patience=3600)
    result = patient.json("train", str(ROOT / "experiments" / f"{experiment}.yaml"), *settings)
    assert result["metrics"][f"test/{score}"] >= least
    assert result["model"]["aliases"]


def test_an_archive_of_photographs_trains_with_nothing_else_given(house: House) -> None:
    result = house.json("train", f"data.source={SHARED_DATA / 'flowers-128px.zip'}")
    assert result["metrics"]["data/classes"] == 5
    # a guess would be right for a quarter of them
    assert result["metrics"]["test/accuracy"] >= 0.6
    assert result["model"]["name"] == "flowers-128px"


def test_a_two_class_folder_trains_the_binary_network(house: House, tmp_path: Path) -> None:
    with zipfile.ZipFile(SHARED_DATA / "flowers-128px.zip") as archive:
        for name in archive.namelist():
            if name.startswith(("flowers/daisy/", "flowers/tulip/")):
                archive.extract(name, tmp_path)
    experiment = str(ROOT / "experiments" / "binary_cnn_64.yaml")
    result = house.json("train", experiment, f"data.source={tmp_path / 'flowers'}", "training.epochs=8")
    assert result["metrics"]["test/accuracy"] >= 0.75
