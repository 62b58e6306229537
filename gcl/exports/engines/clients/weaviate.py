"""Asks Weaviate: https://docs.weaviate.io (1.27 or later)"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from gcl.exports.engines.clients.http import Results, Web

KEY = "Authorization: Bearer "
REFUSALS = ('"status":"FAILED"', '"errors":[')
ID = "id_"  # an object's own id is a UUID; no column of the payload ends in an underscore


def connect(address: str, collection: str) -> Search:
    """address: https://:KEY@host"""
    return Search(Web(address, key=KEY, refusals=REFUSALS), collection)


class Search:
    """A class. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, web: Web, collection: str) -> None:
        self.web, self.name = web, collection[0].upper() + collection[1:]  # classes begin with a capital

    def near(self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the vector; how many candidates the index looks at is the class's `ef`."""
        return self._found(f"nearVector: {{{_near(vector)}}}", where, k)

    def by_words(self, text: str, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the words of the products' texts (BM25)."""
        return self._found(f"bm25: {{{_said(text)}}}", where, k)

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float | None = None,
    ) -> Results:  # fmt: skip
        """By both. share: of the vectors in a weighted sum of scores, which Weaviate scales; None: rank fusion."""
        alpha, fusion = (0.5, "rankedFusion") if share is None else (share, "relativeScoreFusion")
        by = f"hybrid: {{{_said(text)}, {_near(vector)}, alpha: {alpha}, fusionType: {fusion}}}"
        return self._found(by, where, k)

    def count(self) -> int:
        """All objects."""
        answer = self.web.send(
            "POST", "/v1/graphql", {"query": f"{{ Aggregate {{ {self.name} {{ meta {{ count }} }} }} }}"}
        )
        return answer["data"]["Aggregate"][self.name][0]["meta"]["count"]

    @cached_property
    def _columns(self) -> str:
        return " ".join(one["name"] for one in self.web.send("GET", f"/v1/schema/{self.name}")["properties"])

    def _found(self, by: str, where: Mapping[str, Any] | None, k: int) -> Results:
        kept = f", where: {conditions(where)}" if where else ""
        query = f"{{ Get {{ {self.name}(limit: {k}, {by}{kept}) {{ {self._columns} }} }} }}"
        found = self.web.send("POST", "/v1/graphql", {"query": query})["data"]["Get"][self.name]
        payloads = [{name: value for name, value in one.items() if value is not None} for one in found]
        return [(payload.pop(ID), payload) for payload in payloads]


def _near(vector: np.ndarray) -> str:
    return f'vector: {vector.tolist()}, targetVectors: ["vector"]'


def _said(text: str) -> str:
    return f'query: {json.dumps(text)}, properties: ["words"]'


def conditions(where: Mapping[str, Any]) -> str:
    """A filter in GraphQL."""
    tests = list[str]()
    for name, value in where.items():
        ends = (
            {"GreaterThanEqual": value[0], "LessThanEqual": value[1]} if isinstance(value, tuple) else {"Equal": value}
        )
        for operator, end in ends.items():
            kind = "valueText" if isinstance(end, str) else "valueNumber"
            tests.append(f'{{path: ["{name}"], operator: {operator}, {kind}: {json.dumps(end)}}}')
    return f"{{operator: And, operands: [{', '.join(tests)}]}}"
