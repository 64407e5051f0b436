"""Classes that are likely one under two names: names that differ only in case, blanks or Unicode form."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from recognition.audit.names import listed, visible


def similar(class_names: Sequence[str]) -> tuple[str, str, int] | None:
    """Kind, message and number of sets of names that are alike, or nothing."""
    alike: dict[str, list[str]] = {}
    for name in class_names:
        alike.setdefault(_key(name), []).append(name)
    found = [names for names in alike.values() if len(names) > 1]
    if not found:
        return None
    named = listed([_told(names) for names in found[:10]], len(found), 10, longest=400)
    message = (
        f"Class names that differ only in case, blanks or Unicode form: {named}. Used as different classes. Where they"
        " mean one, give all its images one name: else a model is asked to tell apart what is the same."
    )
    return "similar_class_names", message, len(found)


def _key(name: str) -> str:
    """Equal for names that are alike; of a single letter the case matters (sets of letters have a and A)."""
    plain = "".join(unicodedata.normalize("NFKC", name).split())
    # folding may decompose what was composed
    return plain if len(plain) == 1 else unicodedata.normalize("NFKC", plain.casefold())


def _told(names: Sequence[str]) -> str:
    """Names in quotation marks, which show blanks; those that look the same are written out."""
    shown = [visible(name) for name in names]
    if len({unicodedata.normalize("NFC", name) for name in shown}) < len(shown):
        shown = [visible(ascii(name)[1:-1]) for name in names]
    return " and ".join(f'"{name}"' for name in shown)
