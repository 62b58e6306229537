"""Asks Redis: https://redis.io/docs (8, or 7.4 with its search module)"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from gcl.retrieval.search.bm25 import terms

Results = list[tuple[str, dict[str, Any]]]  # (id, payload), best first


def connect(address: str, collection: str) -> Search:
    """address: redis://user:password@host:6379"""
    import redis

    return Search(redis.Redis.from_url(address, protocol=2), collection)


class Search:
    """An index. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, client: Any, collection: str) -> None:
        self.client, self.collection = client, collection

    def near(
        self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10, *, ef: int = 128
    ) -> Results:
        """By the vector. ef: how many candidates the index looks at."""
        query = f"({conditions(where) or '*'})=>[KNN {k} @vector $asked EF_RUNTIME {max(ef, k)} AS distance]"
        given = ["PARAMS", 2, "asked", vector.astype("<f4").tobytes(), "SORTBY", "distance"]
        return self._found(query, k, *given)

    def by_words(self, text: str, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the words of the products' texts (BM25)."""
        return self._found(f"@words:({'|'.join(terms(text)) or '_'}) {conditions(where)}", k, "SCORER", "BM25STD")

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float | None = None, candidates: int = 100,
    ) -> Results:  # fmt: skip
        """By both: reciprocal rank fusion. share: of the vectors' ranks; None: half."""
        weight = 0.5 if share is None else share
        near, said = self.near(vector, where, candidates), self.by_words(text, where, candidates)
        scores = dict.fromkeys([name for name, _ in near + said], 0.0)
        for part, found in ((weight, near), (1 - weight, said)):
            for place, (name, _) in enumerate(found, start=1):
                scores[name] += part / (60 + place)
        payloads = dict(near + said)
        return [(name, payloads[name]) for name in sorted(scores, key=scores.__getitem__, reverse=True)[:k]]

    def told(self) -> dict[bytes, Any]:
        """What the server says of the index."""
        told = self.client.execute_command("FT.INFO", self.collection)
        return dict(zip(told[::2], told[1::2], strict=True))

    @cached_property
    def _columns(self) -> dict[str, Callable[[str], Any]]:
        """The payload's, as the index knows them."""
        fields = [field[1::2] for field in self.told()[b"attributes"]]
        kinds = {name.decode(): float if kind == b"NUMERIC" else str for name, _, kind, *_ in fields}
        return {name: kind for name, kind in kinds.items() if name != "vector"}

    def _found(self, query: str, k: int, *options: Any) -> Results:
        shown = ["RETURN", len(self._columns), *self._columns]
        _, *found = self.client.execute_command(
            "FT.SEARCH", self.collection, query, *options, *shown, "LIMIT", 0, k, "DIALECT", 2
        )
        results: Results = []
        for key, row in zip(found[::2], found[1::2], strict=True):
            texts = {name.decode(): value.decode() for name, value in zip(row[::2], row[1::2], strict=True)}
            payload = {name: self._columns[name](text) for name, text in texts.items() if name in self._columns}
            results.append((key.decode().removeprefix(prefix(self.collection)), payload))
        return results


def prefix(collection: str) -> str:
    """Of the keys of its documents."""
    return f"gcl:{collection}:"


def conditions(where: Mapping[str, Any] | None) -> str:
    return " ".join(
        f"@{name}:[{value[0]} {value[1]}]" if isinstance(value, tuple) else f"@{name}:{{{_escaped(value)}}}"
        for name, value in (where or {}).items()
    )


def _escaped(value: Any) -> str:
    return re.sub(r"(\W)", r"\\\1", str(value))
