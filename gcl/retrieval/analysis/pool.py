"""What is worth judging: the results of several models that nobody has judged, those first on which they disagree.

Depth-k pooling (Spärck Jones and van Rijsbergen 1975; TREC since 1992, see Voorhees and Harman 2005): whatever any of
the compared models has among its first k results is judged, the rest counts as irrelevant. The order is that of
Carterette, Allan and Sitaraman 2006, "Minimal test collections for retrieval evaluation"
(https://doi.org/10.1145/1148170.1148219): first what can move the difference between the models most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gcl.retrieval.tasks.task import JudgedPairs


class Pool(NamedTuple):
    """P pairs to judge, in order: positions of queries and documents, and how much each may move the comparison."""

    query: np.ndarray
    document: np.ndarray
    moves: np.ndarray


def pooled(rows: Sequence[np.ndarray], judgments: JudgedPairs, *, documents: int, depth: int) -> Pool:
    """The unjudged pairs among the first `depth` results of each model: rows[model][Q, K], corpus positions (-1: none).

    A result at rank r adds its relevance / log2(r + 1) to nDCG, one beyond `depth` nothing. A pair moves the comparison
    by the largest difference of that discount between two models. Queries come by the sum over their pairs, largest
    first, and stay together, so that a judge reads each once; within a query pairs come by how much they move, and what
    all models show at the same rank by that rank.

    >>> nobody = JudgedPairs([], [], [])
    >>> pooled([np.array([[7, 5]]), np.array([[7, 8]])], nobody, documents=9, depth=2).document
    array([5, 8, 7])
    """
    found = []  # of each model: the pairs as numbers, and their discount
    for row in rows:
        query, place = np.nonzero(row[:, :depth] >= 0)
        found.append((query * documents + row[query, place], 1 / np.log2(place + 2.0)))
    pairs, where = np.unique(np.concatenate([pair for pair, _ in found]), return_inverse=True)
    discount = np.zeros((len(found), len(pairs)))
    model = np.repeat(np.arange(len(found)), [len(pair) for pair, _ in found])
    discount[model, where.reshape(-1)] = np.concatenate([value for _, value in found])
    open_ = ~np.isin(pairs, judgments.query * documents + judgments.document) & (not judgments.complete)
    pairs, discount = pairs[open_], discount[:, open_]
    query, document = np.divmod(pairs, documents)
    high = discount.max(axis=0)
    moves = high - discount.min(axis=0)
    total = np.bincount(query, weights=moves, minlength=len(rows[0]))
    order = np.lexsort((document, -high, -moves, query, -total[query]))
    return Pool(query[order], document[order], moves[order])


def in_order(pools: Sequence[Pool]) -> list[tuple[int, int, int]]:
    """(number of the pool, query, document) of the pools of several tasks, their queries merged in the same order."""
    which = np.repeat(np.arange(len(pools)), [len(pool.query) for pool in pools])
    query, document, moves = (np.concatenate(column) for column in zip(*pools, strict=True))
    first = np.r_[True, (np.diff(which) != 0) | (np.diff(query) != 0)][: len(query)]  # of each query's pairs
    search = np.cumsum(first) - 1
    total = np.bincount(search, weights=moves)
    order = np.lexsort((search, -total[search]))
    return list(zip(which[order].tolist(), query[order].tolist(), document[order].tolist(), strict=True))
