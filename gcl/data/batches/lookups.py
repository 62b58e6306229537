"""What is known of the queries and documents that meet in a batch, besides the pairs themselves.

Judgments: of the N^2 - N entries off the diagonal many are judged as well, because another training pair says how good
that document is for that query (`loss.target` makes targets of them), or a reranker does (`teacher.scores`).

Vectors: those of a teacher, whose similarities the student's are to be like (`teacher.run`, `teacher.embeddings`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gcl.data.store.prepared import Pairs

_AT_ONCE = 1 << 20  # judgments looked through at once: bounds the memory where a query has very many


class Judged(NamedTuple):
    """Judgments of K different (query, document), by rows of the stores. The same on every rank."""

    query: Tensor  # int64 [K]
    document: Tensor  # int64 [K]
    score: Tensor  # float32 [K]


class Vectors(NamedTuple):
    """A teacher's unit vectors, in the order of the pairs; zeros where it has none. The same on every rank."""

    query: Tensor  # float32 [N, E]
    document: Tensor  # float32 [N, E]


class Judgments:
    """The scores of pairs, sorted by query and document; of a repeated pair the highest counts."""

    def __init__(self, pairs: Pairs) -> None:
        query, document, score = pairs.query, pairs.document, np.asarray(pairs.score, dtype=np.float32)
        order = np.lexsort((-score, document, query))
        query, document = query[order], document[order]
        first = np.r_[True, (query[1:] != query[:-1]) | (document[1:] != document[:-1])][: len(order)]
        self._document, self._score = document[first], score[order][first]
        self._start = np.searchsorted(query[first], np.arange(int(query.max(initial=-1)) + 2))
        self._end = len(self._start) - 1

    def among(self, query: np.ndarray, document: np.ndarray) -> Judged:
        """query int64[N], document int64[N]: rows, repeated or not -> the judgments of each with each, by query, then
        document.

        >>> pairs = Pairs(np.array([0, 0, 1]), np.array([5, 7, 7]), np.array([3.0, 1.0, 2.0]))
        >>> Judgments(pairs).among(np.array([0, 1]), np.array([7, 7])).score
        tensor([1., 2.])
        """
        queries, documents = np.unique(query), np.unique(document)
        queries = queries[queries < self._end]
        start = self._start[queries]
        count = self._start[queries + 1] - start
        parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        ends = np.cumsum(count)
        begin = 0
        while begin < len(queries):
            done = ends[begin - 1] if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, done + _AT_ONCE, side="right")))
            owner = np.repeat(np.arange(begin, end), count[begin:end])
            place = np.arange(len(owner)) + np.repeat(start[begin:end] - (ends[begin:end] - count[begin:end]) + done,
                                                      count[begin:end])  # fmt: skip
            found = self._document[place]
            among = documents[np.minimum(np.searchsorted(documents, found), len(documents) - 1)] == found
            parts.append((owner[among], place[among]))
            begin = end
        owner, place = (np.concatenate(values) for values in zip(*parts, strict=True))
        return Judged(
            torch.from_numpy(queries[owner].astype(np.int64)),
            torch.from_numpy(self._document[place].astype(np.int64)),
            torch.from_numpy(self._score[place]),
        )


class VectorTable:
    """A teacher's vectors of all queries [Q, E] and of all documents [M, E]."""

    def __init__(self, query: np.ndarray, document: np.ndarray) -> None:
        self._query, self._document = query, document

    def among(self, query: np.ndarray, document: np.ndarray) -> Vectors:
        """query int64[N], document int64[N]: rows."""
        return Vectors(torch.from_numpy(self._query[query]), torch.from_numpy(self._document[document]))


@dataclass(frozen=True)
class Lookups:
    """What a run's loss asks of every batch: judgments of its training pairs, what a teacher says, both or neither.

    digest: of everything that the teacher says.
    """

    judged: Judgments | None = None
    teacher: Judgments | VectorTable | None = None
    digest: str | None = None

    def among(self, query: np.ndarray, document: np.ndarray) -> dict[str, Judged | Vectors]:
        """query int64[N], document int64[N]: rows. By the names that the loss takes."""
        asked = {"judged": self.judged, "teacher": self.teacher}
        return {name: table.among(query, document) for name, table in asked.items() if table is not None}
