"""Documents by query, in compressed rows."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np


class ByQuery(NamedTuple):
    """document[start[q] : start[q + 1]] are those of query row q, and score[…] theirs, where they have one."""

    start: np.ndarray
    document: np.ndarray
    score: np.ndarray | None = None

    @classmethod
    def of(cls, query: np.ndarray, document: np.ndarray, score: np.ndarray | None = None) -> ByQuery:
        """query[M], document[M]: rows of the stores. A repeated pair is kept once, with its highest score."""
        order = np.lexsort((document, query) if score is None else (-score, document, query))
        query, document = query[order], document[order]
        new = np.ones(len(query), dtype=bool)
        new[1:] = (query[1:] != query[:-1]) | (document[1:] != document[:-1])
        count = np.bincount(query[new]) if len(query) else np.zeros(0, np.int64)
        start = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        return cls(start, document[new], None if score is None else score[order][new])

    def counts(self, queries: np.ndarray) -> np.ndarray:
        """How many documents each of these query rows has; rows beyond the table have none."""
        known = queries < len(self.start) - 1
        inside = np.where(known, queries, 0)
        return np.where(known, self.start[np.minimum(inside + 1, len(self.start) - 1)] - self.start[inside], 0)

    def entries(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """queries[U] -> place[E] in queries, and entry[E] in `document` and `score`."""
        count = self.counts(queries)
        first = self.start[np.minimum(queries, len(self.start) - 1)]
        place = np.repeat(np.arange(len(queries)), count)
        offset = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
        return place, np.repeat(first, count) + offset

    @property
    def digest(self) -> str:
        """Of the pairs."""
        whole = hashlib.sha256(np.ascontiguousarray(self.start).data)
        whole.update(np.ascontiguousarray(self.document).data)
        return whole.hexdigest()
