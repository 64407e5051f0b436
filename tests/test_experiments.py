"""Experiments on real images, as a user runs them, with the image sets of ``../shared/data`` beside the checkout."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, SHARED_DATA, House

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server,
    pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"the image sets are not at hand: no folder {SHARED_DATA}"),
]


def test_fashion_mnist_through_the_download_path_reaches_0_90(house: House) -> None:
    experiment = str(ROOT / "experiments" / "fashion_mnist_cnn.yaml")
    result = house.json("train", experiment, f"data.mirror={SHARED_DATA}")
    assert result["metrics"]["test/accuracy"] >= 0.90
    assert result["model"]["name"] == "fashion_mnist"


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
