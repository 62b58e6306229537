"""Asks Typesense: https://typesense.org/docs (27 or later)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gcl.exports.engines.clients.http import Results, Web

KEY = "X-TYPESENSE-API-KEY: "
REFUSALS = ('"success":false', '"results":[{"code":')


def connect(address: str, collection: str) -> Search:
    """address: https://:KEY@host:8108"""
    return Search(Web(address, key=KEY, refusals=REFUSALS), collection)


class Search:
    """A collection. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, web: Web, collection: str) -> None:
        self.web, self.collection = web, collection

    def near(
        self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10, *, ef: int = 128
    ) -> Results:
        """By the vector. ef: how many candidates the index looks at."""
        return self._found(where, k, q="*", vector_query=_near(vector, k=k, ef=max(ef, k)))

    def by_words(self, text: str, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the words of the products' texts, as Typesense matches them."""
        return self._found(where, k, q=text, query_by="words")

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float = 0.7, candidates: int = 100,
    ) -> Results:  # fmt: skip
        """By both. share: of the vectors' ranks in the sum of both ranks."""
        near = _near(vector, k=candidates, ef=max(128, candidates), alpha=share)
        return self._found(where, k, q=text, query_by="words", vector_query=near)

    def _found(self, where: Mapping[str, Any] | None, k: int, **query: Any) -> Results:
        """By /multi_search, as a vector is too long for an address."""
        body = {"collection": self.collection, "per_page": k, "exclude_fields": "vector", **query}
        body |= {"filter_by": kept} if (kept := conditions(where)) else {}
        hits = self.web.send("POST", "/multi_search", {"searches": [body]})["results"][0]["hits"]
        return [(hit["document"].pop("id"), hit["document"]) for hit in hits]


def _near(vector: np.ndarray, **options: float) -> str:
    numbers = ", ".join(map(np.format_float_positional, vector))  # 1e-05 is no number to some versions
    return f"vector:([{numbers}], {', '.join(f'{name}:{value}' for name, value in options.items())})"


def conditions(where: Mapping[str, Any] | None) -> str:
    return " && ".join(
        f"{name}:[{value[0]}..{value[1]}]" if isinstance(value, tuple) else f"{name}:={_quoted(value)}"
        for name, value in (where or {}).items()
    )


def _quoted(value: str) -> str:
    """Nothing escapes a backtick in backticks: the rest would be read as another condition."""
    if "`" in value or value.endswith("\\"):
        raise ValueError(f"Typesense filters by no value with a backtick in it, or a backslash at its end: {value!r}")
    return f"`{value}`"
