"""What is known of the queries and documents that meet in a batch, besides the pairs themselves.

Scores: of the N^2 - N entries off the diagonal many are judged as well, because another training pair says how good
that document is for that query (`loss.target` makes targets of them), or a reranker does (`teacher.scores`).

Vectors: those of a teacher, whose similarities the student's are to be like (`teacher.run`, `teacher.embeddings`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gcl.data.batches.by_query import ByQuery
from gcl.data.store.prepared import Pairs

_AT_ONCE = 1 << 20  # scores looked through at once: bounds the memory where a query has very many


class KnownScores(NamedTuple):
    """Scores of K different (query, document), by rows of the stores. The same on every rank."""

    query: Tensor  # int64 [K]
    document: Tensor  # int64 [K]
    score: Tensor  # float32 [K]


class TeacherVectors(NamedTuple):
    """A teacher's unit vectors, in the order of the pairs; zeros where it has none. The same on every rank."""

    query: Tensor  # float32 [N, E]
    document: Tensor  # float32 [N, E]


class ScoreTable:
    """The scores of pairs; of a repeated pair the highest counts."""

    def __init__(self, pairs: Pairs) -> None:
        self._known = ByQuery.of(pairs.query, pairs.document, np.asarray(pairs.score, dtype=np.float32))

    def among(self, query: np.ndarray, document: np.ndarray) -> KnownScores:
        """query int64[N], document int64[N]: rows, repeated or not -> the scores of each with each, by query, then
        document.

        >>> pairs = Pairs(np.array([0, 0, 1]), np.array([5, 7, 7]), np.array([3.0, 1.0, 2.0]))
        >>> ScoreTable(pairs).among(np.array([0, 1]), np.array([7, 7])).score
        tensor([1., 2.])
        """
        known, queries, documents = self._known, np.unique(query), np.unique(document)
        assert known.score is not None
        block = np.cumsum(known.counts(queries)) // _AT_ONCE
        owners, entries = [], []
        for part in np.split(np.arange(len(queries)), np.flatnonzero(np.diff(block)) + 1):
            place, entry = known.entries(queries[part])
            found = known.document[entry]
            among = documents[np.minimum(np.searchsorted(documents, found), len(documents) - 1)] == found
            owners.append(queries[part][place[among]])
            entries.append(entry[among])
        entry = np.concatenate(entries)
        return KnownScores(
            torch.from_numpy(np.concatenate(owners).astype(np.int64)),
            torch.from_numpy(known.document[entry].astype(np.int64)),
            torch.from_numpy(known.score[entry]),
        )


class VectorTable:
    """A teacher's vectors of all queries [Q, E] and of all documents [M, E]."""

    def __init__(self, query: np.ndarray, document: np.ndarray) -> None:
        self._query, self._document = query, document

    def among(self, query: np.ndarray, document: np.ndarray) -> TeacherVectors:
        """query int64[N], document int64[N]: rows."""
        return TeacherVectors(torch.from_numpy(self._query[query]), torch.from_numpy(self._document[document]))


@dataclass(frozen=True)
class Lookups:
    """What a run's loss asks of every batch: judgments of its training pairs, what a teacher says, both or neither.

    digest: of everything that the teacher says.
    """

    judged: ScoreTable | None = None
    teacher: ScoreTable | VectorTable | None = None
    digest: str | None = None

    def among(self, query: np.ndarray, document: np.ndarray) -> dict[str, KnownScores | TeacherVectors]:
        """query int64[N], document int64[N]: rows. By the names that the loss takes."""
        asked = {"judged": self.judged, "teacher": self.teacher}
        return {name: table.among(query, document) for name, table in asked.items() if table is not None}
