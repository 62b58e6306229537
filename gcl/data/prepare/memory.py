"""Little memory for many rows: what a process has freed goes back to the system between two pieces of work, so that its
peak is that of one of them, and what would sort all rows at once sorts a part of them at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

AT_ONCE = 1 << 20
"""Rows that are looked at together."""

_SAMPLED = 1 << 16


def give_back() -> None:
    """Hands back Arrow's buffers and the holes that arrays leave as they grow (with glibc: malloc_trim)."""
    pool = pa.default_memory_pool()
    pool.release_unused()
    pa.set_memory_pool(pa.system_memory_pool())  # release_unused, of whatever pool, is about the one that is set
    try:
        pool.release_unused()
    finally:
        pa.set_memory_pool(pool)


def in_parts(values: np.ndarray, *, at_once: int | None = None) -> Iterator[np.ndarray]:
    """Rows int64 of about `at_once` of the values at a time (None: AT_ONCE): those of equal values together, smaller
    values in earlier parts, and in a part the rows in order.

    >>> [rows.tolist() for rows in in_parts(np.array([7, 1, 7, 0, 1, 9]), at_once=3)]
    [[1, 3, 4], [0, 2, 5]]
    """
    count, bounds = -(-len(values) // (at_once or AT_ONCE)), np.empty(0, values.dtype)
    if count > 1:
        sample = np.sort(values[:: max(1, len(values) // _SAMPLED)])
        bounds = np.unique(sample[len(sample) * np.arange(1, count) // count])
    for place in range(len(bounds) + 1):
        here = np.ones(len(values), bool) if place == 0 else values >= bounds[place - 1]
        if place < len(bounds):
            here &= values < bounds[place]
        if here.any():
            yield np.flatnonzero(here)
