"""Findings on boxes and masks: what of them cannot be used, and which classes of objects lack examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recognition.audit.grouping import Indices, groups_of
from recognition.audit.inspected import Annotated
from recognition.audit.ledger import Ledger, number
from recognition.audit.names import listed
from recognition.objects import Flaw, FlawKind
from recognition.splits import SPLITS

_MOST_NAMED = 10


def enter_flaws(ledger: Ledger, annotated: Annotated) -> None:
    """Enter what is wrong with what is said of the images, and leave images out where the policies say so."""
    flaws: dict[FlawKind, list[Flaw]] = defaultdict(list)
    for flaw in annotated.flaws:
        if ledger.used[flaw.image]:
            flaws[flaw.kind].append(flaw)
    ledger.objects("missing_annotations", flaws["missing_annotations"])
    ledger.objects("invalid_boxes", flaws["invalid_boxes"], done=_left_out(flaws["invalid_boxes"], "box"))
    masks = flaws["invalid_masks"]
    # an image with several masks stays without one of them; without its only one nothing is known of it
    ledger.objects("invalid_masks", masks, done=_left_out(masks, "mask") if annotated.kind == "instances" else "")
    ledger.objects("clipped_boxes", flaws["clipped_boxes"])
    if annotated.cropped:
        message = (
            f"Nothing is left of {number(annotated.cropped, 'object')} in the prepared images: outside of what"
            " data.resize keeps, or smaller than a pixel. Left out. Set data.resize=pad or stretch, or a larger"
            " data.image_size."
        )
        ledger.enter("cropped_objects", "warn", message, annotated.cropped)


def _left_out(flaws: Sequence[Flaw], noun: str) -> str:
    what = f"this {noun}" if len(flaws) == 1 else f"these {noun}{'es' if noun.endswith('x') else 's'}"
    images = "its image stays" if len({flaw.image for flaw in flaws}) == 1 else "their images stay"
    return f"Left out {what}; {images}."


def conflicting(annotated: Annotated, used: NDArray[np.bool_], content: Indices) -> list[Indices]:
    """Groups of images with the same pixels of which different objects are said."""
    keys = annotated.keys()
    groups = groups_of(content, np.flatnonzero(used))
    return [group for group in groups if len(set(keys[group].tolist())) > 1]


def enter_classes(ledger: Ledger, split: NDArray[np.str_], annotated: Annotated) -> None:
    """Enter classes of objects that a split has none of; where there are no objects at all, nothing can be learned."""
    if ledger.used.any() and not annotated.counts[ledger.used].any():
        ledger.unusable.append("None of the images has an object. Add boxes or masks.")
        return
    lacking = [
        f"{name} has no {annotated.class_names[label]}"
        for name in SPLITS
        for label in np.flatnonzero(annotated.counts[split == name].sum(axis=0) == 0).tolist()
    ]
    if lacking:
        message = (
            f"Splits without any object of a class: {listed(lacking, len(lacking), _MOST_NAMED)}. There it is neither"
            " learned nor judged. Add images, or try another data.split_seed."
        )
        ledger.enter("missing_objects", "warn", message, len(lacking))


def object_counts(split: NDArray[np.str_], annotated: Annotated) -> dict[str, dict[str, int]]:
    """For each split the number of objects in use of every class; of class maps, of images that show it."""
    return {
        name: dict(zip(annotated.class_names, annotated.counts[split == name].sum(axis=0).tolist(), strict=True))
        for name in SPLITS
    }
