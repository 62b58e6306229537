"""Retrieval metrics as functions of the hits of each query, [Q] float64: no names, no averages.

`Hits` holds, for each query, the ranks at which something relevant was found and how relevant it is. A running sum
along the hits answers every cutoff at once, and the bits of a query's value depend on that query only, however many
are measured together.

Judged documents that were missed stay in every ideal and denominator. A query without a relevant judgment scores 0, as
in trec_eval. A relevance below 0 counts as 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

_LARGEST_EXPONENT = 1000.0  # 2**1024 is no float64
# What is known of a result: nothing was retrieved there, judged for this query, for another one only, for no query.
NOTHING, JUDGED, JUDGED_ELSEWHERE, UNKNOWN = range(4)
GRADES = 4  # Chapelle et al. 2009 use the grades 0…4; err_grades maps a query's highest relevance to 4.


@dataclass
class Hits:
    """The relevant documents that were found and those that could have been.

    rank[Q, H]: from 0, ascending; padding is beyond every cutoff. gain[Q, H]: above 0; padding is 0.
    ideal[Q, J]: all judged relevances above 0, largest first, padded with 0; count[Q]: how many those are.
    """

    rank: np.ndarray
    gain: np.ndarray
    ideal: np.ndarray
    count: np.ndarray
    _within: dict[int | None, np.ndarray] = field(default_factory=dict, repr=False)
    _running: dict[object, np.ndarray] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(gains: np.ndarray, judged: np.ndarray) -> Hits:
        """From gains[Q, K] of the retrieved documents in rank order (0: unjudged or none) and judged[Q, J], all
        relevances of each query (padded with 0, any order). Relevant is what is above 0."""
        gains, judged = np.atleast_2d(np.asarray(gains)), np.atleast_2d(np.asarray(judged))
        if len(gains) != len(judged):
            raise ValueError(
                f"Gains of {len(gains)} queries, but judgments of {len(judged)}: both need one row per query."
            )
        relevant = gains > 0
        query, rank = np.nonzero(relevant)
        count = np.bincount(query, minlength=len(gains))
        column = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
        width = int(count.max(initial=0))
        ranks = np.full((len(gains), width), np.iinfo(np.int32).max, dtype=np.int32)
        values = np.zeros((len(gains), width))
        ranks[query, column] = rank
        values[query, column] = gains[query, rank]
        ideal = -np.sort(-np.where(judged > 0, judged, 0.0).astype(np.float64), axis=1)
        return Hits(ranks, values, ideal, np.count_nonzero(ideal, axis=1))

    def within(self, k: int | None) -> np.ndarray:
        """How many hits each query has among its first k, [Q]."""
        if k not in self._within:
            inside = self.rank < (np.iinfo(np.int32).max if k is None else k)
            self._within[k] = np.count_nonzero(inside, axis=1)
        return self._within[k]

    @property
    def highest(self) -> np.ndarray:
        """The highest judged relevance of each query, [Q]; 0 where nothing is relevant."""
        return self.ideal[:, 0] if self.ideal.shape[1] else np.zeros(len(self.ideal))

    def total(self, key: object, value: Callable[[], np.ndarray], k: int | None) -> np.ndarray:
        """Sum over each query's first `within(k)` hits of value()[Q, H]; the running sum is kept under `key`."""
        if key not in self._running:
            self._running[key] = _running_sum(value())
        return self._running[key][np.arange(len(self.rank)), self.within(k)]

    def ideal_total(self, key: object, value: Callable[[], np.ndarray], k: int | None) -> np.ndarray:
        """The same over the first k of each query's ideal list."""
        if key not in self._running:
            self._running[key] = _running_sum(value())
        running = self._running[key]
        return running[:, running.shape[1] - 1 if k is None else min(k, running.shape[1] - 1)]


def ndcg(hits: Hits, k: int | None = None, *, exponential: bool = False) -> np.ndarray:
    """Normalised discounted cumulated gain (Järvelin and Kekäläinen 2002), sum gain / log2(rank + 1) over its ideal.

    The gain is the relevance itself (trec_eval), or 2^relevance - 1 (Burges et al. 2005) if `exponential`.

    >>> ndcg(Hits.of([[3, 0, 2]], [[3, 2, 1]]), 3).round(4)
    array([0.84])
    >>> ndcg(Hits.of([[3, 0, 2]], [[3, 2, 1]]), 3, exponential=True).round(4)
    array([0.9049])
    """
    top = hits.highest[:, None]
    if exponential and top.max(initial=0.0) > _LARGEST_EXPONENT:
        raise ValueError(f"ndcg_exp: 2^{top.max():g} is too large a gain; use 'ndcg' or smaller grades.")

    def scaled(relevance: np.ndarray) -> np.ndarray:
        # Divided by 2^top, which cancels: grades of 100 would otherwise reach 1e30.
        return np.where(relevance > 0, np.exp2(relevance - top) - np.exp2(-top), 0.0) if exponential else relevance

    def gained() -> np.ndarray:
        return scaled(hits.gain) / np.log2(hits.rank + 2.0)

    def best() -> np.ndarray:
        return scaled(hits.ideal) / np.log2(np.arange(hits.ideal.shape[1]) + 2.0)

    reached = hits.total(("dcg", exponential), gained, k)
    return _ratio(reached, hits.ideal_total(("ideal dcg", exponential), best, k))


def average_precision(hits: Hits, k: int | None = None) -> np.ndarray:
    """Mean over all relevant documents of the precision at their rank; 0 for those not among the first k.

    >>> average_precision(Hits.of([[1, 0, 1]], [[1, 1]]))
    array([0.83333333])
    """
    reached = hits.total("ap", lambda: (np.arange(hits.rank.shape[1]) + 1.0) / (hits.rank + 1.0), k)
    return _ratio(reached, hits.count)


def reciprocal_rank(hits: Hits, k: int | None = None) -> np.ndarray:
    """1 / rank of the first relevant document, 0 if there is none among the first k (Voorhees 1999).

    >>> reciprocal_rank(Hits.of([[0, 1, 1], [0, 0, 0]], [[1, 1], [1, 0]]), 10)
    array([0.5, 0. ])
    """
    if not hits.rank.shape[1]:
        return np.zeros(len(hits.rank))
    return np.where(hits.within(k) > 0, 1.0 / (hits.rank[:, 0] + 1.0), 0.0)


def recall(hits: Hits, k: int | None = None) -> np.ndarray:
    """Share of the relevant documents that are among the first k.

    >>> recall(Hits.of([[1, 0, 1]], [[1, 1, 1, 1]]), 3)
    array([0.5])
    """
    return _ratio(hits.within(k), hits.count)


def precision(hits: Hits, k: int) -> np.ndarray:
    """Share of the first k that is relevant; a list shorter than k is filled up with irrelevant documents.

    >>> precision(Hits.of([[1, 0, 1]], [[1, 1]]), 5)
    array([0.4])
    """
    return hits.within(k) / float(k)


def hit_rate(hits: Hits, k: int) -> np.ndarray:
    """1 if anything relevant is among the first k (trec_eval success).

    >>> hit_rate(Hits.of([[0, 0, 1]], [[1]]), 2)
    array([0.])
    """
    return (hits.within(k) > 0).astype(np.float64)


def r_precision(hits: Hits) -> np.ndarray:
    """Precision at R, R being the query's number of relevant documents.

    >>> r_precision(Hits.of([[1, 0, 1]], [[1, 1]]))
    array([0.5])
    """
    return _ratio(np.count_nonzero(hits.rank < hits.count[:, None], axis=1), hits.count)


def expected_reciprocal_rank(hits: Hits, k: int | None = None, *, grades: bool = False) -> np.ndarray:
    """ERR (Chapelle et al. 2009): sum over ranks of 1/rank * p(rank) * product of (1 - p) above it.

    As published with GCL, p = (2^relevance - 1) / 2^highest, with the highest relevance of this query. With relevances
    up to 100 that is 1, 1/2, 1/4 … for 100, 99, 98 …: only the few best documents count at all. With `grades` the
    relevance is first scaled to 0…4, the grades the paper was written for: p = (2^(4 relevance / highest) - 1) / 2^4.

    >>> expected_reciprocal_rank(Hits.of([[2, 0, 1]], [[2, 1]])).round(4)
    array([0.7708])
    >>> expected_reciprocal_rank(Hits.of([[50, 100]], [[100, 50]]), grades=True).round(4)
    array([0.5684])
    """

    def stops() -> np.ndarray:
        top = np.maximum(hits.highest, np.finfo(np.float64).tiny)[:, None]
        if grades:
            p = (np.exp2(GRADES * hits.gain / top) - 1.0) / 2.0**GRADES
        else:
            p = np.exp2(hits.gain - top) - np.exp2(-top)
        p = np.where(hits.gain > 0, p, 0.0)
        seen = np.cumprod(1.0 - p, axis=1)
        arrives = np.concatenate([np.ones((len(p), 1)), seen[:, :-1]], axis=1) if p.shape[1] else seen
        return arrives * p / (hits.rank + 1.0)

    return hits.total(("err", grades), stops, k)


def rank_biased_precision(hits: Hits, k: int | None = None, *, persistence: float) -> np.ndarray:
    """RBP (Moffat and Zobel 2008) as published with GCL: (1 - p) * sum of relevance / highest * p^(rank - 1).

    p is the persistence, `highest` the highest judged relevance of this query.

    >>> rank_biased_precision(Hits.of([[2, 0, 1]], [[2, 1]]), persistence=0.8)
    array([0.264])
    """
    if not 0.0 < persistence < 1.0:
        raise ValueError(f"The persistence of rank-biased precision must be between 0 and 1; given: {persistence}.")

    def value() -> np.ndarray:
        top = np.maximum(hits.highest, np.finfo(np.float64).tiny)[:, None]
        return hits.gain / top * np.power(persistence, hits.rank.astype(np.float64))

    return (1.0 - persistence) * hits.total(("rbp", persistence), value, k)


def judged_share(status: np.ndarray, k: int) -> np.ndarray:
    """Share of the first k that is judged for this query; a list shorter than k is divided by k all the same."""
    return np.count_nonzero(status[:, :k] == JUDGED, axis=1) / float(k)


def hole_share(status: np.ndarray, k: int) -> np.ndarray:
    """Share of the first k that is judged for no query at all, as BEIR defines holes.

    >>> hole_share(np.array([[JUDGED, UNKNOWN, JUDGED_ELSEWHERE, NOTHING]]), 4)
    array([0.25])
    """
    return np.count_nonzero(status[:, :k] == UNKNOWN, axis=1) / float(k)


def _running_sum(value: np.ndarray) -> np.ndarray:
    running = np.zeros((value.shape[0], value.shape[1] + 1))
    np.cumsum(value, axis=1, out=running[:, 1:])
    return running


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
