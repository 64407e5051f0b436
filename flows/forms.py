"""The form in Prefect's pages: a flow's settings as groups with dropdowns, bounds, units and help.

Prefect reads the signature of a flow anew wherever it is deployed, so the form is kept there: each section is annotated
with how its schema is to look.
"""

import inspect
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any

from prefect.flows import Flow
from prefect.utilities.callables import ParameterSchema, parameter_schema
from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from recognition.backbones import WELL_KNOWN
from recognition.experiment import Experiment
from recognition.families import NETWORKS
from recognition.section import Section

FIRST: dict[str, tuple[str, ...]] = {
    "Data": ("source", "image_size", "channels", "resize", "test_fraction", "val_fraction"),
    "Augmentation": ("preset", "normalization", "mixup", "cutmix"),
    "Model": ("network", "backbone", "task", "pretrained", "weights", "dropout"),
    "Training": (
        "epochs", "batch_size", "learning_rate", "optimizer", "schedule", "weight_decay", "early_stopping",
        "accelerator", "precision",
    ),
    "Evaluation": ("explanations", "mistakes", "top_k", "threshold", "batch_size"),
    "Registration": ("enabled", "model_name", "metric", "minimum_gain", "description"),
}  # fmt: skip
"""What is set most, by section and in this order; a group shows it first."""
UNSHOWN = {"Augmentation": ("transforms",)}
"""Accepted from files, commands and the API, but no field of a form: lists of lists have none but raw JSON."""
NETWORK_HELP = (
    "auto: the task's first. Behind it ours, by task, then well-known ones of torchvision and timm, which want"
    " pretrained or many images. Any other of theirs is typed into backbone."
)


@dataclass(frozen=True)
class Group:
    """How a section's schema becomes a group of the form; an annotation that pydantic calls."""

    title: str
    default: Section

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        referring = handler(core)
        _arrange(handler.resolve_ref_schema(referring), self.default, self.title, handler)
        return referring


def with_form(flow: Flow[..., Any]) -> None:
    """Give a flow its form; the last line of each file that defines one."""
    signature = inspect.signature(flow.fn)
    parameters = [_arranged(parameter) for parameter in signature.parameters.values()]
    # on the function, since Prefect makes flows anew from it (with_options) and reads flows' signatures through it
    flow.fn.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    flow.parameters = parameter_schema(flow)


def form_for(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> ParameterSchema:
    """The form of a deployment that has values of its own: they are its defaults, and its network can be chosen.

    Args:
        flow: One that has a form.
        parameters: The deployment's, plain content by section.
    """
    form = deepcopy(flow.parameters)
    for name, value in parameters.items():
        _put(value, form.properties[name], form.definitions)
    return form


def to_form(parameters: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a deployment's form takes them: a network that its list does not have goes into its own field.

    Args:
        parameters: Plain content by section.
        schema: The deployment's ``parameter_openapi_schema``.
    """
    content = deepcopy(dict(parameters))
    model = content.get("model")
    listed = schema.get("definitions", {}).get("Model", {}).get("properties", {}).get("network", {}).get("enum")
    if isinstance(model, dict) and listed and "/" in str(model.get("network")) and model["network"] not in listed:
        model["backbone"], model["network"] = model["network"], "auto"
    return content


def _arranged(parameter: inspect.Parameter) -> inspect.Parameter:
    """A flow's parameter as its form shows it: a group, or a field with the experiment's bounds."""
    kind, default = parameter.annotation, parameter.default
    if isinstance(kind, type) and issubclass(kind, Section):
        return parameter.replace(annotation=Annotated[kind, Group(parameter.name, default)])
    known = Experiment.model_fields.get(parameter.name)
    if known is not None and known.annotation is kind and known.metadata:
        return parameter.replace(annotation=Annotated[(kind, *known.metadata)])
    return parameter


def _arrange(schema: dict[str, Any], default: Section, title: str, handler: GetJsonSchemaHandler) -> None:
    """Put a section's fields in order, with help, bounds and defaults; then those of the sections in it."""
    name, fields = schema["title"], schema["properties"]
    for key in UNSHOWN.get(name, ()):
        schema.setdefault("patternProperties", {})[f"^{key}$"] = fields.pop(key)
    first = FIRST.get(name, ())
    order = sorted(fields, key=lambda key: first.index(key) if key in first else len(first))
    values = default.model_dump(mode="json")
    schema["title"] = title
    for position, key in enumerate(order):
        field = fields[key]
        field["position"] = position
        field["default"] = values.get(key, field.get("default"))
        if "$ref" in field:
            inner = getattr(default, key)
            field["title"] = f"{title}.{key}"
            _arrange(handler.resolve_ref_schema({"$ref": field["$ref"]}), inner, field["title"], handler)
            continue
        if (name, key) == ("Model", "network"):
            field |= {"enum": ["auto", *NETWORKS, *WELL_KNOWN], "description": NETWORK_HELP}
        field["description"] = _help(field)
    schema["properties"] = {key: fields[key] for key in order}


def _help(field: dict[str, Any]) -> str:
    """A field's help: what it does, then its bounds and unit."""
    text = field["description"].removesuffix(f" Unit: {field.get('unit')}.")
    if bounds := _bounds(field):
        text += f" {bounds}."
    # the pages take <name> for a tag of theirs and leave it out
    return re.sub(r"<([^<>]+)>", lambda found: found[1].upper(), text)


def _bounds(field: dict[str, Any]) -> str:
    """Such as "From 1 to 10,000 epochs"; nothing where there is neither bound nor unit."""
    numbers = field.get("items", field)
    lowest, above = numbers.get("minimum"), numbers.get("exclusiveMinimum")
    highest, below = numbers.get("maximum"), numbers.get("exclusiveMaximum")
    unit = field.get("unit", "")
    if lowest is not None and highest is not None:
        return f"From {lowest:,.10g} to {highest:,.10g} {unit}".rstrip()
    signs = {"at least": lowest, "above": above, "at most": highest, "below": below}
    bounds = ", ".join(f"{sign} {bound:,.10g}" for sign, bound in signs.items() if bound is not None)
    in_unit = f"({unit})" if unit and bounds else f"In {unit}" if unit else ""
    return f"{bounds.capitalize()} {in_unit}".strip()


def _put(value: Any, shown: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """Make a deployment's own value the default of a field, or of the fields of a group; that default."""
    group = definitions.get(shown.get("$ref", "").rpartition("/")[2])
    if group is None or not isinstance(value, dict):
        if value not in shown.get("enum", [value]):
            # behind auto
            shown["enum"].insert(1, value)
        shown["default"] = value
        return value
    fields = group["properties"]
    own = {key: _put(given, fields[key], definitions) if key in fields else given for key, given in value.items()}
    if listed := own.get("transforms"):
        names = ", ".join(name for transform in listed for name in transform)
        fields["preset"]["description"] = (
            f"Without effect here: this deployment lists transforms of its own ({names}), which replace the preset."
        )
    shown["default"] = shown["default"] | own
    return shown["default"]
