"""Asks Vespa: https://docs.vespa.ai (8)"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gcl.exports.engines.clients.http import Results, Web


def connect(address: str, collection: str) -> Search:
    """address: http://host:8080"""
    return Search(Web(address), collection)


class Search:
    """Documents of a schema. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, web: Web, collection: str) -> None:
        self.web, self.collection = web, collection

    def near(
        self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10, *, exact: bool = False,
        ef: int = 128,
    ) -> Results:  # fmt: skip
        """By the vector. exact: without the index. ef: how many candidates the index looks at."""
        test = _near(k, approximate=not exact, **({} if exact else {"hnsw.exploreAdditionalHits": max(0, ef - k)}))
        return self._found(test, where, k, "near", vector=vector)

    def by_words(self, text: str, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the words of the products' texts (BM25)."""
        return self._found(_SAID, where, k, "words", said=text)

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float | None = None, candidates: int = 100,
    ) -> Results:  # fmt: skip
        """By both. share: of the vectors in a weighted sum; None: reciprocal rank fusion."""
        test, ranking = f"({_near(candidates)} or {_SAID})", "rrf" if share is None else "weighted"
        return self._found(test, where, k, ranking, said=text, vector=vector, share=share)

    def _found(
        self, test: str, where: Mapping[str, Any] | None, k: int, ranking: str, *, said: str | None = None,
        vector: np.ndarray | None = None, share: float | None = None,
    ) -> Results:  # fmt: skip
        tests = " and ".join([test, *conditions(where)])
        body = {
            "yql": f"select * from {self.collection} where {tests}", "hits": k, "ranking": ranking, "said": said,
            "input.query(asked)": None if vector is None else vector.tolist(), "input.query(share)": share,
        }  # fmt: skip
        given = {name: value for name, value in body.items() if value is not None}
        found = [hit["fields"] for hit in self.web.send("POST", "/search/", given)["root"].get("children", ())]
        own = ("id", "sddocname", "documentid")
        return [(hit["id"], {name: value for name, value in hit.items() if name not in own}) for hit in found]


_SAID = '({defaultIndex: "words", grammar: "any"}userInput(@said))'


def _near(k: int, **options: Any) -> str:
    given = ", ".join(f"{name}: {json.dumps(value)}" for name, value in {"targetHits": k, **options}.items())
    return f"({{{given}}}nearestNeighbor(vector, asked))"


def conditions(where: Mapping[str, Any] | None) -> list[str]:
    """Tests in YQL."""
    return [
        f"{name} >= {value[0]} and {name} <= {value[1]}"
        if isinstance(value, tuple)
        else f"{name} contains {json.dumps(value, ensure_ascii=False)}"
        for name, value in (where or {}).items()
    ]
