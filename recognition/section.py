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
) -> Any:
    """Declare one field: its default, one sentence about it, its unit and its bounds."""
    text = f"{description} Unit: {unit}." if unit else description
    extra: dict[str, JsonValue] | None = {"unit": unit} if unit else None
    return Field(default, description=text, ge=ge, gt=gt, le=le, lt=lt, examples=examples, json_schema_extra=extra)


class Section(BaseModel):
    """A frozen group of settings that refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
