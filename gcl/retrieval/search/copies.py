"""Equal documents: of those, only the k with the lowest ids can be among the k best of any query."""

from __future__ import annotations

import numpy as np

_SAMPLE, _OFTEN = 64, 4  # documents looked at for equal ones, and how many equal ones among them are many
_BLOCK = 2048  # documents compared at once


def few_of_each(corpus: np.ndarray, mine: range, k: int, rank: np.ndarray) -> np.ndarray:
    """row[n] int32, ascending: those of `mine` that can be among the k best documents of any query.

    Of equal documents only the k with the lowest ids can. They are looked for where a sample shows that there are many
    (a collapsed model, a column of placeholders): to tell each of them from the k best by its score would take longer
    than all the rest. What is not equal in every number is kept.

    >>> few_of_each(np.zeros((1000, 3), np.float32), range(1000), 2, np.arange(1000)[::-1])
    array([998, 999], dtype=int32)
    """
    rows = np.arange(mine.start, mine.stop, dtype=np.int32)
    if len(rows) <= k:
        return rows
    sample = np.sort(np.random.default_rng(0).choice(rows, min(_SAMPLE, len(rows)), replace=False))
    values, count = np.unique(_bits(corpus[sample]), axis=0, return_counts=True)
    kept = np.ones(len(rows), dtype=bool)
    for value in values[count >= _OFTEN]:
        blocks = range(mine.start, mine.stop, _BLOCK)
        equal = [(_bits(corpus[start : min(start + _BLOCK, mine.stop)]) == value).all(axis=1) for start in blocks]
        members = rows[np.concatenate(equal)]
        if len(members) > k:
            kept[members[np.argpartition(rank[members], k - 1)[k:]] - mine.start] = False
    return rows[kept]


def _bits(vectors: np.ndarray) -> np.ndarray:
    """vectors[n, D] -> uint64 [n, D / 2], two numbers in each."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.shape[1] % 2:
        vectors = np.pad(vectors, [(0, 0), (0, 1)])
    return vectors.view(np.uint64)
