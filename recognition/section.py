"""How a section of the experiment is written: a frozen model whose fields carry description, unit and bounds."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue


def setting(
    default: Any,
    description: str,
    *,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    examples: list[Any] | None = None,
    refused: str = "",
) -> Any:
    """Declare one field: its default, one sentence about it, its unit and its bounds.

    ``refused`` is a pattern that nothing in the value may match, for whoever checks by the schema alone: a server
    refuses such a value before it is on record.
    """
    text = f"{description} Unit: {unit}." if unit else description
    extra: dict[str, JsonValue] = {"unit": unit} if unit else {}
    if refused:
        extra["not"] = {"pattern": refused}
    return Field(
        default, description=text, ge=ge, gt=gt, le=le, lt=lt, examples=examples, json_schema_extra=extra or None
    )


class Section(BaseModel):
    """A frozen group of settings that refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
