"""Asks Qdrant with its own client: https://qdrant.tech/documentation"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit
from zlib import crc32

import numpy as np
from qdrant_client import QdrantClient, models

from gcl.retrieval.search.bm25 import terms

Results = list[tuple[str, dict[str, Any]]]  # (id, payload), best first


def connect(address: str, collection: str) -> Search:
    return Search(client_of(address), collection)


def client_of(address: str) -> QdrantClient:
    """The password of the address is the API key: https://:KEY@host:6333."""
    place = urlsplit(address)
    key = unquote(place.password) if place.password else None
    plain = address.replace(place.netloc, place.netloc.rpartition("@")[2])
    return QdrantClient(url=plain, api_key=key, timeout=600, check_compatibility=False)


class Search:
    """A collection. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, client: QdrantClient, collection: str) -> None:
        self.client, self.collection = client, collection

    def near(
        self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10, *, exact: bool = False,
        ef: int | None = None, rescore: bool = True,
    ) -> Results:  # fmt: skip
        """By the vector. exact: without the index. ef: how many candidates the index looks at. rescore: whether
        candidates of quantised vectors are scored again by whole ones."""
        params = None
        if exact or ef or not rescore:
            quantised = models.QuantizationSearchParams(rescore=rescore)
            params = models.SearchParams(exact=exact, hnsw_ef=ef, quantization=quantised)
        return self._found(where, k, query=vector.tolist(), search_params=params)

    def by_words(self, text: str, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the words of the products' texts (BM25)."""
        return self._found(where, k, query=word_vector(text), using="words")

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float | None = None, candidates: int = 100,
    ) -> Results:  # fmt: skip
        """By both, each with some candidates: reciprocal rank fusion, or the share of the vectors in a weighted sum."""
        kept = conditions(where or {})
        halves = [
            models.Prefetch(query=vector.tolist(), filter=kept, limit=candidates),
            models.Prefetch(query=word_vector(text), using="words", filter=kept, limit=candidates),
        ]
        fused: models.Query = models.FusionQuery(fusion=models.Fusion.RRF)
        if share is not None:
            weights = [share, (1 - share) / 20]  # 20 is a high score of BM25
            sums: list[models.Expression] = [
                models.MultExpression(mult=[weight, f"$score[{half}]"]) for half, weight in enumerate(weights)
            ]
            none = {"$score[0]": 0.0, "$score[1]": 0.0}
            fused = models.FormulaQuery(formula=models.SumExpression(sum=sums), defaults=none)
        return self._found(where, k, query=fused, prefetch=halves)

    def _found(self, where: Mapping[str, Any] | None, k: int, **query: Any) -> Results:
        kept = conditions(where or {})
        found = self.client.query_points(self.collection, query_filter=kept, limit=k, with_payload=True, **query)
        payloads = [dict(point.payload or {}) for point in found.points]
        return [(payload.pop("id"), payload) for payload in payloads]


def conditions(where: Mapping[str, Any]) -> models.Filter | None:
    all_of: list[models.Condition] = [
        models.FieldCondition(key=name, range=models.Range(gte=value[0], lte=value[1]))
        if isinstance(value, tuple)
        else models.FieldCondition(key=name, match=models.MatchValue(value=value))
        for name, value in where.items()
    ]
    return models.Filter(must=all_of) if all_of else None


def word_vector(text: str) -> models.SparseVector:
    """A query's words; the engine multiplies by the idf of each."""
    numbers = list(dict.fromkeys(word_numbers(text)))
    return models.SparseVector(indices=numbers, values=[1.0] * len(numbers))


def word_numbers(text: str) -> list[int]:
    return [crc32(word.encode()) for word in terms(text.replace("_", " "))]
