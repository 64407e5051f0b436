"""What a finding says: what was found, how often, what was done about it, and what its owner can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """How a kind of finding is told. ``one`` and ``many`` go on after the number; ``{}`` in them takes details."""

    noun: str
    one: str
    many: str
    advice: str
    fix: str = "quarantine"
    """The policy to set for one who cannot mend the files and has to go on."""
    advice_for_one: str = ""
    """Where the advice has other words for one."""


_LOOK = "Look at them, and remove those that do not belong here."
_LOOK_AT_ONE = "Look at it, and remove it if it does not belong here."

WORDINGS: Mapping[str, Wording] = {
    "unreadable": Wording(
        "file",
        "cannot be read",
        "cannot be read",
        "Save them again from the originals, or remove them.",
        advice_for_one="Save it again from the original, or remove it.",
    ),
    "wrong_extension": Wording(
        "file",
        "is of another format than its name says",
        "are of another format than their names say",
        "They are read by their content; give them the right endings.",
        advice_for_one="It is read by its content; give it the right ending.",
    ),
    "animated": Wording(
        "file",
        "has several frames or pages, of which only the first is used",
        "have several frames or pages, of which only the first is used",
        "Save the frames that you need as files of their own.",
    ),
    "converted": Wording(
        "image",
        "was converted to 8-bit gray or RGB ({})",
        "were converted to 8-bit gray or RGB ({})",
        "Check in the report that nothing is lost that matters.",
    ),
    "odd_size": Wording(
        "image",
        "is far smaller or larger than the others{}",
        "are far smaller or larger than the others{}",
        _LOOK,
        advice_for_one=_LOOK_AT_ONE,
    ),
    "odd_aspect": Wording(
        "image",
        "has a ratio of width to height far from the others'{}",
        "have a ratio of width to height far from the others'{}",
        _LOOK,
        advice_for_one=_LOOK_AT_ONE,
    ),
    "dark": Wording("image", "is almost black", "are almost black", _LOOK, advice_for_one=_LOOK_AT_ONE),
    "bright": Wording("image", "is almost white", "are almost white", _LOOK, advice_for_one=_LOOK_AT_ONE),
    "blurry": Wording(
        "image",
        "has far less fine detail than the others",
        "have far less fine detail than the others",
        _LOOK,
        advice_for_one=_LOOK_AT_ONE,
    ),
    "constant": Wording(
        "image", "is of one single colour", "are of one single colour", _LOOK, advice_for_one=_LOOK_AT_ONE
    ),
    "exact_duplicates": Wording(
        "image",
        "is there more than once in its split, with the same pixels and label ({})",
        "are there more than once in their split, with the same pixels and label ({})",
        "Remove the copies: they count several times.",
    ),
    "near_duplicates": Wording(
        "image",
        "is there more than once in its split as a resized, re-encoded or mirrored copy with the same label ({})",
        "are there more than once in their split as resized, re-encoded or mirrored copies with the same label ({})",
        "Remove the copies: they count several times.",
    ),
    "leaks": Wording(
        "image",
        "has copies in two of the splits that the source gives ({})",
        "have copies in two of the splits that the source gives ({})",
        "Such an image is learned and then asked for, so that scores come out too high.",
        fix="move",
    ),
    "missing_annotations": Wording(
        "image",
        "has no usable file of boxes or masks",
        "have no usable file of boxes or masks",
        "Add what is missing, or remove the images; data.audit.missing_annotations=warn takes them for images without"
        " objects.",
        advice_for_one="Add what is missing, or remove the image; data.audit.missing_annotations=warn takes it for an"
        " image without objects.",
    ),
    "invalid_boxes": Wording(
        "box",
        "cannot be used",
        "cannot be used",
        "Draw them again, or remove them.",
        advice_for_one="Draw it again, or remove it.",
    ),
    "invalid_masks": Wording(
        "mask",
        "cannot be used",
        "cannot be used",
        "Draw them again, or remove them.",
        advice_for_one="Draw it again, or remove it.",
    ),
    "clipped_boxes": Wording(
        "box",
        "reaches out of its image, and is cut off there",
        "reach out of their images, and are cut off there",
        "Check that boxes and images belong together.",
    ),
    "conflicting_labels": Wording(
        "image",
        "is there under two labels ({})",
        "are there under two labels ({})",
        "Give each its right label.",
        advice_for_one="Give it its right label.",
    ),
}


def told(kind: str, count: int, details: str = "") -> str:
    """The first half of a finding's sentence: how many, and what."""
    wording = WORDINGS[kind]
    plural = f"{wording.noun}{'es' if wording.noun.endswith(('s', 'x')) else 's'}"
    return f"{count:,} {wording.noun if count == 1 else plural} " + (
        wording.one if count == 1 else wording.many
    ).format(details)


def advice(kind: str, count: int) -> str:
    """What the owner of so many images can do."""
    wording = WORDINGS[kind]
    return wording.advice_for_one if count == 1 and wording.advice_for_one else wording.advice


def setting_to_change(kind: str) -> str:
    """The setting with which the audit goes on, as it is written on the command line."""
    return f"data.audit.{kind}={WORDINGS[kind].fix if kind in WORDINGS else 'warn'}"
