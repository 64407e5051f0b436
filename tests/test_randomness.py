"""Random numbers are a function of their key and of nothing else."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recognition.randomness import BATCH, SAMPLE, SHUFFLE, KeyedRandom, permutation, stream, windows

SEEDS = st.integers(0, 2**32 - 1)
NUMBERS = st.integers(0, 2**40)


@given(seed=SEEDS, epoch=NUMBERS, index=NUMBERS, drawn=st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_a_draw_depends_on_the_key_and_not_on_what_was_drawn_before(
    seed: int, epoch: int, index: int, drawn: int
) -> None:
    used = KeyedRandom(seed, SAMPLE)
    used.reset(epoch + 1, index)
    used.generator.normal(size=drawn)
    used.generator.integers(7, size=drawn, dtype=np.uint8)
    used.python.random()
    used.reset(epoch, index)
    fresh = KeyedRandom(seed, SAMPLE)
    fresh.reset(epoch, index)
    np.testing.assert_array_equal(used.generator.random(9), fresh.generator.random(9))
    assert used.generator.integers(1000) == fresh.generator.integers(1000)
    assert [used.python.random() for _ in range(3)] == [fresh.python.random() for _ in range(3)]


def test_the_objects_stay_the_same_so_that_their_holder_follows() -> None:
    keyed = KeyedRandom(0, SAMPLE)
    generator, python = keyed.generator, keyed.python
    keyed.reset(3, 4)
    assert keyed.generator is generator
    assert keyed.python is python


def test_streams_of_different_keys_differ() -> None:
    keys = [
        (seed, epoch, index, purpose)
        for seed in (0, 1, 2**32 - 1)
        for epoch in (0, 1, 2)
        for index in (0, 1, 2, 3, 10**6)
        for purpose in (SHUFFLE, SAMPLE, BATCH)
    ]
    starts = {tuple(stream(*key).integers(2**63, size=2)) for key in keys}
    assert len(starts) == len(keys)


def test_a_stream_is_philox_with_the_key_in_key_and_counter() -> None:
    keyed = KeyedRandom(5, BATCH)
    keyed.reset(6, 7)
    philox = np.random.Philox(key=np.array([5, 6], np.uint64), counter=np.array([0, 0, 7, BATCH], np.uint64))
    # the first number seeds the generator of the standard library
    assert keyed.python.random() == random.Random(int(philox.random_raw())).random()
    np.testing.assert_array_equal(keyed.generator.random(5), np.random.Generator(philox).random(5))


def test_neighbouring_streams_are_uncorrelated() -> None:
    drawn = np.array([stream(0, 0, index, SAMPLE).random(200) for index in range(100)])
    correlations = np.corrcoef(drawn)[np.triu_indices(100, 1)]
    # 4,950 pairs of 200 numbers: the standard deviation of a correlation is 1/sqrt(200) = 0.07
    assert abs(correlations.mean()) < 0.01
    assert np.abs(correlations).max() < 0.35
    assert abs(drawn.mean() - 0.5) < 0.01


def test_the_global_streams_are_neither_read_nor_moved() -> None:
    np.random.seed(0)
    random.seed(0)
    first = stream(1, 2, 3, SAMPLE).random()
    assert np.random.random() == np.random.RandomState(0).random_sample()
    assert random.random() == random.Random(0).random()
    assert stream(1, 2, 3, SAMPLE).random() == first


@given(seed=SEEDS, epoch=st.integers(0, 10_000), length=st.integers(0, 300))
@settings(max_examples=30, deadline=None)
def test_the_order_of_an_epoch_visits_every_sample_once(seed: int, epoch: int, length: int) -> None:
    order = permutation(seed, epoch, length)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(length))


@given(
    seed=SEEDS,
    epoch=st.integers(0, 10_000),
    sizes=st.lists(st.integers(0, 20), max_size=12),
    window=st.integers(1, 5),
)
@settings(max_examples=30, deadline=None)
def test_the_windows_of_an_epoch_visit_every_sample_of_every_shard_once(
    seed: int, epoch: int, sizes: list[int], window: int
) -> None:
    starts = np.cumsum([0, *sizes])

    def positions_in(shard: int) -> np.ndarray:
        return np.arange(starts[shard], starts[shard + 1])

    parts = list(windows(seed, epoch, len(sizes), positions_in, window))
    assert len(parts) == -(-len(sizes) // window)
    assert sorted(position for part in parts for position in part) == list(range(sum(sizes)))
    shards = [set(np.searchsorted(starts, part, side="right")) for part in parts]
    assert all(len(some) <= window for some in shards)
    again = windows(seed, epoch, len(sizes), positions_in, window)
    assert all((one == other).all() for one, other in zip(parts, again, strict=True))


def test_shards_come_in_another_order_each_epoch_and_are_mixed_within_a_window() -> None:
    def positions_in(shard: int) -> np.ndarray:
        return np.arange(100 * shard, 100 * shard + 100)

    first, second = (list(windows(0, epoch, 12, positions_in, 4)) for epoch in range(2))
    shards = [[tuple(np.unique(part // 100)) for part in epoch] for epoch in (first, second)]
    assert shards[0] != shards[1]
    # of the first 100 samples of a window about 25 are of each of its 4 shards, with a standard deviation of 3.8
    for part in (*first, *second):
        _, counts = np.unique(part[:100] // 100, return_counts=True)
        assert len(counts) == 4
        assert counts.min() > 8


def test_the_order_differs_between_epochs_and_between_seeds() -> None:
    orders = {tuple(permutation(seed, epoch, 50)) for seed in range(3) for epoch in range(4)}
    assert len(orders) == 12


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ((0, 0, 0, SAMPLE), 11_263_462_740_154_766_164),
        ((1, 0, 0, SAMPLE), 17_602_039_527_240_160_315),
        ((0, 1, 0, SAMPLE), 15_334_547_051_640_813_529),
        ((0, 0, 1, SAMPLE), 15_677_872_626_478_766_277),
        ((0, 0, 0, BATCH), 15_885_006_099_936_863_467),
    ],
)
def test_known_values_stay(key: tuple[int, int, int, int], expected: int) -> None:
    # what a run drew last year is drawn again: NumPy promises the stream of Philox' raw integers
    assert int(stream(*key).bit_generator.random_raw()) == expected


def test_a_known_order_stays() -> None:
    assert permutation(0, 0, 10).tolist() == [3, 9, 2, 7, 6, 1, 5, 0, 4, 8]


def test_known_windows_stay() -> None:
    parts = windows(0, 0, 5, lambda shard: np.arange(3 * shard, 3 * shard + 3), 2)
    assert [part.tolist() for part in parts] == [[5, 8, 6, 3, 4, 7], [10, 14, 11, 9, 12, 13], [2, 1, 0]]
