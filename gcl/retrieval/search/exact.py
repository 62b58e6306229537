"""The score of a pair: the exact dot product of two float32 vectors, rounded to float64 and then to float32.

A matrix product's last bits depend on the block's shape, the pair's place in it, the number of threads and the
library. This score depends on the two vectors alone: equal documents tie, and results compare bit for bit anywhere.

Products of float32 numbers are exact in float64. Only their sum is rounded, in any order of addition by at most
D * 2^-53 * sum |q_i d_i| (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 4.2). Where that much
could change the float32, about once in a million pairs, the sum is formed exactly (Shewchuk 1997, `math.fsum`).
"""

from __future__ import annotations

import math

import numpy as np

_ROWS = 128  # that many vectors in float64 stay in a core's cache
UNIT32, UNIT64 = 2.0**-24, 2.0**-53


def exact_scores(query: np.ndarray, corpus: np.ndarray, start: np.ndarray, row: np.ndarray, norm: float) -> np.ndarray:
    """Scores of query[q] with corpus[row[start[q] : start[q + 1]]] for every q, flat like row[n], float32.

    query[Q, D] float32, corpus[M, D], start[Q + 1]; norm: at least the length of the longest document vector.

    >>> exact_scores(np.float32([[1, 2]]), np.float32([[3, 4], [0, 1]]), np.array([0, 2]), np.array([1, 0]), 5.0)
    array([ 2., 11.], dtype=float32)
    """
    width = query.shape[1]
    total, slack = np.empty(len(row)), np.empty(len(row))
    narrow, wide = np.empty((_ROWS, width), np.float32), np.empty((_ROWS, width))
    for q, vector in enumerate(query.astype(np.float64)):
        slack[start[q] : start[q + 1]] = 1.01 * width * UNIT64 * math.sqrt(vector @ vector) * norm
        for first in range(start[q], start[q + 1], _ROWS):
            last = min(first + _ROWS, start[q + 1])
            count = last - first
            if corpus.dtype == np.float32:
                np.take(corpus, row[first:last], axis=0, out=narrow[:count], mode="clip")
            else:
                narrow[:count] = corpus[row[first:last]]
            wide[:count] = narrow[:count]
            np.dot(wide[:count], vector, out=total[first:last])
    unsure = np.flatnonzero((total - slack).astype(np.float32) != (total + slack).astype(np.float32))
    for pair, q in zip(unsure, np.searchsorted(start, unsure, side="right") - 1, strict=True):
        document = np.asarray(corpus[row[pair]], dtype=np.float32).astype(np.float64)
        total[pair] = math.fsum(document * query[q].astype(np.float64))
    return total.astype(np.float32)
