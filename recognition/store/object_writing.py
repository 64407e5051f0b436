"""Filling the store of objects: each image's are checked, brought to its prepared size, and written at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from recognition import pixels
from recognition.objects import IGNORED, Flaw
from recognition.pixels import Fit, Pixels
from recognition.sources.annotations import Annotations
from recognition.store.array_file import ArrayWriter
from recognition.store.object_checks import Checked, box_of, check, digest_of_objects
from recognition.store.object_store import RECORD, ObjectRecord


@dataclass(frozen=True)
class _Prepared:
    """The objects of an image at its prepared size."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    bits: tuple[NDArray[np.uint8], ...]
    flaws: tuple[Flaw, ...]
    cropped: int


class ObjectWriter:
    """Takes the objects of images in any order, from any thread; images that are never told of have none."""

    def __init__(self, folder: Path, annotations: Annotations, shape: tuple[int, int, int], how: Fit) -> None:
        """Begin to write.

        Args:
            folder: that of the store.
            annotations: what the source says of its images.
            shape: number, height and width of the prepared images.
            how: as these are brought to size.
        """
        self._folder, self._annotations, self._how = folder, annotations, how
        self._count, self._height, self._width = shape
        self._prepared: dict[int, _Prepared] = {}
        classes = len(annotations.class_names)
        self._counts = np.zeros((self._count, classes), np.int64)
        self._digests = np.zeros((self._count, 32), np.uint8)
        self._maps = ArrayWriter(folder / "class_maps.npy", shape) if annotations.kind == "masks" else None

    def put(self, index: int, shape: tuple[int, int], content: bytes) -> None:
        """Take the objects of an image.

        Args:
            index: of the image.
            shape: its height and width before it was brought to size, upright.
            content: its file.
        """
        annotations = self._annotations
        checked = check(annotations, index, shape, content)
        digest = digest_of_objects(checked, annotations.class_names)
        self._digests[index] = np.frombuffer(digest, np.uint8)
        if checked.class_map is not None:
            self._put_map(index, checked.class_map)
        else:
            self._counts[index] = np.bincount(checked.labels, minlength=len(annotations.class_names))
        self._prepared[index] = self._prepare(index, checked, shape)

    def _put_map(self, index: int, class_map: Pixels) -> None:
        assert self._maps is not None
        fitted = pixels.fit_mask(class_map, self._height, self._width, self._how)
        self._maps.put(index, np.ascontiguousarray(fitted))
        shown = [value for value in np.unique(class_map).tolist() if value not in (0, IGNORED)]
        self._counts[index, np.array(shown, np.int64) - 1] = 1

    def _prepare(self, index: int, checked: Checked, shape: tuple[int, int]) -> _Prepared:
        geometry = pixels.geometry(*shape, self._height, self._width, self._how)
        boxes, bits = geometry.to_prepared(checked.boxes), []
        if self._annotations.kind == "instances":
            for number, (box, inner) in enumerate(zip(checked.boxes.astype(int), checked.masks, strict=True)):
                whole = np.zeros(shape, np.uint8)
                whole[box[1] : box[3], box[0] : box[2]] = inner
                fitted = pixels.fit_mask(whole, self._height, self._width, self._how)
                left, top, right, bottom = box_of(fitted) or (0, 0, 0, 0)
                boxes[number] = left, top, right, bottom
                bits.append(np.packbits(fitted[top:bottom, left:right]))
        kept = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
        return _Prepared(
            boxes=boxes[kept],
            labels=checked.labels[kept],
            bits=tuple(packed for packed, keep in zip(bits, kept.tolist(), strict=False) if keep),
            flaws=tuple(Flaw(image=index, kind=kind, what=what) for kind, what in checked.flaws),
            cropped=int((~kept).sum()),
        )

    def __enter__(self) -> ObjectWriter:
        if self._maps:
            self._maps.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._maps:
            self._maps.__exit__(kind, error, trace)
        if error is None:
            self._write()

    def _write(self) -> None:
        ordered = [self._prepared[index] for index in sorted(self._prepared)]
        numbers = np.zeros(self._count, np.int64)
        numbers[sorted(self._prepared)] = [len(image.labels) for image in ordered]
        self._save("boxes", np.concatenate([np.zeros((0, 4), np.float32), *(image.boxes for image in ordered)]))
        self._save("box_labels", np.concatenate([np.zeros(0, np.int64), *(image.labels for image in ordered)]))
        self._save("box_starts", _starts(numbers))
        self._save("object_counts", self._counts)
        self._save("object_digests", self._digests)
        if self._annotations.kind == "instances":
            bits = [packed for image in ordered for packed in image.bits]
            self._save("masks", np.concatenate([np.zeros(0, np.uint8), *bits]))
            self._save("mask_starts", _starts(np.array([len(packed) for packed in bits], np.int64)))
        record = ObjectRecord(
            kind=self._annotations.kind,
            class_names=self._annotations.class_names,
            flaws=tuple(flaw for image in ordered for flaw in image.flaws),
            cropped=sum(image.cropped for image in ordered),
        )
        (self._folder / RECORD).write_text(record.model_dump_json(indent=1), encoding="utf-8")

    def _save(self, name: str, rows: NDArray[np.generic]) -> None:
        with ArrayWriter(self._folder / f"{name}.npy", rows.shape, rows.dtype) as file:
            if rows.size:
                file.put(0, rows)


def _starts(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(numbers)]).astype(np.int64)
