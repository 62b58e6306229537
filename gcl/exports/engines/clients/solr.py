"""Asks Solr: https://solr.apache.org/guide (9.6 or later)"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from gcl.exports.engines.clients.http import Results, Web


def connect(address: str, collection: str) -> Search:
    """address: https://user:password@host:8983"""
    return Search(Web(address), collection)


class Search:
    """A core. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, web: Web, collection: str) -> None:
        self.web, self.path = web, f"/solr/{collection}"

    def near(
        self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10, *, exact: bool = False,
        ef: int = 128,
    ) -> Results:  # fmt: skip
        """By the vector. exact: without the index. ef: how many candidates the index looks at."""
        query = (
            f"{{!func}}vectorSimilarity(FLOAT32,COSINE,vector,{vector.tolist()})"
            if exact
            else _near(vector, max(ef, k))
        )
        return self._found(query, where, k)

    def by_words(self, text: str, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the words of the products' texts (BM25)."""
        return self._found(_SAID, where, k, said=text)

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float = 0.7, candidates: int = 100,
    ) -> Results:  # fmt: skip
        """By both. share: of the vectors in a weighted sum; their score is (1 + cosine) / 2, and 20 is a high BM25."""
        halves = {
            "near": f"{{!boost b={2 * share}}}{_near(vector, candidates)}",
            "words": f"{{!boost b={(1 - share) / 20}}}{_SAID}",
        }
        return self._found("{!bool should=$near should=$words}", where, k, said=text, **halves)

    @cached_property
    def _columns(self) -> list[str]:
        fields = self.web.send("GET", f"{self.path}/schema/fields")["fields"]
        return [field["name"] for field in fields if field["name"] != "vector" and not field["name"].startswith("_")]

    def _found(self, query: str, where: Mapping[str, Any] | None, k: int, **params: Any) -> Results:
        body = {"query": query, "filter": conditions(where), "fields": self._columns, "limit": k, "params": params}
        found = self.web.send("POST", f"{self.path}/query", body)["response"]["docs"]
        return [(document.pop("id"), document) for document in found]


_SAID = "{!edismax qf=words mm=1 v=$said}"


def _near(vector: np.ndarray, candidates: int) -> str:
    return f"{{!knn f=vector topK={candidates}}}{vector.tolist()}"


def conditions(where: Mapping[str, Any] | None) -> list[str]:
    return [
        f"{name}:[{value[0]} TO {value[1]}]" if isinstance(value, tuple) else f"{{!term f={name}}}{value}"
        for name, value in (where or {}).items()
    ]
