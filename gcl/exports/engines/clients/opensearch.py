"""Asks OpenSearch: https://docs.opensearch.org (2.19 or later)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gcl.exports.engines.clients.elastic import REFUSALS, Index, Results, Web, conditions, said


def connect(address: str, collection: str) -> Search:
    """address: https://user:password@host:9200"""
    return Search(Web(address, refusals=REFUSALS), collection)


class Search(Index):
    """Of OpenSearch."""

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float | None = None, candidates: int = 100,
    ) -> Results:  # fmt: skip
        """By both. share: of the vectors in a weighted sum; None: reciprocal rank fusion."""
        near = self.approximate(vector, where, candidates, 128)["query"]
        if share is None:
            ranks = {"score-ranker-processor": {"combination": {"technique": "rrf", "rank_constant": 60}}}
            query = {"hybrid": {"queries": [near, said(text, where)], "pagination_depth": candidates}}
            return self.found(k, {"query": query, "search_pipeline": {"phase_results_processors": [ranks]}})
        near["knn"]["vector"]["boost"] = share
        return self.found(k, {"query": {"bool": {"should": [near, said(text, where, boost=(1 - share) / 20)]}}})

    def score(self, vector: np.ndarray) -> dict[str, Any]:
        params = {"field": "vector", "query_value": vector.tolist(), "space_type": "innerproduct"}
        return {"source": "knn_score", "lang": "knn", "params": params}

    def approximate(self, vector: np.ndarray, where: Mapping[str, Any] | None, k: int, ef: int) -> dict[str, Any]:
        kept = {"filter": {"bool": {"filter": kept}}} if (kept := conditions(where)) else {}
        method = {"ef_search": max(ef, k)}
        return {"query": {"knn": {"vector": {"vector": vector.tolist(), "k": k, "method_parameters": method, **kept}}}}
