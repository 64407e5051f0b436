"""The command line: help without torch, one message and code 2 for a user's mistake, JSON on request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BIN, ROOT, House


def test_help_loads_neither_torch_nor_prefect_nor_mlflow() -> None:
    code = "import sys, flows.cli; print([m for m in ('torch', 'prefect', 'mlflow', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_names_the_commands(house: House) -> None:
    shown = house.run("--help").stdout
    for command in ("train", "evaluate", "predict", "list", "doctor"):
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
        ("augmentation.transforms=[{HorizontalFlop: {}}]", "did you mean HorizontalFlip?"),
        ("model.weights=/nowhere.safetensors", "there is no file /nowhere.safetensors"),
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
