"""Asks Marqo: https://docs.marqo.ai (2.13 or later)"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gcl.exports.engines.clients.http import Results, Web

KEY = "x-api-key: "
REFUSALS = ('"errors":true',)


def connect(address: str, collection: str) -> Search:
    """address: http://host:8882, or https://:KEY@host"""
    return Search(Web(address, key=KEY, refusals=REFUSALS), collection)


class Search:
    """An index. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, web: Web, collection: str) -> None:
        self.web, self.path = web, f"/indexes/{collection}"

    def near(
        self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10, *, exact: bool = False,
        ef: int = 128,
    ) -> Results:  # fmt: skip
        """By the vector. exact: without the index. ef: how many candidates the index looks at."""
        depth = {} if exact else {"efSearch": max(ef, k)}
        return self._found(where, k, q=_near(vector), searchMethod="TENSOR", approximate=not exact, **depth)

    def by_words(self, text: str, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the words of the products' texts (BM25)."""
        return self._found(where, k, q=text, searchMethod="LEXICAL", searchableAttributes=["words"])

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float | None = None,
    ) -> Results:  # fmt: skip
        """By both: reciprocal rank fusion. share: of the vectors' ranks; None: half."""
        alpha = 0.5 if share is None else share
        ranks = {"retrievalMethod": "disjunction", "rankingMethod": "rrf", "alpha": alpha, "rrfK": 60}
        return self._found(where, k, q=_near(vector, text), searchMethod="HYBRID", hybridParameters=ranks)

    def _found(self, where: Mapping[str, Any] | None, k: int, **query: Any) -> Results:
        body = {"limit": k, "showHighlights": False, **query} | (
            {"filter": kept} if (kept := conditions(where)) else {}
        )
        hits = self.web.send("POST", f"{self.path}/search", body)["hits"]
        return [
            (hit["_id"], {name: value for name, value in hit.items() if name[0] != "_" and name != "vector"})
            for hit in hits
        ]


def _near(vector: np.ndarray, text: str = "") -> dict[str, Any]:
    return {"customVector": {"content": text, "vector": vector.tolist()}}


def conditions(where: Mapping[str, Any] | None) -> str:
    return " AND ".join(
        f"{name}:[{value[0]} TO {value[1]}]" if isinstance(value, tuple) else f"{name}:({_escaped(value)})"
        for name, value in (where or {}).items()
    )


def _escaped(value: Any) -> str:
    return re.sub(r"([^\w ])", r"\\\1", str(value))
