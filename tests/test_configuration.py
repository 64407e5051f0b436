"""The experiment: defaults, files, overrides, refusals that name the setting and the fix."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from recognition.configuration import json_schema, load_experiment, to_yaml
from recognition.errors import ConfigurationError
from recognition.experiment import Audit, Experiment, Limits
from recognition.section import Section

EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))


def sections(model: type[BaseModel] = Experiment) -> list[type[Section]]:
    inner = [field.annotation for field in model.model_fields.values()]
    return [kind for kind in inner if isinstance(kind, type) and issubclass(kind, Section)]


def test_there_is_one_section_a_stage() -> None:
    names = [kind.__name__ for kind in sections()]
    assert names == ["Data", "Augmentation", "Model", "Training", "Evaluation", "Registration"]


@pytest.mark.parametrize("section", [*sections(), Audit, Limits], ids=lambda section: section.__name__)
def test_every_field_says_what_it_is_and_is_plain_in_a_form(section: type[Section]) -> None:
    whole = section.model_json_schema()
    for name, schema in whole["properties"].items():
        if "$ref" in schema:  # a section in the section, shown as a box of its own with its description
            schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
        assert len(schema["description"]) > 15, name
        assert "anyOf" not in schema, f"{name} is a union, which forms render badly"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_file_is_valid_and_named_as_its_file(path: Path) -> None:
    assert load_experiment(path).name == path.stem
    assert path.read_text().startswith("# ")


def test_the_embedded_experiment_is_the_default_one() -> None:
    assert load_experiment(ROOT / "experiments" / "digits_cnn.yaml").digest == Experiment().digest


def test_overrides_win_over_the_file_and_are_read_as_yaml() -> None:
    words = [
        "training.epochs=3",
        "seed=7",
        "model.channels=[8, 16]",
        "training.learning_rate=1e-3",
        "model.batch_norm=on",
    ]
    experiment = load_experiment(ROOT / "experiments" / "mnist_cnn.yaml", words)
    assert (experiment.training.epochs, experiment.seed, experiment.model.channels) == (3, 7, (8, 16))
    assert experiment.training.learning_rate == 1e-3
    assert experiment.model.batch_norm is True
    assert experiment.data.source == "mnist"


def test_yaml_reads_back_equal() -> None:
    experiment = load_experiment(None, ["augmentation.transforms=[{HorizontalFlip: {p: 0.5}}]", "model.dense=[3]"])
    assert Experiment.model_validate(__import__("yaml").safe_load(to_yaml(experiment))) == experiment


def test_the_digest_ignores_the_name_and_nothing_else() -> None:
    base = Experiment()
    assert load_experiment(None, ["name=other"]).digest == base.digest
    assert load_experiment(None, ["seed=1"]).digest != base.digest
    assert load_experiment(None, ["evaluation.top_k=3"]).digest != base.digest


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("training.epoch=3", ["training.epoch", "did you mean training.epochs?"]),
        ("training.lr=0.1", ["training.lr", "did you mean training.learning_rate?"]),
        ("epochs=3", ["epochs", "did you mean training.epochs?"]),
        ("trainig.epochs=3", ["trainig", "did you mean training?"]),
        ("training.epochs=0", ["training.epochs", "greater than or equal to 1", "got 0"]),
        ("training.epochs=many", ["training.epochs", "valid integer", "'many'"]),
        (
            "training.optimizer=adamm",
            ["training.optimizer", "'adamm' is none of adam, adamw, sgd", "did you mean adam"],
        ),
        ("model.network=cn", ["model.network", "'cn' is none of", "did you mean 'cnn'?"]),
        ("model.network=unett", ["model.network", "did you mean 'unet'?"]),
        ("model.channels=[0]", ["model.channels", "from 1 to 4096"]),
        ("data.test_fraction=1.5", ["data.test_fraction", "less than 0.9", "1.5"]),
        ("data.checksum=abc", ["data.checksum", "sha256:<64 hex digits>"]),
        ("augmentation.mixup=-1", ["augmentation.mixup", "greater than or equal to 0"]),
        ("registration.model_name=a/b", ["registration.model_name", "must not hold '/'"]),
        ("training", ["'training' is no setting", "section.key=value"]),
        ("seed.inner=1", ["seed"]),
    ],
)
def test_a_wrong_setting_is_refused_by_name_with_the_fix(word: str, parts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load_experiment(None, [word])
    for part in parts:
        assert part in str(refusal.value)


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load_experiment(None, ["training.epochs=0", "data.sorce=x", "model.dropout=2"])
    assert [line.split(":")[0] for line in str(refusal.value).splitlines()] == [
        "data.sorce",
        "model.dropout",
        "training.epochs",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "There is no experiment file"),
        ("a: [", "is no YAML"),
        ("- 1", "must hold sections"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(tmp_path: Path, content: str | bytes | None, reason: str) -> None:
    path = tmp_path / "experiment.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError, match=reason):
        load_experiment(path)


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_word_ends_in_another_error(key: str, value: str) -> None:
    with suppress(ConfigurationError):
        assert load_experiment(None, [f"{key}={value}"])


def test_the_flows_parameters_are_the_experiment_with_its_defaults() -> None:
    from flows.training import train

    schema = train.parameters.model_dump()
    assert list(schema["properties"]) == [*Experiment.model_fields, "fresh"]
    assert schema.get("required", []) == []
    for name, default in Experiment().model_dump(mode="json").items():
        assert schema["properties"][name]["default"] == default
    assert schema["definitions"]["Training"]["properties"]["optimizer"]["enum"] == ["adam", "adamw", "sgd"]


def test_sections_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Experiment().training.epochs = 3  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("digits", "digits"),
        ("../shared/data/flowers-128px.zip", "flowers-128px"),
        ("https://example.org/a/birds.tar.gz?x=1", "birds"),
        ("/data/my flowers/", "my-flowers"),
    ],
)
def test_the_model_is_named_after_the_data(source: str, name: str) -> None:
    experiment = load_experiment(None, [f"data.source={source}"])
    assert experiment.registered_name("classification") == name
    assert experiment.registered_name("segmentation") == f"{name}-segmenter"
    named = load_experiment(None, [f"data.source={source}", "registration.model_name=mine"])
    assert named.registered_name("segmentation") == "mine"


def test_generated_files_are_fresh() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (ROOT / "experiments" / "schema.json").read_text() == json_schema()


def test_a_section_given_as_a_value_and_a_fold_without_folds_say_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match=r"data.audit: is a section .* such as data.audit.unreadable"):
        load_experiment(None, ["data.audit=quarantine"])
    with pytest.raises(ConfigurationError, match=r"set data\.folds too"):
        load_experiment(None, ["data.fold=2"])
