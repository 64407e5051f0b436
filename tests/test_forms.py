"""The form that Prefect's pages show of a flow, and what its server refuses by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml
from conftest import ROOT, OpenHouse
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from flows.forms import FIRST, UNSHOWN, form_for, to_form
from flows.training import train
from recognition.backbones import WELL_KNOWN
from recognition.configuration import build_experiment, load_experiment
from recognition.errors import ConfigurationError
from recognition.experiment import Experiment
from recognition.families import NETWORKS

FORM = train.parameters.model_dump_for_openapi()
GROUPS = ["data", "augmentation", "model", "training", "evaluation", "registration"]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))


def fields_of(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each field that a person sees, as section.key, with its schema."""
    for name, shown in schema["properties"].items():
        if "$ref" in shown:
            yield from fields_of(FORM["definitions"][shown["$ref"].rpartition("/")[2]], f"{path}{name}.")
        else:
            yield path + name, shown


FIELDS = dict(fields_of(FORM))


def refusals(parameters: dict[str, Any], form: dict[str, Any] = FORM) -> list[str]:
    """What Prefect's server says against these parameters."""
    return [error.message for error in validate(parameters, form)]


def test_the_form_shows_a_name_then_six_groups() -> None:
    shown = sorted(FORM["properties"], key=lambda name: FORM["properties"][name]["position"])
    assert shown[0] == "name"
    assert [name for name in shown if "$ref" in FORM["properties"][name]] == GROUPS


def test_what_is_deployed_is_this_form() -> None:
    # serve, prefect deploy and RunnerDeployment read a flow's signature anew
    for flow in (train, train.with_options(name="again"), train.fn):
        assert parameter_schema(flow).model_dump_for_openapi() == FORM


def test_every_field_has_help_a_title_and_the_default_of_the_experiment() -> None:
    defaults = Experiment().model_dump(mode="json")
    for name, shown in FIELDS.items():
        assert len(shown["description"].split()) > 2, name
        # the older pages take <name> for a tag
        assert "<" not in shown["description"], name
        assert shown["title"], name
        value: Any = defaults
        for key in name.split(".") if name != "fresh" else ():
            value = value.get(key, "")
        assert shown["default"] == (value if name != "fresh" else False), name


def test_no_field_is_a_union_or_raw_json() -> None:
    for name, shown in FIELDS.items():
        assert shown["type"] in {"string", "integer", "number", "boolean", "array"}, name
        if shown["type"] == "array":
            assert shown["items"] == {"type": "integer", "minimum": 1, "maximum": 4096}, name


def test_every_number_says_its_bounds_and_its_unit() -> None:
    numbers = {name: shown for name, shown in FIELDS.items() if shown["type"] in {"integer", "number"}}
    assert len(numbers) > 50
    for name, shown in numbers.items():
        if name != "seed":
            assert any(word in shown["description"] for word in ("From ", "At least ", "Above ")), name
            assert shown.get("unit", "") in shown["description"], name
    assert FIELDS["training.epochs"]["description"] == "Passes over the training images. From 1 to 10,000 epochs."
    assert FIELDS["training.learning_rate"]["description"].endswith("Above 0, at most 100.")
    assert FIELDS["data.test_fraction"]["description"].endswith("Above 0, below 0.9 (fraction).")
    assert FIELDS["data.limits.files"]["description"].endswith("At least 1 (files).")
    assert FIELDS["model.channels"]["description"].endswith("From 1 to 4,096.")


def test_what_is_set_most_comes_first_and_sections_of_sections_last() -> None:
    for name, first in FIRST.items():
        fields = FORM["definitions"][name]["properties"]
        shown = sorted(fields, key=lambda key, of=fields: of[key]["position"])
        assert tuple(shown[: len(first)]) == first
        nested = [key for key in shown if "$ref" in fields[key]]
        assert shown[len(shown) - len(nested) :] == nested
        assert set(UNSHOWN.get(name, ())).isdisjoint(shown)


def test_every_choice_is_a_dropdown() -> None:
    network = FIELDS["model.network"]["enum"]
    assert network == ["auto", *NETWORKS, *WELL_KNOWN]
    assert FIELDS["training.optimizer"]["enum"] == ["adam", "adamw", "sgd"]
    assert len([name for name, shown in FIELDS.items() if "enum" in shown]) > 40


def test_well_known_networks_exist_and_are_named_once() -> None:
    import timm
    from torchvision.models import list_models

    assert len(set(WELL_KNOWN)) == len(WELL_KNOWN)
    known = {"torchvision": set(list_models()), "timm": set(timm.list_models())}
    for name in WELL_KNOWN:
        library, _, network = name.partition("/")
        assert network in known[library], name


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"training": {"epochs": 0}}, "0 is less than the minimum of 1"),
        ({"training": {"learning_rate": 0}}, "less than or equal to the minimum of 0"),
        ({"training": {"epochs": "many"}}, "'many' is not of type 'integer'"),
        ({"training": {"epoch": 3}}, "'epoch' was unexpected"),
        ({"model": {"network": "resnet"}}, "'resnet' is not one of"),
        ({"model": {"channels": [0]}}, "0 is less than the minimum of 1"),
        ({"data": {"audit": {"dark": "ignore"}}}, "'ignore' is not one of"),
        ({"augmentation": {"transforms": "HorizontalFlip"}}, "'HorizontalFlip' is not of type 'array'"),
        ({"augmentation": {"transform": []}}, "'transform' does not match any of the regexes"),
        ({"seed": -1}, "-1 is less than the minimum of 0"),
    ],
)
def test_the_schema_refuses_what_is_no_setting(parameters: dict[str, Any], said: str) -> None:
    assert any(said in text for text in refusals(parameters)), refusals(parameters)


def test_transforms_are_no_field_but_accepted() -> None:
    assert "augmentation.transforms" not in FIELDS
    assert refusals({"augmentation": {"transforms": [{"HorizontalFlip": {"p": 0.5}}]}}) == []


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_file_fits_a_form_with_its_values_as_defaults(path: Any) -> None:
    said = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    form = form_for(train, said).model_dump_for_openapi()
    assert refusals(said, form) == []
    asked = {name: shown["default"] for name, shown in form["properties"].items() if name != "fresh"}
    assert build_experiment(asked) == load_experiment(path)
    if said.get("augmentation", {}).get("transforms"):
        preset = form["definitions"]["Augmentation"]["properties"]["preset"]
        assert "lists transforms of its own (" in preset["description"]
    # and the flow's own form is as it was
    assert train.parameters.model_dump_for_openapi() == FORM


def test_a_deployment_may_have_a_network_that_the_list_has_not() -> None:
    said = {"model": {"network": "timm/resnet26"}}
    assert refusals(said)
    form = form_for(train, said).model_dump_for_openapi()
    assert refusals(said, form) == []
    assert form["definitions"]["Model"]["properties"]["network"]["enum"][:3] == ["auto", "timm/resnet26", "cnn"]


def test_a_network_that_the_list_has_not_goes_into_backbone() -> None:
    said = {"name": "x", "model": {"network": "timm/resnet26", "dropout": 0.1}}
    sent = to_form(said, FORM)
    assert sent == {"name": "x", "model": {"network": "auto", "backbone": "timm/resnet26", "dropout": 0.1}}
    assert refusals(sent) == []
    assert build_experiment(sent) == build_experiment(said)
    for kept in ({"model": {"network": "cnn"}}, {"model": {"network": "resnet"}}, {"seed": 1}):
        assert to_form(kept, FORM) == kept


def test_backbone_is_another_way_to_name_the_network() -> None:
    named = load_experiment(None, ["model.network=torchvision/resnet18"])
    for words in (["model.backbone=torchvision/resnet18"], [*["model.backbone=torchvision/resnet18"] * 2]):
        assert load_experiment(None, words) == named
    same = ["model.backbone=torchvision/resnet18", "model.network=torchvision/resnet18"]
    assert load_experiment(None, same).digest == named.digest
    assert "model.backbone" not in named.flattened()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.backbone=timm/resnet26", "model.network=cnn"], "network is 'cnn' and backbone 'timm/resnet26'"),
        (["model.backbone=resnet26"], "must be timm/<name> or torchvision/<name>"),
        (["model.backbone=cnn"], "ours go into network"),
        (["model.backbone=timm/resnet26", "model.task=detection"], "is for classification"),
    ],
)
def test_a_wrong_backbone_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match="model") as refused:
        load_experiment(None, words)
    assert said in str(refused.value)


@pytest.mark.server
def test_the_server_refuses_a_value_out_of_bounds_before_there_is_a_run(open_house: OpenHouse) -> None:
    found = requests.get(f"{open_house.api}/deployments/name/train/train", timeout=30).json()
    chosen = {"deployments": {"id": {"any_": [found["id"]]}}}

    def runs() -> int:
        return int(requests.post(f"{open_house.api}/flow_runs/count", json=chosen, timeout=30).json())

    assert found["enforce_parameter_schema"]
    assert found["parameter_openapi_schema"] == FORM
    before = runs()
    for parameters, said in (
        ({"training": {"epochs": 0}}, "'training.epochs'. Failure reason: 0 is less than the minimum of 1"),
        ({"model": {"network": "resnet"}}, "'model.network'. Failure reason: 'resnet' is not one of"),
    ):
        answer = requests.post(
            f"{open_house.api}/deployments/{found['id']}/create_flow_run", json={"parameters": parameters}, timeout=30
        )
        assert answer.status_code == 409
        assert said in answer.json()["detail"]
    assert runs() == before
