"""A bounded set of documents per query that is certain to hold the query's k best.

Scores arrive from a float32 matrix product, each off by at most `margin`. A document more than twice the margin below
the k-th best seen so far is not among the exact k best, whatever its id. Everything else is kept until the buffer is
full; then the threshold is raised.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TOGETHER = 1024  # queries that are looked at at once, which bounds the memory it takes
_SPARE = 1024  # room for newcomers between two raisings of the threshold, at least

Settle = Callable[[int, np.ndarray], np.ndarray]
"""(query, row[n]) -> positions in `row` of the exact k best documents of this query."""


def capacity(k: int, width: int) -> int:
    """Documents kept a query: k, as many again before the threshold is raised, and one block."""
    return k + max(k, _SPARE) + width


class Candidates:
    """score[Q, C] float32, row[Q, C] int32 and filled[Q]; a newcomer must reach threshold[Q]."""

    def __init__(self, queries: int, k: int, width: int, settle: Settle) -> None:
        """width: so many scores of a query arrive at once, at most."""
        self.k, self.width, self.settle, self.capacity = k, width, settle, capacity(k, width)
        self.score = np.full((queries, self.capacity), -np.inf, dtype=np.float32)
        self.row = np.zeros((queries, self.capacity), dtype=np.int32)
        self.filled = np.zeros(queries, dtype=np.int64)
        self.threshold = np.full(queries, -np.inf, dtype=np.float32)
        self._mask = np.empty(min(queries, TOGETHER) * width, dtype=bool)

    def offer(self, first: int, score: np.ndarray, row: int, margin: np.ndarray) -> None:
        """Scores of at most TOGETHER queries first, first + 1 … with documents row, row + 1 …

        score[q, b]; margin[q] bounds their error.
        """
        part = slice(first, first + len(score))
        filled, threshold = self.filled[part], self.threshold[part]  # views
        width = score.shape[1]
        if filled[0] + width <= self.capacity and (filled == filled[0]).all() and (threshold == -np.inf).all():
            new = slice(filled[0], filled[0] + width)
            self.score[part, new], self.row[part, new] = score, np.arange(row, row + width, dtype=np.int32)
            filled += width
            return
        if (filled > self.capacity - width).any():
            self._raise_threshold(part, margin)
        mask = self._mask[: score.size].reshape(score.shape)
        passed = np.flatnonzero(np.greater_equal(score, threshold[:, None], out=mask))
        query = passed // width
        self._append(part, query, score.reshape(-1)[passed], (row + passed - query * width).astype(np.int32))

    def _append(self, part: slice, query: np.ndarray, score: np.ndarray, row: np.ndarray) -> None:
        """query[n] ascending, counted from the part's first."""
        filled = self.filled[part]
        count = np.bincount(query, minlength=len(filled))
        # Where query q's newcomers begin in the buffer, less where they begin in `query`: constant within a query.
        shift = (np.arange(len(filled)) + part.start) * self.capacity + filled - (np.cumsum(count) - count)
        place = shift[query] + np.arange(len(query))
        self.score.reshape(-1)[place] = score
        self.row.reshape(-1)[place] = row
        filled += count

    def _raise_threshold(self, part: slice, margin: np.ndarray) -> None:
        """Keeps what may still be among the k best. Afterwards a whole block fits again."""
        score, row, filled = self.score[part], self.row[part], self.filled[part]  # views
        used = int(filled.max())
        kth = np.partition(score[:, :used], used - self.k, axis=1)[:, used - self.k] if used >= self.k else -np.inf
        limit = np.nextafter((kth - 2 * margin).astype(np.float32), np.float32(-np.inf))
        limit = np.maximum(limit, self.threshold[part])
        self.threshold[part] = limit
        kept = np.flatnonzero((score >= limit[:, None]) & (np.arange(self.capacity) < filled[:, None]))
        query, values, rows = kept // self.capacity, score.reshape(-1)[kept], row.reshape(-1)[kept]
        score.fill(-np.inf)
        filled.fill(0)
        self._append(part, query, values, rows)
        for crowded in np.flatnonzero(filled > self.capacity - self.width):  # many documents (nearly) tie for place k
            count = filled[crowded]
            best = np.sort(self.settle(part.start + int(crowded), row[crowded, :count]))
            values, rows = score[crowded, best], row[crowded, best]
            score[crowded].fill(-np.inf)
            score[crowded, : len(best)], row[crowded, : len(best)], filled[crowded] = values, rows, len(best)

    def finish(self, margin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """start[Q + 1], score[n], row[n]: what may be among the k best, query after query."""
        for first in range(0, len(self.filled), TOGETHER):
            part = slice(first, first + TOGETHER)
            self._raise_threshold(part, margin[part])
        held = np.arange(self.capacity) < self.filled[:, None]
        start = np.concatenate([[0], np.cumsum(self.filled)])
        return start, self.score[held], self.row[held]
