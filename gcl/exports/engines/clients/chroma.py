"""Asks Chroma: https://docs.trychroma.com"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

Results = list[tuple[str, dict[str, Any]]]  # (id, payload), best first


def connect(place: str, collection: str) -> Search:
    return Search(client_of(place).get_collection(collection, embedding_function=None))


def client_of(place: str) -> Any:
    """place: the folder of a database, or an address. A login goes into headers; a password alone is a token:
    https://:TOKEN@host:8000."""
    import chromadb
    from chromadb.config import Settings

    quiet, address = Settings(anonymized_telemetry=False), urlsplit(place)
    if "://" not in place:
        return chromadb.PersistentClient(place, settings=quiet)
    user, password = unquote(address.username or ""), unquote(address.password or "")
    basic = f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
    login = {"Authorization": basic} if user else {"x-chroma-token": password} if password else {}
    return chromadb.HttpClient(
        address.hostname or "", port=address.port or 8000, ssl=address.scheme == "https", headers=login, settings=quiet
    )


class Search:
    """A collection. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, collection: Any) -> None:
        self.collection = collection

    def near(self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the vector, through the index."""
        found = self.collection.query(
            query_embeddings=[vector], n_results=k, where=conditions(where or {}), include=["metadatas", "documents"]
        )
        rows = zip(found["ids"][0], found["metadatas"][0], found["documents"][0], strict=True)
        return [(name, {**(row or {}), **({"words": text} if text else {})}) for name, row, text in rows]


def conditions(where: Mapping[str, Any]) -> dict[str, Any] | None:
    all_of: list[dict[str, Any]] = []
    for name, value in where.items():
        ends = [{"$gte": value[0]}, {"$lte": value[1]}] if isinstance(value, tuple) else [{"$eq": value}]
        all_of += [{name: end} for end in ends]
    return {"$and": all_of} if len(all_of) > 1 else all_of[0] if all_of else None
