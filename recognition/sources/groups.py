"""Groups (patients, cameras, videos) found in the paths of images, so that no two splits share one."""

from __future__ import annotations

import re
from dataclasses import replace

from recognition.data_settings import Data
from recognition.errors import ConfigurationError
from recognition.records import Finding
from recognition.sources.labelled import Images
from recognition.sources.layout import some


def with_groups(images: Images, data: Data) -> Images:
    """The same images with the groups that ``data.group_pattern`` finds in their ids; a finding says which have none.

    Raises:
        ConfigurationError: the pattern is found in no id.
    """
    if not data.group_pattern:
        return images
    pattern = re.compile(data.group_pattern)
    found = [pattern.search(sample_id) for sample_id in images.sample_ids]
    if not any(found):
        raise ConfigurationError(
            f"data.group_pattern {data.group_pattern!r} is found in none of {len(images):,} paths, such as"
            f" {images.sample_ids[0]!r}."
        )
    which = 1 if pattern.groups else 0
    groups = tuple((match[which] or "") if match else "" for match in found)
    alone = [sample_id for sample_id, group in zip(images.sample_ids, groups, strict=True) if not group]
    return replace(images, groups=groups, findings=(*images.findings, *_ungrouped(alone, len(images))))


def _ungrouped(alone: list[str], total: int) -> tuple[Finding, ...]:
    if not alone:
        return ()
    verb, end = ("does", "it is") if len(alone) == 1 else ("do", "each of these is")
    message = (
        f"{len(alone):,} of {total:,} paths {verb} not match data.group_pattern, such as {min(alone)!r}: {end} a group"
        " of its own."
    )
    return (Finding(kind="ungrouped", message=message, files=some(alone), count=len(alone)),)
