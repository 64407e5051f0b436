"""Batches from the prepared store: whole-batch reads, uint8, augmentation keyed by (seed, epoch, index)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from recognition import augmenter, datasets, policies, randomness
from recognition.errors import ConfigurationError
from recognition.families import Task
from recognition.objects import Objects
from recognition.store.shards import ShardedImages, ShardOrder

PIXELS_WORTH_A_WORKER = 96 * 96
Key = tuple[int, int]
"""(epoch, position in the split): the epoch travels with the index, since worker processes see no other sign of it."""
WITH_OBJECTS: tuple[Task, ...] = ("detection", "instance_segmentation")
WITH_MAPS: tuple[Task, ...] = ("segmentation",)


@dataclass
class Batch:
    """Images as stored and what belongs to them.

    Attributes:
        images: uint8 (N, C, H, W), channels last in memory.
        labels: int64 (N,).
        positions: int64 (N,), places in the split.
        share: this process's part of the batch times the number of processes; 1 for one process. A loss that is a mean
            over the local part times ``share``, averaged over processes, is the mean over the batch.
        objects: for detection and instance segmentation, an image's ``boxes``, float32 (n, 4) of left, top, right and
            bottom in pixels, its ``labels``, int64 (n,) from 0, and for instance segmentation its ``masks``, uint8
            (n, H, W) of 0 and 1; as torchvision's detectors take them, but for their labels that count from 1.
        maps: for segmentation, uint8 (N, H, W): 0 background, k the class k - 1, 255 ignored.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor
    share: float = 1.0
    objects: list[dict[str, Tensor]] | None = None
    maps: Tensor | None = None

    def pin_memory(self) -> Batch:
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device, non_blocking: bool = True) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _each(self, moved: Callable[[Tensor], Tensor]) -> Batch:
        objects = self.objects
        if objects is not None:
            objects = [{name: moved(value) for name, value in parts.items()} for parts in objects]
        maps = None if self.maps is None else moved(self.maps)
        return Batch(moved(self.images), moved(self.labels), moved(self.positions), self.share, objects, maps)


class SplitDataset(Dataset[Batch]):
    """A split that gives whole batches; with an augmentation policy, each image is drawn by its key.

    What belongs to the images by the task, their objects or their class maps, is drawn with them.
    """

    def __init__(
        self,
        path: Path,
        split: str,
        policy: Path | None = None,
        seed: int = 0,
        world_size: int = 1,
        task: Task = "classification",
    ) -> None:
        self._split = datasets.open_arrays(path).split(split)
        self._policy = policy
        self._seed = seed
        self._world_size = world_size
        self._task = task
        self._augmenter: augmenter.Augmenter | None = None

    def __len__(self) -> int:
        return len(self._split)

    @property
    def shards(self) -> ShardOrder | None:
        """In which order the images are best read when they lie in shards; none: any order."""
        return self._split.shard_order

    def __getitem__(self, keys: list[tuple[Key, int]]) -> Batch:
        """The batch of the given keys, each with the size of the whole batch over all processes."""
        positions = np.array([position for (_, position), _ in keys], dtype=np.int64)
        images = self._split.batch(positions)
        objects = self._split.objects(positions) if self._task in WITH_OBJECTS else None
        maps = self._split.class_maps(positions) if self._task in WITH_MAPS else None
        if self._policy is not None:
            draw, places = self._augmenter_here(self._policy), [key for key, _ in keys]
            if objects is not None:
                with_objects = [
                    draw.with_objects(image, found, *place)
                    for image, found, place in zip(images, objects, places, strict=True)
                ]
                images, objects = np.stack([image for image, _ in with_objects]), [found for _, found in with_objects]
            elif maps is not None:
                with_maps = [
                    draw.with_map(image, classes, *place)
                    for image, classes, place in zip(images, maps, places, strict=True)
                ]
                images, maps = (np.stack(drawn) for drawn in zip(*with_maps, strict=True))
            else:
                images = np.stack([draw(image, *place) for image, place in zip(images, places, strict=True)])
        whole = keys[0][1]
        return Batch(
            torch.from_numpy(images).permute(0, 3, 1, 2),
            # only this batch's: labels and indices are memory-mapped
            torch.from_numpy(self._split.arrays.labels[self._split.indices[positions]]),
            torch.from_numpy(positions),
            len(keys) * self._world_size / whole,
            None if objects is None else [self._as_tensors(found) for found in objects],
            None if maps is None else torch.from_numpy(np.require(maps, requirements=["C", "W"])),
        )

    def _as_tensors(self, objects: Objects) -> dict[str, Tensor]:
        parts = {"boxes": objects.boxes, "labels": objects.labels}
        if self._task == "instance_segmentation":
            assert objects.masks is not None
            parts["masks"] = objects.masks
        # tensors may be written to, memory-mapped arrays may not
        return {name: torch.from_numpy(np.require(part, requirements=["C", "W"])) for name, part in parts.items()}

    def _augmenter_here(self, policy: Path) -> augmenter.Augmenter:
        if self._augmenter is None:
            pipeline = policies.from_json(policy.read_text())
            self._augmenter = augmenter.Augmenter(pipeline, self._seed)
        return self._augmenter


class KeyedBatches(Sampler[list[tuple[Key, int]]]):
    """Batches of keys: each sample once an epoch, the same batches whatever the number of processes.

    Each process takes every ``world_size``-th sample of a batch. What is left at the end joins the last batch when it
    is too little to give each process two samples, since batch normalisation has no spread over one.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        shards: ShardOrder | None = None,
    ) -> None:
        """Bind what decides the batches.

        Args:
            length: samples of the split.
            batch_size: samples a batch, over all processes.
            seed: of shuffling.
            shuffle: in a new order each epoch; else always in the same one.
            rank: this process.
            world_size: the number of processes.
            shards: samples that lie in shards are taken a window of shards at a time; none: all are mixed.
        """
        self.epoch = 0
        self._length = length
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._rank = rank
        self._world_size = world_size
        self._shards = shards

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, left = divmod(self._length, self._batch_size)
        enough = 2 * self._world_size if whole else self._world_size
        return whole + (1 if left >= enough else 0)

    def __iter__(self) -> Iterator[list[tuple[Key, int]]]:
        parts = self._order(self.epoch)
        waiting: NDArray[np.int64] = np.empty(0, np.int64)
        taken = 0
        for number in range(len(self)):
            size = self._length - taken if number == len(self) - 1 else self._batch_size
            while len(waiting) < size:
                waiting = np.concatenate([waiting, next(parts)])
            batch, waiting = waiting[:size], waiting[size:]
            taken += size
            mine = batch[self._rank :: self._world_size]
            yield [((self.epoch, int(position)), size) for position in mine]

    def _order(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """All positions of an epoch, in parts of any size."""
        if self._shards is not None:
            yield from self._shards.shuffled(self._seed, epoch) if self._shuffle else self._shards.in_sequence()
        elif self._shuffle:
            yield randomness.permutation(self._seed, epoch, self._length)
        else:
            yield np.arange(self._length)


def _is_encoded(images: object) -> bool:
    return isinstance(images, ShardedImages) and images.is_encoded


def _check_box_parameters(policy: Path) -> None:
    if not augmenter.takes_boxes(policies.from_json(policy.read_text())):
        raise ConfigurationError(augmenter.without_box_parameters(f"The policy {policy}"))


def _as_it_is(batch: Any) -> Any:
    return batch


class ImageData(pl.LightningDataModule):
    """The train and val splits of a prepared data set."""

    def __init__(
        self,
        path: Path,
        policy: Path | None,
        batch_size: int,
        seed: int,
        loader_workers: int = -1,
        pin_memory: bool = False,
        task: Task = "classification",
    ) -> None:
        """Bind the prepared data set's folder and a policy file (none: no augmentation).

        Args:
            path: the prepared data set.
            policy: what ``policies.to_json`` wrote.
            batch_size: images a step, over all processes.
            seed: of shuffling and augmentation.
            loader_workers: processes that decode and augment; -1 chooses them by image size, policy, storage and
                processors. None are started where there is nothing to decode or augment.
            pin_memory: for a faster copy to a GPU.
            task: what is learned, which says what belongs to the images of a batch.

        Raises:
            ConfigurationError: the task needs boxes, which the policy was built without.
        """
        super().__init__()
        if policy is not None and task in WITH_OBJECTS:
            _check_box_parameters(policy)
        self._path = path
        self._policy = policy
        self._batch_size = batch_size
        self._seed = seed
        self._pin_memory = pin_memory
        self._task = task
        self._workers = loader_workers if loader_workers >= 0 else self._fitting_workers()

    def _fitting_workers(self) -> int:
        """None where reading costs less than handing a batch over: small images, or neither policy nor decoding."""
        images = datasets.open_arrays(self._path).images
        idle = self._policy is None and not _is_encoded(images)
        if idle or images.shape[1] * images.shape[2] < PIXELS_WORTH_A_WORKER:
            return 0
        return max(0, min(8, (os.cpu_count() or 1) // 2))

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train", self._policy, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val", None, shuffle=False)

    def _loader(self, split: str, policy: Path | None, shuffle: bool) -> DataLoader[Batch]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        dataset = SplitDataset(self._path, split, policy, self._seed, world_size, self._task)
        order = dataset.shards
        batches = KeyedBatches(len(dataset), self._batch_size, self._seed, shuffle, rank, world_size, order)
        has_work = policy is not None or (order is not None and order.images.is_encoded)
        workers = self._workers if has_work else 0
        return DataLoader(
            dataset,
            sampler=batches,
            batch_size=None,  # the sampler draws whole batches
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self._pin_memory,
            # by default a loader draws from torch's global stream, more often without persistent workers than with them
            generator=torch.Generator().manual_seed(self._seed),
        )
