"""What asks Elasticsearch and OpenSearch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gcl.exports.engines.clients.http import Results, Web

REFUSALS = ('"errors":true',)


class Index:
    """An index. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, web: Web, collection: str) -> None:
        self.web, self.collection = web, collection

    def near(
        self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10, *, exact: bool = False,
        ef: int = 128,
    ) -> Results:  # fmt: skip
        """By the vector. exact: without the index. ef: how many candidates the index looks at."""
        if exact:
            query = {"bool": {"filter": conditions(where)}}
            return self.found(k, {"query": {"script_score": {"query": query, "script": self.score(vector)}}})
        return self.found(k, self.approximate(vector, where, k, ef))

    def by_words(self, text: str, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the words of the products' texts (BM25)."""
        return self.found(k, {"query": said(text, where)})

    def score(self, vector: np.ndarray) -> dict[str, Any]:
        """The script that scores each document."""
        raise NotImplementedError

    def approximate(self, vector: np.ndarray, where: Mapping[str, Any] | None, k: int, ef: int) -> dict[str, Any]:
        """The body of a search by the index."""
        raise NotImplementedError

    def found(self, k: int, body: dict[str, Any]) -> Results:
        answer = self.web.send(
            "POST", f"/{self.collection}/_search", {"size": k, "_source": {"excludes": ["vector"]}, **body}
        )
        return [(hit["_id"], hit["_source"]) for hit in answer["hits"]["hits"]]


def said(text: str, where: Mapping[str, Any] | None, boost: float = 1.0) -> dict[str, Any]:
    """A query of words. boost: 20 is a high score of BM25."""
    return {"bool": {"must": [{"match": {"words": {"query": text}}}], "filter": conditions(where), "boost": boost}}


def conditions(where: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [
        {"range": {name: {"gte": value[0], "lte": value[1]}}} if isinstance(value, tuple) else {"term": {name: value}}
        for name, value in (where or {}).items()
    ]
