"""The score of a pair of vectors, exact: what every search ends with.

The exact dot product of two float32 vectors, rounded to float64 and then to float32. It depends on the two vectors
alone, not on the order of a sum, a library or a machine.
"""

from __future__ import annotations

import math
from typing import NoReturn

import numpy as np

ROWS = 128  # vectors gathered at once for one query: they stay in a core's cache
UNIT32, UNIT64 = 2.0**-24, 2.0**-53  # relative rounding errors


class NotFinite(ValueError):
    """A vector that holds NaN or infinity has no nearest documents."""


def just_below(limit: np.ndarray) -> np.ndarray:
    """float32 that are certainly below."""
    return np.nextafter(limit.astype(np.float32), np.float32(-np.inf))


def raise_imprecise() -> NoReturn:
    """For a matrix product that is further from the exact one than its bound."""
    raise RuntimeError(
        "numpy's matrix product is less precise here than float32 promises, so the search cannot be exact: use "
        "a BLAS library that does not compute in lower precision."
    )


def exact_scores(query: np.ndarray, corpus: np.ndarray, start: np.ndarray, row: np.ndarray, norm: float) -> np.ndarray:
    """Scores of query[q] with corpus[row[start[q] : start[q + 1]]] for every q, flat like row[n], float32.

    Products of float32 numbers are exact in float64. Only their sum is rounded, in any order of addition by at most
    D * 2^-53 * sum |q_i d_i| (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 4.2). Where that
    much could change the float32, about once in a million pairs, the sum is formed exactly (Shewchuk 1997,
    `math.fsum`).

    query[Q, D] float32, corpus[M, D], start[Q + 1]; norm: at least the length of the longest document vector.

    >>> exact_scores(np.float32([[1, 2]]), np.float32([[3, 4], [0, 1]]), np.array([0, 2]), np.array([1, 0]), 5.0)
    array([ 2., 11.], dtype=float32)
    """
    width = query.shape[1]
    total, slack = np.empty(len(row)), np.empty(len(row))
    narrow, wide = np.empty((ROWS, width), np.float32), np.empty((ROWS, width))
    for q, vector in enumerate(query.astype(np.float64)):
        slack[start[q] : start[q + 1]] = 1.01 * width * UNIT64 * math.sqrt(vector @ vector) * norm
        for first in range(start[q], start[q + 1], ROWS):
            last = min(first + ROWS, start[q + 1])
            count = last - first
            if corpus.dtype == np.float32:
                np.take(corpus, row[first:last], axis=0, out=narrow[:count], mode="clip")
            else:
                narrow[:count] = corpus[row[first:last]]
            wide[:count] = narrow[:count]
            np.dot(wide[:count], vector, out=total[first:last])
    unsure = _unsure(total, slack, np.arange(len(row)))
    owner = np.searchsorted(start, unsure, side="right") - 1
    for first in range(0, len(unsure), ROWS):  # the lengths' product says little where the vectors are orthogonal
        pairs, queries = unsure[first : first + ROWS], owner[first : first + ROWS]
        documents = np.asarray(corpus[row[pairs]], dtype=np.float64)
        slack[pairs] = 1.01 * width * UNIT64 * np.abs(documents * query[queries].astype(np.float64)).sum(axis=1)
    unsure = _unsure(total, slack, unsure)
    known: dict[tuple[int, bytes], float] = {}  # equal documents are unsure together
    for pair, q in zip(unsure.tolist(), (np.searchsorted(start, unsure, side="right") - 1).tolist(), strict=True):
        document = np.asarray(corpus[row[pair]], dtype=np.float32)
        key = (q, document.tobytes())
        if key not in known:
            known[key] = math.fsum(document.astype(np.float64) * query[q].astype(np.float64))
        total[pair] = known[key]
    return total.astype(np.float32)


def _unsure(total: np.ndarray, slack: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Those pairs whose float32 could be another one."""
    low, high = total[pairs] - slack[pairs], total[pairs] + slack[pairs]
    return pairs[low.astype(np.float32) != high.astype(np.float32)]
