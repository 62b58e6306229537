"""The pairs of a catalog's tables, before they are divided into training and held out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from struct import Struct

import numpy as np

from gcl.data.catalog import SamePair
from gcl.data.prepare.repeated import Settled, settle_scores
from gcl.data.store.key_table import Packed
from gcl.data.store.prepared import Fields, Pairs
from gcl.data.store.store import RecordStore

_PAIR = np.dtype([("query", "<i4"), ("document", "<i4"), ("score", "<f4")])
_PACK = Struct("<iif").pack


class PairList:
    """Pairs while they are collected, packed."""

    def __init__(self) -> None:
        self._pair = Packed(_PAIR.itemsize)

    def __len__(self) -> int:
        return len(self._pair)

    def add(self, query: int, document: int, score: float) -> None:
        """A pair of rows of the two stores."""
        self._pair.append(_PACK(query, document, score))

    def pairs(self) -> Pairs:
        """What was added, in order."""
        columns = {name: np.empty(len(self), _PAIR[name]) for name in _PAIR.names or ()}
        start = 0
        for piece in self._pair.pieces():
            rows = np.frombuffer(piece, _PAIR)
            for name, column in columns.items():
                column[start : start + len(rows)] = rows[name]
            start += len(rows)
        return Pairs(columns["query"], columns["document"], columns["score"])


@dataclass
class Gathered:
    """The usable pairs of a catalog. The first `tables` are of its tables, the rest of data.own_queries; the first
    `real` have a query that somebody wrote, the others one that was made from the product itself. without_field: pairs
    of the second kind that are missing, as the product shows nothing else. judged: what the situations are measured
    with (data.judgments); None: the pairs."""

    pairs: Pairs
    tables: int
    real: int
    without_field: int = 0
    judged: Pairs | None = None

    @property
    def measured(self) -> tuple[Pairs, Fields]:
        """What the situations are made of, and which fields they hide."""
        if self.judged is not None:
            return self.judged, ()
        if self.real:
            return self.pairs.take(slice(0, self.real)), ()
        return self.pairs, self.pairs.hides[-1]

    def settled(self, rule: SamePair) -> tuple[Gathered, Settled]:
        """With one score for each query and document of the tables."""
        settled = settle_scores(self.pairs.take(slice(0, self.tables)), rule)
        if not settled.contradictions:
            return self, settled
        score = np.concatenate([settled.pairs.score, self.pairs.score[self.tables :]])
        return replace(self, pairs=replace(self.pairs, score=score)), settled


def gather(pairs: Pairs, tables: int, documents: RecordStore, hides: Fields, *, own_table: bool) -> Gathered:
    """tables: how many of the pairs are of tables; others are of data.own_queries. hides: the document fields that
    queries of the products' own columns were made from. own_table: whether those of tables are such queries."""
    if not hides:
        return Gathered(pairs, tables, real=tables)
    real = 0 if own_table else tables
    own = np.arange(len(pairs)) >= real
    kept = ~own | shows_other_fields(documents, hides)[pairs.document]
    pairs = replace(pairs, hidden=own.astype(np.uint8), hides=((), hides)).take(kept)
    return Gathered(pairs, int(kept[:tables].sum()), real, int((~kept).sum()))


def shows_other_fields(documents: RecordStore, hides: Fields) -> np.ndarray:
    """Which documents have a field that is not hidden, bool[M]."""
    present = documents.present(documents.rows)
    return np.any(present[:, [name not in hides for name in documents.side]], axis=1)
