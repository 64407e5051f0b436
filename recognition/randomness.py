"""Random numbers as a pure function of (seed, epoch, index), whatever process draws them and in which order.

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a counter-based generator: key and
counter select a stream, so that a sample's stream costs no more than writing a state.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

SHUFFLE, SAMPLE, BATCH, NOISE, CODE = 1, 2, 3, 4, 5
"""What a stream is for; streams of different purposes never meet."""


class KeyedRandom:
    """One NumPy generator and one ``random.Random`` whose state is set anew for each key.

    The objects stay the same, so whoever holds them (an Albumentations pipeline) follows along.
    """

    def __init__(self, seed: int, purpose: int) -> None:
        """Bind the seed, 0 <= seed < 2**32, and the purpose of the streams."""
        self._bits = np.random.Philox(key=0)
        self.generator = np.random.Generator(self._bits)
        self.python = random.Random(0)
        self._seed = seed
        self._purpose = purpose

    def reset(self, epoch: int, index: int) -> None:
        """Move both generators to the start of the stream of (seed, epoch, index)."""
        self._bits.state = {
            "bit_generator": "Philox",
            "state": {
                "counter": np.array([0, 0, index, self._purpose], dtype=np.uint64),
                "key": np.array([self._seed, epoch], dtype=np.uint64),
            },
            "buffer": np.zeros(4, dtype=np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        self.python.seed(int(self._bits.random_raw()))


def stream(seed: int, epoch: int, index: int, purpose: int) -> np.random.Generator:
    """A generator at the start of the stream of (seed, epoch, index)."""
    keyed = KeyedRandom(seed, purpose)
    keyed.reset(epoch, index)
    return keyed.generator


def permutation(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """The order in which an epoch visits its samples: a permutation of 0..length-1, int64."""
    return stream(seed, epoch, 0, SHUFFLE).permutation(length)


WINDOW = 8
"""Shards whose images are shuffled together."""


def windows(
    seed: int, epoch: int, shards: int, positions_in: Callable[[int], NDArray[np.int64]], size: int = WINDOW
) -> Iterator[NDArray[np.int64]]:
    """The order in which an epoch visits samples that lie in shards, a window of shards at a time.

    The shards come in random order; within a window of ``size`` of them all samples are mixed. So no more than a
    window's positions are in memory, and no more than its shards are needed at a time.

    Args:
        seed: of shuffling.
        epoch: which epoch.
        shards: how many there are.
        positions_in: gives the positions of the samples in a shard, int64 (n,), n >= 0.
        size: shards a window.
    """
    order = permutation(seed, epoch, shards)
    for number, start in enumerate(range(0, shards, size)):
        together = np.concatenate([positions_in(int(shard)) for shard in order[start : start + size]])
        yield stream(seed, epoch, number + 1, SHUFFLE).permutation(together)
