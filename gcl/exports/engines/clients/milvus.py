"""Asks Milvus, or Milvus Lite: https://milvus.io/docs"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Results = list[tuple[str, dict[str, Any]]]  # (id, payload), best first


def connect(place: str, collection: str) -> Search:
    """place: an address, or the folder of a database file."""
    from pymilvus import MilvusClient

    return Search(MilvusClient(place if "://" in place else str(Path(place) / f"{collection}.milvus.db")), collection)


class Search:
    """A collection. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, client: Any, collection: str) -> None:
        self.client, self.collection = client, collection

    @cached_property
    def columns(self) -> list[str]:
        """Of the payload."""
        fields = self.client.describe_collection(self.collection)["fields"]
        return [field["name"] for field in fields if field["name"] not in ("id", "vector", "bm25")]

    def near(
        self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10, *, ef: int | None = None
    ) -> Results:
        """By the vector. ef: how many candidates a server's index looks at; Milvus Lite searches exactly."""
        params = {"params": {} if ef is None else {"ef": ef}}
        hits = self.client.search(
            self.collection, [vector], filter=conditions(where or {}), limit=k, anns_field="vector",
            search_params=params, output_fields=self.columns,
        )  # fmt: skip
        return self._found(hits)

    def by_words(self, text: str, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the words of the products' texts (BM25)."""
        hits = self.client.search(
            self.collection, [text], filter=conditions(where or {}), limit=k, anns_field="bm25",
            output_fields=self.columns,
        )  # fmt: skip
        return self._found(hits)

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float | None = None, candidates: int = 100,
    ) -> Results:  # fmt: skip
        """By both, each with some candidates: reciprocal rank fusion, or the share of the vectors in a weighted sum."""
        from pymilvus import AnnSearchRequest, RRFRanker, WeightedRanker

        kept = conditions(where or {}) or None
        halves = [
            AnnSearchRequest([asked], field, {}, limit=candidates, expr=kept)
            for asked, field in ((vector, "vector"), (text, "bm25"))
        ]
        ranker = RRFRanker() if share is None else WeightedRanker(share, 1 - share, norm_score=True)
        hits = self.client.hybrid_search(self.collection, halves, ranker, limit=k, output_fields=self.columns)
        return self._found(hits)

    def _found(self, hits: Any) -> Results:
        return [(hit["id"], dict(hit["entity"])) for hit in hits[0]]


def conditions(where: Mapping[str, Any]) -> str:
    """An expression of Milvus."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return " and ".join(
        f"{name} >= {value[0]} and {name} <= {value[1]}" if isinstance(value, tuple) else f"{name} == {quoted(value)}"
        for name, value in where.items()
    )
