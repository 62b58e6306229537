"""Asks LanceDB: https://lancedb.github.io/lancedb"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lancedb
import numpy as np
from lancedb.rerankers import LinearCombinationReranker, RRFReranker

Results = list[tuple[str, dict[str, Any]]]  # (id, payload), best first


def connect(place: str, collection: str) -> Search:
    return Search(lancedb.connect(place).open_table(collection))


class Search:
    """A table. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.columns = [name for name in table.schema.names if name != "vector"]

    def near(
        self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10, *, exact: bool = False,
        ef: int | None = None, probes: int | None = None, refine: int | None = None,
    ) -> Results:  # fmt: skip
        """By the vector. exact: without the index. ef, probes: how many candidates or lists of an HNSW or IVF index are
        looked at. refine: this many times the results are scored again by whole vectors."""
        query = self.table.search(vector).distance_type("dot").select([*self.columns, "_distance"])
        query = query.bypass_vector_index() if exact else query
        query = query.ef(ef) if ef else query
        query = query.nprobes(probes) if probes else query
        query = query.refine_factor(refine) if refine else query
        return self._found(query, where, k)

    def by_words(self, text: str, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the words of the products' texts (BM25)."""
        query = self.table.search(text, query_type="fts", fts_columns="words").select([*self.columns, "_score"])
        return self._found(query, where, k)

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float | None = None, candidates: int = 100,
    ) -> Results:  # fmt: skip
        """By both: reciprocal rank fusion, or the share of the vectors in a weighted sum. candidates: of each, as the
        limit of a hybrid query holds for its halves, too."""
        fused = RRFReranker() if share is None else LinearCombinationReranker(share)
        query = self.table.search(query_type="hybrid", fts_columns="words").vector(vector).text(text)
        return self._found(query.distance_type("dot").rerank(fused), where, candidates)[:k]

    def _found(self, query: Any, where: Mapping[str, Any] | None, k: int) -> Results:
        query = query.where(conditions(where), prefilter=True) if where else query
        rows = query.limit(k).to_list()
        return [(row["id"], {name: row[name] for name in self.columns if name != "id"}) for row in rows]


def conditions(where: Mapping[str, Any]) -> str:
    """SQL."""
    return " AND ".join(
        f"{name} >= {value[0]} AND {name} <= {value[1]}" if isinstance(value, tuple) else f"{name} = {quoted(value)}"
        for name, value in where.items()
    )


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
