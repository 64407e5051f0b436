"""Groups (patients, cameras, videos) found in the paths of images, so that no two splits share one."""

from __future__ import annotations

import re
from dataclasses import replace

from recognition.data_settings import Data
from recognition.errors import ConfigurationError
from recognition.sources.labelled import Images


def with_groups(images: Images, data: Data) -> Images:
    """The same images with the groups that ``data.group_pattern`` finds in their ids; those without a match have none.

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
    return replace(images, groups=tuple((match[which] or "") if match else "" for match in found))
