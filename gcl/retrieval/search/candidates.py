"""The documents that may be among the k best of each query, while rough scores of all documents pass by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gcl.retrieval.search.exact import just_below

TOGETHER = 1024  # queries per matrix product, which bounds the memory it takes
_SPARE = 1024  # room for new candidates between two raisings of the threshold, at least

Settle = Callable[[int, np.ndarray], np.ndarray]
"""(query, row[n]) -> positions in `row` of the exact k best documents of this query."""
Floor = Callable[[int, np.ndarray], np.ndarray]
"""(first query, row[q, k]) -> [q]: no more than the least true score of each query's documents."""


class TooCoarse(Exception):
    """The margins are so wide that too many documents cannot be told apart."""


def capacity(k: int, width: int, room: int = 0) -> int:
    """Documents kept per query: k, as many before the threshold is raised, one block, and `room` for doubtful ones."""
    return k + max(k, _SPARE) + width + room


class Candidates:
    """A bounded set of documents per query that is certain to hold the query's k best.

    Scores arrive from a matrix product, each off by at most its `margin`. Of the k best seen so far none is worse than
    their least score less its margin (or than what `floor` finds that they truly have); a document that with its own
    margin stays below that is not among the exact k best, whatever its id. Everything else is kept until the buffer is
    full; then the threshold is raised.

    score[Q, C] float32, row[Q, C] int32 and filled[Q]; least[Q]: what the k best so far have at least.
    """

    def __init__(
        self, queries: int, k: int, width: int, settle: Settle, *, room: int = 0, floor: Floor | None = None,
        patience: int | None = None,
    ) -> None:  # fmt: skip
        """width: at most this many scores of a query arrive at once. floor: what the best are truly worth, where scores
        are far off. patience: TooCoarse is raised when more queries had to be settled one by one."""
        self.k, self.width, self.settle, self.floor, self.patience = k, width, settle, floor, patience
        self.capacity = capacity(k, width, room)
        self.score = np.full((queries, self.capacity), -np.inf, dtype=np.float32)
        self.row = np.zeros((queries, self.capacity), dtype=np.int32)
        self.filled = np.zeros(queries, dtype=np.int64)
        self.least = np.full(queries, -np.inf)
        self.margin = np.zeros(queries)  # the widest of what is kept
        self._mask = np.empty(min(queries, TOGETHER) * width, dtype=bool)

    def offer(
        self, first: int, score: np.ndarray, row: np.ndarray, margin: np.ndarray, *, scale: np.ndarray | None = None
    ) -> None:
        """Scores of at most TOGETHER queries first, first + 1 … with documents row[b].

        score[q, b]: float32, or int32 to be multiplied by scale[q]; margin[q] bounds their error.
        """
        part = slice(first, first + len(score))
        filled, least = self.filled[part], self.least[part]  # views
        width = score.shape[1]
        np.maximum(self.margin[part], margin, out=self.margin[part])
        if filled[0] + width <= self.capacity and (filled == filled[0]).all() and (least == -np.inf).all():
            new = slice(filled[0], filled[0] + width)
            self.score[part, new] = score if scale is None else score * scale[:, None]
            self.row[part, new] = row
            filled += width
            return
        if (filled > self.capacity - width).any():
            self._raise_threshold(part)
        mask = self._mask[: score.size].reshape(score.shape)
        limit = just_below(least - margin)[:, None]
        if scale is not None:
            limit = np.clip(np.floor(limit / scale[:, None]) - 1, -(2.0**31), 2.0**31 - 1).astype(np.int32)
        passed = np.flatnonzero(np.greater_equal(score, limit, out=mask))
        query = passed // width
        values = score.reshape(-1)[passed]
        if scale is not None:
            values = (values * scale[query]).astype(np.float32)
        self._append(part, query, values, row[passed - query * width])

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

    def _raise_threshold(self, part: slice) -> None:
        """Keeps what may still be among the k best. Afterwards a whole block fits again."""
        score, row, filled = self.score[part], self.row[part], self.filled[part]  # views
        used = int(filled.max())
        if used >= self.k:
            self._raise_least(part, used)
        limit = just_below(self.least[part] - self.margin[part])
        kept = np.flatnonzero((score >= limit[:, None]) & (np.arange(self.capacity) < filled[:, None]))
        query, values, rows = kept // self.capacity, score.reshape(-1)[kept], row.reshape(-1)[kept]
        score.fill(-np.inf)
        filled.fill(0)
        self._append(part, query, values, rows)
        crowded = np.flatnonzero(filled > self.capacity - self.width)  # many documents (nearly) tie for place k
        if self.patience is not None:
            self.patience -= len(crowded)
            if self.patience < 0:
                raise TooCoarse
        for one in crowded:
            count = filled[one]
            best = np.sort(self.settle(part.start + int(one), row[one, :count]))
            values, rows = score[one, best], row[one, best]
            score[one].fill(-np.inf)
            score[one, : len(best)], row[one, : len(best)], filled[one] = values, rows, len(best)

    def _raise_least(self, part: slice, used: int) -> None:
        score, least = self.score[part], self.least[part]
        if self.floor is None:
            kth = np.partition(score[:, :used], used - self.k, axis=1)[:, used - self.k]
            bound = kth - self.margin[part]
        else:
            best = np.argpartition(score[:, :used], used - self.k, axis=1)[:, used - self.k :]
            full = self.filled[part] >= self.k
            bound = np.where(full, self.floor(part.start, np.take_along_axis(self.row[part, :used], best, 1)), -np.inf)
        np.maximum(least, bound, out=least)

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """start[Q + 1], score[n], row[n]: what may be among the k best, query after query."""
        for first in range(0, len(self.filled), TOGETHER):
            self._raise_threshold(slice(first, first + TOGETHER))
        held = np.arange(self.capacity) < self.filled[:, None]
        start = np.concatenate([[0], np.cumsum(self.filled)])
        return start, self.score[held], self.row[held]
