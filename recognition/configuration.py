"""From YAML files and ``section.key=value`` words to an Experiment, with errors that name the setting and the fix."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from recognition.access import refuse_credentials
from recognition.errors import ConfigurationError
from recognition.experiment import Experiment

SHORT_FORMS = {
    "lr": "training.learning_rate",
    "bs": "training.batch_size",
    "wd": "training.weight_decay",
    "epoch": "training.epochs",
    "gpus": "training.devices",
    "workers": "training.loader_workers",
    "backbone": "model.network",
    "dataset": "data.source",
}
"""What people write out of habit, and our name for it."""


def load_experiment(path: Path | str | None = None, overrides: Iterable[str] = ()) -> Experiment:
    """Read an experiment file (none: the default experiment) and put the overrides on top.

    Args:
        path: YAML that states what differs from the defaults.
        overrides: words like ``training.epochs=3`` or ``seed=1``; the value is read as YAML.

    Raises:
        ConfigurationError: the file is missing or no YAML, a key is unknown, or a value is impossible.
    """
    content = _read_yaml(Path(path)) if path is not None else {}
    for word in overrides:
        put_setting(content, word)
    return build_experiment(content)


def build_experiment(content: Mapping[str, Any]) -> Experiment:
    """Validate plain content as an Experiment.

    Raises:
        ConfigurationError: one line for each setting that is unknown or impossible, or an address holds a password.
    """
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(explain(error, Experiment)) from None
    # before it travels to a server, which would keep it
    for address in (experiment.data.source, experiment.data.mirror):
        refuse_credentials(address)
    return experiment


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"There is no experiment file {path}: `recognition list experiments` shows ours."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The experiment file {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} must hold sections (data:, training:, ...), not {type(content).__name__}.")
    return content


def put_setting(content: dict[str, Any], word: str) -> str:
    """Put a word like ``training.epochs=3`` into plain content, its value read as YAML; the name of its section.

    Raises:
        ConfigurationError: it is no such word, or names a setting inside of another.
    """
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigurationError(f"{word!r} is no setting: write section.key=value, such as training.epochs=3.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    *sections, last = key.split(".")
    place = content
    for section in sections:
        inner = place.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"{key}: {section} is a value, not a section.")
        place = inner
    place[last] = "" if value is None else value
    return key.partition(".")[0]


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say in one line per mistake which setting is wrong, what it was, and what it may be."""
    return "\n".join(_explain_one(dict(problem), model) for problem in error.errors())


def _explain_one(problem: dict[str, Any], model: type[BaseModel]) -> str:
    location = problem["loc"]
    where = ".".join(str(part) for part in location) or "experiment"
    kind, context, given = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "extra_forbidden":
        known = _paths(model)
        close = _closest(where, known)
        siblings = [name for name in known if name.rpartition(".")[0] == where.rpartition(".")[0]]
        hint = f"did you mean {close}?" if close else f"known here: {', '.join(siblings)}."
        return f"{where}: there is no such setting; {hint}"
    if kind == "literal_error":
        choices = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        close = _closest(str(given), choices)
        hint = f" (did you mean {close}?)" if close else ""
        return f"{where}: {given!r} is none of {', '.join(choices)}{hint}."
    if kind == "missing":
        return f"{where}: must be given, as {where}=..."
    if kind == "model_type":
        inner = [name for name in _paths(model) if name.startswith(f"{where}.")]
        example = f", such as {inner[0]}" if inner else ""
        return f"{where}: is a section (got {_shown(given)}); give one of its settings{example}."
    if kind == "value_error":
        text = str(context["error"])
        if repr(given) in text:
            return f"{where}: {text}" if text.endswith("?") else f"{where}: {text}."
        return f"{where}: {text} (got {_shown(given)})."
    return f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]} (got {_shown(given)})."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    paths = []
    for name, field in model.model_fields.items():
        paths.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            paths.extend(_paths(field.annotation, f"{prefix}{name}."))
    return paths


def _closest(name: str, known: list[str]) -> str | None:
    """The most similar known name; the last part counts when the section is wrong or missing."""
    last = name.rpartition(".")[2]
    if last in SHORT_FORMS:
        return SHORT_FORMS[last]
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if found:
        return found[0]
    lasts = {path.rpartition(".")[2]: path for path in known}
    found = difflib.get_close_matches(last, list(lasts), n=1, cutoff=0.7)
    return lasts[found[0]] if found else None


def to_yaml(experiment: Experiment) -> str:
    """The whole experiment as YAML; ``load_experiment`` reads it back equal."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def json_schema() -> str:
    """The schema of experiment files for editors, as JSON text."""
    schema = Experiment.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
