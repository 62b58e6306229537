"""Random numbers straight from a Philox counter: numpy keeps bit generators' streams stable across versions, but not
`Generator.permutation`, so a run resumed under another numpy sees the same batches."""

from __future__ import annotations

import numpy as np


def random_stream(*key: int) -> np.random.Philox:
    """The stream of random numbers of these integers, the same in every version of NumPy."""
    return np.random.Philox(np.random.SeedSequence(key))


def permutation(stream: np.random.Philox, count: int) -> np.ndarray:
    """0 … count - 1 in random order, int64 [count]."""
    return np.argsort(stream.random_raw(count), kind="stable")
