"""Asks Elasticsearch: https://www.elastic.co/docs (8.19, or 9.1 or later)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gcl.exports.engines.clients.elastic import REFUSALS, Index, Results, Web, conditions, said


def connect(address: str, collection: str) -> Search:
    """address: https://user:password@host:9200"""
    return Search(Web(address, refusals=REFUSALS), collection)


class Search(Index):
    """Of Elasticsearch."""

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float | None = 0.7, candidates: int = 100,
    ) -> Results:  # fmt: skip
        """By both. share: of the vectors in a weighted sum; None: reciprocal rank fusion, which needs a licence."""
        near = self.approximate(vector, where, candidates, 128)["knn"]
        if share is None:
            halves = [{"standard": {"query": said(text, where)}}, {"knn": near}]
            ranks = {"retrievers": halves, "rank_constant": 60, "rank_window_size": candidates}
            return self.found(k, {"retriever": {"rrf": ranks}})
        near["boost"] = 2 * share  # its score is (1 + cosine) / 2
        return self.found(k, {"query": said(text, where, boost=(1 - share) / 20), "knn": near})

    def score(self, vector: np.ndarray) -> dict[str, Any]:
        return {"source": "cosineSimilarity(params.asked, 'vector') + 1.0", "params": {"asked": vector.tolist()}}

    def approximate(self, vector: np.ndarray, where: Mapping[str, Any] | None, k: int, ef: int) -> dict[str, Any]:
        kept = {"filter": kept} if (kept := conditions(where)) else {}
        return {
            "knn": {"field": "vector", "query_vector": vector.tolist(), "k": k, "num_candidates": max(ef, k), **kept}
        }
