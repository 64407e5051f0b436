"""The objects of stored images, as they are read: boxes, masks packed to bits within their boxes, class maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recognition.families import Kind
from recognition.objects import Flaw, Objects
from recognition.pixels import Pixels
from recognition.records import Record

RECORD = "objects.json"
TABLES = (
    RECORD,
    "boxes.npy",
    "box_labels.npy",
    "box_starts.npy",
    "masks.npy",
    "mask_starts.npy",
    "class_maps.npy",
    "object_counts.npy",
    "object_digests.npy",
)
"""All files of objects in a store; each kind has some of them."""


class ObjectRecord(Record):
    """What is known of the objects besides the arrays."""

    kind: Kind
    class_names: tuple[str, ...]
    """Of objects, without background."""
    flaws: tuple[Flaw, ...]
    """What was wrong with what the source says of its images."""
    cropped: int
    """Objects of which bringing images to size has left nothing."""


@dataclass(frozen=True)
class ObjectStore:
    """The objects of N images, memory-mapped, in pixels of the prepared images."""

    record: ObjectRecord
    counts: NDArray[np.int64]
    """Shape (N, classes): objects in use, before images were brought to size; of kind masks 1 for a class that an image
    shows."""
    digests: NDArray[np.uint8]
    """Shape (N, 32): of what is said of each image, in pixels of the original; equal for equal objects."""
    height: int
    width: int
    boxes: NDArray[np.float32]
    """Shape (M, 4), those of one image behind each other."""
    labels: NDArray[np.int64]
    """Shape (M,)."""
    starts: NDArray[np.int64]
    """Shape (N + 1,): the boxes of image i are those from ``starts[i]`` to ``starts[i + 1]``."""
    mask_bits: NDArray[np.uint8] | None
    """The masks of all objects behind each other; each within its box, its rows packed to bits."""
    mask_starts: NDArray[np.int64] | None
    """Shape (M + 1,), in bytes."""
    maps: Pixels | None
    """Shape (N, height, width): of kind masks the class maps."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, index: int) -> Objects:
        """The objects of one image; of kind masks none."""
        start, end = int(self.starts[index]), int(self.starts[index + 1])
        boxes, labels = np.array(self.boxes[start:end]), np.array(self.labels[start:end])
        masks = None
        if self.mask_bits is not None:
            masks = np.zeros((end - start, self.height, self.width), np.uint8)
            for number in range(start, end):
                place, mask = self._mask(number)
                masks[number - start][place] = mask
        return Objects(boxes, labels, masks)

    def _mask(self, number: int) -> tuple[tuple[slice, slice], Pixels]:
        """Where the mask of one of all M objects lies, and the mask there."""
        assert self.mask_bits is not None
        assert self.mask_starts is not None
        left, top, right, bottom = self.boxes[number].astype(int).tolist()
        bits = self.mask_bits[self.mask_starts[number] : self.mask_starts[number + 1]]
        shape = (bottom - top, right - left)
        return (slice(top, bottom), slice(left, right)), np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape)

    def class_map(self, index: int) -> Pixels:
        """The class of every pixel of one image, uint8 (height, width): 0 background, else a label + 1, 255 ignored.

        Made of the masks of objects where these are known; where they overlap, that of the later object counts.

        Raises:
            ValueError: only boxes are known.
        """
        if self.maps is not None:
            return np.array(self.maps[index])
        if self.mask_bits is None:
            raise ValueError("boxes do not tell the class of every pixel")
        result = np.zeros((self.height, self.width), np.uint8)
        for number in range(int(self.starts[index]), int(self.starts[index + 1])):
            place, mask = self._mask(number)
            result[place][mask > 0] = self.labels[number] + 1
        return result


def open_objects(folder: Path, height: int, width: int) -> ObjectStore | None:
    """The objects in the folder of a store; none where images have classes instead.

    Raises:
        OSError, ValueError, EOFError: a file is missing or damaged.
    """
    if not (folder / RECORD).is_file():
        return None
    record = ObjectRecord.model_validate_json((folder / RECORD).read_bytes())
    is_map, with_masks = record.kind == "masks", record.kind == "instances"
    found = ObjectStore(
        record,
        counts=_mapped(folder / "object_counts.npy"),
        digests=_mapped(folder / "object_digests.npy"),
        height=height,
        width=width,
        boxes=_mapped(folder / "boxes.npy"),
        labels=_mapped(folder / "box_labels.npy"),
        starts=_mapped(folder / "box_starts.npy"),
        mask_bits=_mapped(folder / "masks.npy") if with_masks else None,
        mask_starts=_mapped(folder / "mask_starts.npy") if with_masks else None,
        maps=_mapped(folder / "class_maps.npy") if is_map else None,
    )
    if not len(found.counts) == len(found.digests) == len(found) or found.starts[-1] != len(found.boxes):
        raise ValueError("the arrays of objects do not fit each other")
    return found


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
