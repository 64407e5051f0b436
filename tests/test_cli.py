"""The command line: help without torch, one message and code 2 for a user's mistake, JSON on request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BIN, ROOT, SHARED_DATA, House
from sample_images import folder_of


def test_help_loads_neither_torch_nor_prefect_nor_mlflow() -> None:
    code = "import sys, flows.cli; print([m for m in ('torch', 'prefect', 'mlflow', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_names_the_commands(house: House) -> None:
    shown = house.run("--help").stdout
    for command in ("train", "audit", "data", "evaluate", "predict", "list", "doctor"):
        assert command in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "training.epoch=3"], "did you mean training.epochs?"),
        (["train", "nowhere.yaml"], "There is no experiment file nowhere.yaml"),
        (["train", "training.epochs=0"], "training.epochs: input should be greater than or equal to 1 (got 0)"),
        (["train", "extra", "words"], "There is no experiment file extra"),
        (["list", "pictures"], "'pictures' is none of datasets, networks, policies, experiments"),
        (["predict", "models:/none@champion", "nowhere.png"], "There is no image nowhere.png"),
        (["evaluate", "models:/none@champion", "training.epochs=2"], "only settings of the section evaluation"),
        (["audit", "digits", "training.epochs=2"], "only settings of the section data"),
        (["audit", "digits", "data.source=mnist"], "the source is the first argument"),
        (["audit", "nowhere"], "data.source 'nowhere' is no known data set"),
        (["data", "diff", "digits", "nowhere"], "is no run's id, no digest, no prepared folder and no source"),
    ],
)
def test_a_mistake_is_one_message_and_code_2(house: House, words: list[str], message: str) -> None:
    done = house.run(*words)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_unregistered_model_is_one_message_and_code_2(house: House, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(b"not looked at")
    done = house.run("predict", "models:/none@champion", str(image))
    assert done.returncode == 2
    assert "There is no model models:/none@champion" in done.stderr


@pytest.mark.server
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.source=digit", "digits"),
        ("data.source=/nowhere/at/all", "/nowhere/at/all"),
        ("model.network=timm/resnet1", "did you mean timm/resnet1"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_fetched(house: House, setting: str, message: str) -> None:
    done = house.run("train", setting)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "temporary server" not in done.stderr


def test_a_prefect_server_that_does_not_answer_is_named(house: House) -> None:
    done = house.run("train", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 2
    assert "The Prefect server http://127.0.0.1:9/api does not answer" in done.stderr


def test_a_state_folder_that_cannot_be_made_is_named(house: House, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = house.run("train", RECOGNITION_HOME=str(tmp_path / "file" / "state"))
    assert done.returncode == 2
    assert "RECOGNITION_HOME" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("datasets", ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"]),
        ("policies", ["auto", "none", "shift_rotate", "flip_crop", "photo", "strong"]),
        ("networks", ["cnn", "torchvision/resnet18", "timm/resnet18"]),
        ("experiments", ["experiments/digits_cnn.yaml", "experiments/cifar10_cnn.yaml"]),
    ],
)
def test_lists_name_what_can_be_chosen(house: House, what: str, names: list[str]) -> None:
    found = house.json("list", what)[what]
    assert set(names) <= set(found)
    assert what == "networks" or all(found.values())


def test_doctor_finds_this_machine_fit(house: House) -> None:
    found = house.json("doctor")
    assert found["ok"] is True
    assert {check["name"] for check in found["checks"]} >= {
        "python",
        "packages",
        "devices",
        "disk",
        "mlflow",
        "prefect",
    }


def test_doctor_names_a_server_that_does_not_answer(house: House) -> None:
    done = house.run(
        "doctor", "--json", PREFECT_API_URL="http://127.0.0.1:9/api", MLFLOW_TRACKING_URI="http://127.0.0.1:9"
    )
    assert done.returncode == 1
    checks = {check["name"]: check for check in json.loads(done.stdout.splitlines()[-1])["checks"]}
    assert not checks["mlflow"]["ok"]
    assert "does not answer" in checks["prefect"]["text"]


def test_the_readmes_commands_exist() -> None:
    """Every ``recognition`` command that the README shows is one the command line has."""
    shown = [
        line.split()[1] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("recognition ")
    ]
    helped = subprocess.run([BIN / "recognition", "--help"], capture_output=True, text=True, check=True).stdout
    assert shown
    assert [command for command in shown if command not in helped] == []


needs_real_images = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="../shared/data is absent")


@needs_real_images
def test_the_audit_names_photos_filed_under_two_flowers_and_identical_pairs(house: House) -> None:
    done = house.run("audit", str(SHARED_DATA / "flowers-128px.zip"))
    assert done.returncode == 0, done.stderr
    for name in ("15922772266_1167a06620", "17104364030_ee31ee279b_n", "17291451621_0e39f08b9e_n"):
        assert f"rose/{name}.jpg  =  tulip/{name}.jpg" in done.stdout
    assert "rose/17291930305_79deae6a90_n.jpg  =  tulip/17291930305_79deae6a90_n.jpg" in done.stdout
    assert "sunflower/14889392928_9742aed45b_m.jpg  =  sunflower/15066430311_fb57fa92b0_m.jpg" in done.stdout
    assert "sunflower/15069459615_7e0fd61914_n.jpg  =  sunflower/15072973261_73e2912ef2_n.jpg" in done.stdout
    assert "4317 images in 5 classes, 8 left out" in done.stdout


@needs_real_images
def test_the_audit_names_boxes_without_area_and_goes_on_where_they_may_be_left_out(house: House) -> None:
    source = str(SHARED_DATA / "bccd.zip")
    done = house.run("audit", source)
    assert done.returncode == 1, done.stderr
    for name in ("BloodImage_00338.jpg", "BloodImage_00343.jpg"):
        assert f"  {name} box" in done.stdout
    assert "data.audit.invalid_boxes=quarantine" in done.stdout
    mended = house.run("audit", source, "data.audit.invalid_boxes=quarantine")
    assert mended.returncode == 0, mended.stderr
    assert "364 images with boxes around objects of 3 classes, 0 left out" in mended.stdout


def test_why_data_cannot_be_used_is_said_on_the_terminal(house: House, tmp_path: Path) -> None:
    pets = folder_of(tmp_path / "pets", "cat", "dog", count=12)
    (pets / "cat" / "cut\x1b[31m.jpg").write_bytes(b"")
    done = house.run("audit", str(pets))
    assert done.returncode == 1
    assert "not usable The images cannot be used as they are." in done.stdout
    assert "is empty (0 bytes)" in done.stdout
    assert "data.audit.unreadable=quarantine" in done.stdout
    assert "\x1b" not in done.stdout
