"""Batches are a function of (seed, epoch): the same for any number of worker processes and devices."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lightning_modules.data_module import Batch, ImageData, KeyedBatches, SplitDataset
from recognition import datasets, policies, randomness
from recognition.experiment import Data
from recognition.preparation import prepare
from recognition.records import PreparedData
from recognition.store import shard_writing, shards

BATCH_SIZE = 100


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(tmp_path_factory.mktemp("state")))
        return prepare(Data())


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The same images in 29 shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setattr(shard_writing, "SHARD_BYTES", 64 * 8 * 8)
        return prepare(Data(storage="shards"))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The same images at 96 pixels, as JPEGs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setattr(shard_writing, "SHARD_BYTES", 1 << 19)
        return prepare(Data(storage="shards", image_size=96))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    path.write_text(policies.to_json(policies.build(policies.presets()["shift_rotate"], 8, 8)))
    return path


def as_it_is(batch: Batch) -> Batch:
    return batch


def drawn(
    data: PreparedData,
    policy: Path | None,
    epochs: int,
    seed: int = 0,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
    persistent: bool = False,
) -> list[list[Batch]]:
    """The batches of some epochs, through torch's own loader."""
    dataset = SplitDataset(data.path, "train", policy, seed, ranks)
    sampler = KeyedBatches(len(dataset), BATCH_SIZE, seed, True, rank, ranks, dataset.shards)
    loader: DataLoader[Batch] = DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        collate_fn=as_it_is,
        num_workers=workers,
        persistent_workers=persistent,
    )
    result = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        result.append(list(loader))
    return result


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.positions, b.positions)
        and a.share == b.share
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than processors are meant here
@pytest.mark.parametrize(("workers", "persistent"), [(2, False), (2, True), (4, True)])
def test_batches_do_not_depend_on_workers(digits: PreparedData, policy: Path, workers: int, persistent: bool) -> None:
    alone = drawn(digits, policy, 2)
    shared = drawn(digits, policy, 2, workers=workers, persistent=persistent)
    for one, other in zip(alone, shared, strict=True):
        assert same(one, other)


class _Watching(pl.LightningModule):
    """Keeps the batches that Lightning hands over, and learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.epochs: list[list[Batch]] = []

    def on_train_epoch_start(self) -> None:
        self.epochs.append([])

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.epochs[-1].append(batch)
        return self.weight.sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_gets_the_same_batches_whatever_the_workers(
    digits: PreparedData, policy: Path, workers: int, tmp_path: Path
) -> None:
    module = _Watching()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=ImageData(digits.path, policy, BATCH_SIZE, 0, workers))
    for one, other in zip(module.epochs, drawn(digits, policy, 2), strict=True):
        assert same(one, other)


def test_every_epoch_has_another_order_and_other_draws(digits: PreparedData, policy: Path) -> None:
    first, second, third = drawn(digits, policy, 3)
    for one, other in ((first, second), (second, third), (first, third)):
        assert not same(one, other)
        images = [
            {
                int(p): image.numpy().tobytes()
                for batch in epoch
                for p, image in zip(batch.positions, batch.images, strict=True)
            }
            for epoch in (one, other)
        ]
        # 1 in 5 images is left as it is by the policy, in each epoch
        alike = sum(images[0][position] == images[1][position] for position in images[0])
        assert alike < 0.15 * len(images[0])


def test_another_seed_gives_another_order(digits: PreparedData) -> None:
    one, other = drawn(digits, None, 1, seed=0)[0], drawn(digits, None, 1, seed=1)[0]
    assert not torch.equal(one[0].positions, other[0].positions)


def test_each_sample_comes_once_an_epoch_with_its_own_label_and_pixels(digits: PreparedData) -> None:
    split = datasets.open_arrays(digits.path).split("train")
    for epoch in drawn(digits, None, 2):
        positions = torch.cat([batch.positions for batch in epoch]).numpy()
        assert sorted(positions) == list(range(digits.counts["train"]))
        np.testing.assert_array_equal(torch.cat([batch.labels for batch in epoch]).numpy(), split.labels[positions])
        images = torch.cat([batch.images for batch in epoch])
        np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), split.batch(positions))


def test_a_batch_is_uint8_with_channels_last_in_memory(digits: PreparedData, policy: Path) -> None:
    batch = drawn(digits, policy, 1)[0][0]
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (BATCH_SIZE, 1, 8, 8)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.dtype == batch.positions.dtype == torch.int64
    assert batch.share == 1.0


def test_the_last_batch_is_what_is_left(digits: PreparedData) -> None:
    sizes = [len(batch.labels) for batch in drawn(digits, None, 1)[0]]
    whole, left = divmod(digits.counts["train"], BATCH_SIZE)
    assert left > 0
    assert sizes == [BATCH_SIZE] * whole + [left]


def test_two_processes_share_each_batch_of_one(digits: PreparedData, policy: Path) -> None:
    alone = drawn(digits, policy, 2)
    ranks = [drawn(digits, policy, 2, rank=rank, ranks=2) for rank in range(2)]
    for epoch in range(2):
        for whole, first, second in zip(alone[epoch], ranks[0][epoch], ranks[1][epoch], strict=True):
            for rank, part in enumerate((first, second)):
                assert torch.equal(part.positions, whole.positions[rank::2])
                assert torch.equal(part.images, whole.images[rank::2])
                assert torch.equal(part.labels, whole.labels[rank::2])


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_the_mean_of_local_means_times_shares_is_the_mean_over_the_batch(size: int) -> None:
    values = np.random.default_rng(size).random(size)
    sampler = [next(iter(KeyedBatches(size, 8, 0, False, rank, 2)), []) for rank in range(2)]
    if size == 1:
        # too small to give each process a sample
        assert sampler == [[], []]
        return
    total = 0.0
    for keys in sampler:
        local = np.mean([values[position] for (_, position), _ in keys])
        share = len(keys) * 2 / keys[0][1]
        total += local * share / 2
    assert total == pytest.approx(values.mean())


def test_shares_follow_the_uneven_last_batch(digits: PreparedData) -> None:
    left = digits.counts["train"] % BATCH_SIZE
    first, second = (drawn(digits, None, 1, rank=rank, ranks=2)[0] for rank in range(2))
    assert {batch.share for batch in first[:-1]} == {1.0}
    assert (len(first[-1].labels), len(second[-1].labels)) == ((left + 1) // 2, left // 2)
    assert first[-1].share + second[-1].share == pytest.approx(2.0)
    assert first[-1].share == pytest.approx(2 * ((left + 1) // 2) / left)


@pytest.mark.parametrize(
    ("length", "ranks", "sizes"),
    [
        (17, 1, [8, 9]),
        (18, 1, [8, 8, 2]),
        (1, 1, [1]),
        (18, 2, [8, 10]),
        (19, 2, [8, 11]),
        (20, 2, [8, 8, 4]),
        (3, 2, [3]),
        (16, 2, [8, 8]),
    ],
)
def test_a_rest_of_less_than_two_samples_a_process_joins_the_last_batch(
    length: int, ranks: int, sizes: list[int]
) -> None:
    shares = [list(KeyedBatches(length, 8, 0, True, rank, ranks)) for rank in range(ranks)]
    assert [sum(len(keys) for keys in batch) for batch in zip(*shares, strict=True)] == sizes
    seen = [position for batches in shares for keys in batches for (_, position), _ in keys]
    assert sorted(seen) == list(range(length))
    for batches in shares:
        assert [whole for keys in batches for _, whole in keys[:1]] == sizes


@pytest.mark.parametrize(("length", "batch_size", "ranks"), [(10, 4, 1), (10, 4, 2), (9, 4, 2), (3, 8, 4), (0, 4, 1)])
def test_the_announced_number_of_batches_is_the_real_one(length: int, batch_size: int, ranks: int) -> None:
    for rank in range(ranks):
        batches = KeyedBatches(length, batch_size, 0, True, rank, ranks)
        assert len(list(batches)) == len(batches)


def test_validation_is_in_order_and_not_augmented(digits: PreparedData, policy: Path) -> None:
    split = datasets.open_arrays(digits.path).split("val")
    batches: Iterator[Batch] = iter(ImageData(digits.path, policy, 64, 0, 2).val_dataloader())
    images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(images, split.batch(np.arange(len(split))))


def test_workers_are_fitted_to_images_and_policy(digits: PreparedData, policy: Path) -> None:
    assert ImageData(digits.path, policy, 64, 0).train_dataloader().num_workers == 0  # 8 pixels
    assert ImageData(digits.path, None, 64, 0, 2).train_dataloader().num_workers == 0  # nothing to augment
    loader = ImageData(digits.path, policy, 64, 0, 2).train_dataloader()
    assert (loader.num_workers, loader.persistent_workers) == (2, True)


def test_sharded_sets_hold_the_same_images_and_splits(digits: PreparedData, sharded: PreparedData) -> None:
    one, other = datasets.open_arrays(digits.path), datasets.open_arrays(sharded.path)
    everything = np.arange(len(one))
    np.testing.assert_array_equal(one.images[everything], other.images[everything])
    np.testing.assert_array_equal(one.labels, other.labels)
    for name in ("train", "val", "test"):
        np.testing.assert_array_equal(one.indices[name], other.indices[name])
    assert (digits.digest, digits.mean, digits.std) == (sharded.digest, sharded.mean, sharded.std)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("workers", "persistent"), [(2, False), (3, True)])
def test_batches_from_shards_do_not_depend_on_workers(
    sharded: PreparedData, policy: Path, workers: int, persistent: bool
) -> None:
    alone = drawn(sharded, policy, 2)
    shared = drawn(sharded, policy, 2, workers=workers, persistent=persistent)
    for one, other in zip(alone, shared, strict=True):
        assert same(one, other)


def test_two_processes_share_each_batch_from_shards(sharded: PreparedData, policy: Path) -> None:
    alone = drawn(sharded, policy, 2)
    ranks = [drawn(sharded, policy, 2, rank=rank, ranks=2) for rank in range(2)]
    for epoch in range(2):
        for whole, *parts in zip(alone[epoch], ranks[0][epoch], ranks[1][epoch], strict=True):
            for rank, part in enumerate(parts):
                assert torch.equal(part.positions, whole.positions[rank::2])
                assert torch.equal(part.images, whole.images[rank::2])


def test_each_sharded_sample_comes_once_an_epoch_with_its_own_label_and_pixels(sharded: PreparedData) -> None:
    split = datasets.open_arrays(sharded.path).split("train")
    first, second = drawn(sharded, None, 2)
    assert not torch.equal(first[0].positions, second[0].positions)
    for epoch in (first, second):
        positions = torch.cat([batch.positions for batch in epoch]).numpy()
        assert sorted(positions) == list(range(sharded.counts["train"]))
        np.testing.assert_array_equal(torch.cat([batch.labels for batch in epoch]).numpy(), split.labels[positions])
        images = torch.cat([batch.images for batch in epoch])
        np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), split.batch(positions))


def test_a_batch_from_shards_touches_few_of_them(sharded: PreparedData) -> None:
    split = datasets.open_arrays(sharded.path).split("train")
    images = split.arrays.images
    assert isinstance(images, shards.ShardedImages)
    assert images.shards == 29
    shard_of = {int(index): shard for shard in range(29) for index in images.indices_in(shard)}
    for batch in drawn(sharded, None, 1)[0]:
        touched = {shard_of[int(index)] for index in split.indices[batch.positions.numpy()]}
        assert len(touched) <= 2 * randomness.WINDOW  # a batch may end one window and begin the next


def test_validation_from_shards_goes_through_them_in_turn_always_in_the_same_order(encoded: PreparedData) -> None:
    split = datasets.open_arrays(encoded.path).split("val")
    module = ImageData(encoded.path, None, 64, 0, 2)
    first, second = ([batch.positions for batch in module.val_dataloader()] for _ in range(2))
    positions = torch.cat(first).numpy()
    np.testing.assert_array_equal(positions, torch.cat(second).numpy())
    assert sorted(positions) == list(range(len(split)))
    images = torch.cat([batch.images for batch in module.val_dataloader()]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(images, split.batch(positions))


def test_workers_decode_what_is_encoded_also_without_a_policy(
    encoded: PreparedData, sharded: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    module = ImageData(encoded.path, None, 64, 0)
    assert [loader.num_workers for loader in (module.train_dataloader(), module.val_dataloader())] == [2, 2]
    assert ImageData(sharded.path, None, 64, 0, 2).train_dataloader().num_workers == 0  # nothing to decode


def test_a_moved_data_set_gives_the_same_batches(digits: PreparedData, policy: Path, tmp_path: Path) -> None:
    moved = digits.model_copy(update={"path": Path(shutil.copytree(digits.path, tmp_path / "moved"))})
    assert same(drawn(moved, policy, 1)[0], drawn(digits, policy, 1)[0])
