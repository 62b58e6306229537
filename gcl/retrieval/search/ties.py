"""The order of results, total and the same everywhere: score descending, document id ascending.

Ids are compared as strings of Unicode code points. Their ranks are computed once per corpus; ties are integers then.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from gcl.retrieval.settings import TieRule

_ROWS = 64  # queries put in order at once: their keys stay in the cache


def id_ranks(ids: Sequence[str]) -> np.ndarray:
    """Position of each id in sorted order, int32[M]. Raises ValueError if two ids are equal.

    >>> id_ranks(["b", "a10", "a9"])
    array([2, 0, 1], dtype=int32)
    """
    names = [str(name) for name in ids]
    order = sorted(range(len(names)), key=names.__getitem__)
    for left, right in itertools.pairwise(order):
        if names[left] == names[right]:
            raise ValueError(
                f"The document id {names[left]!r} is in the corpus twice (rows {left} and {right}): make ids unique."
            )
    ranks = np.empty(len(names), dtype=np.int32)
    ranks[order] = np.arange(len(names), dtype=np.int32)
    return ranks


def pack(score: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """int64 keys that sort ascending like (score descending, id rank ascending); score float32, rank int32.

    >>> pack(np.float32([0.5, -0.0, 0.0, 0.5]), np.array([3, 2, 1, 0])).argsort()
    array([3, 0, 2, 1])
    """
    bits = (score.astype(np.float32, copy=False) + np.float32(0)).view(
        np.int32
    )  # -0.0 + 0.0 is 0.0: equal scores, equal bits
    rising = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))  # IEEE 754 as an integer that rises with the number
    keys = (~rising).astype(np.int64)
    keys <<= 32
    keys |= rank
    return keys


def unpack(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score and id rank of `pack`'s keys.

    >>> unpack(pack(np.float32([0.5, -1.0]), np.array([3, 7])))
    (array([ 0.5, -1. ], dtype=float32), array([3, 7]))
    """
    rising = (~(keys >> 32)).astype(np.int32)
    return (rising ^ ((rising >> 31) & np.int32(0x7FFFFFFF))).view(np.float32), keys & 0x7FFFFFFF


def best_of(k: int, score: np.ndarray, name: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
    """The k best of score[Q, n], best first, with name[Q, n] (ids or rows, by which ties are in order) and more[Q, n].

    >>> best_of(2, np.float32([[1, 3, 3]]), np.array([["a", "c", "b"]], object))
    (array([[3., 3.]], dtype=float32), array([['b', 'c']], dtype=object))
    """
    names = name.astype(str) if name.dtype == object else name
    order = np.lexsort((names, -score), axis=1)[:, :k]
    return tuple(np.take_along_axis(one, order, axis=1) for one in (score, name, *more))


def with_ties(
    score: np.ndarray, row: np.ndarray, rank: np.ndarray, ties: TieRule | str = TieRule.ascending
) -> tuple[np.ndarray, np.ndarray]:
    """Results score[Q, K], row[Q, K] sorted by score, ties by id ascending (ours), by id descending (trec_eval,
    pytrec_eval); or "listed", as they are. Rows of -1 (no result) go last, with a score of -inf. rank[M]: `id_ranks`.

    >>> with_ties(np.float32([[2, 3, 2]]), np.array([[0, 1, 2]]), np.array([0, 1, 2]), "descending")
    (array([[3., 2., 2.]], dtype=float32), array([[1, 2, 0]]))
    """
    rule = TieRule(ties)
    if rule is TieRule.published:
        raise ValueError("The published figures mix two orders: give one of ascending, descending and listed.")
    if rule is TieRule.listed:
        return score, row
    place = rank if rule is TieRule.ascending else len(rank) - 1 - rank
    row_of_place = np.full(len(rank) + 1, -1)
    row_of_place[place] = np.arange(len(rank))
    place = np.append(place, len(rank)).astype(np.int32)  # row -1 is the last place
    scores, rows = score.astype(np.float32), row.astype(np.int64)  # copies
    settled = (row >= 0).all(axis=1) & (score[:, 1:] < score[:, :-1]).all(axis=1)
    unsettled = np.flatnonzero(~settled)  # few, as a rule
    for start in range(0, len(unsettled), _ROWS):
        some = unsettled[start : start + _ROWS]
        places = place.take(row[some], mode="wrap")  # which is faster than indexing
        keys = pack(np.where(places < len(rank), score[some], np.float32(-np.inf)), places)
        keys.sort(axis=1)
        scores[some], places = unpack(keys)
        rows[some] = row_of_place.take(places, mode="wrap")
    return scores, rows
