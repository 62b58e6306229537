"""Chroma: https://docs.trychroma.com. It always searches its index, so nothing of it is exact by definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gcl.exports.engines.clients.chroma import Search, client_of
from gcl.exports.engines.engine import APPROXIMATE, Collection, Engine, Here, How, Layout, Setting
from gcl.exports.engines.payload import WORDS, Batch

_DEPTH = 512


class Chroma(Collection):
    """A collection of the database in `folder`, or at an address."""

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        """The index at one depth, which is the collection's: another holds when its index is opened anew only."""
        return [Setting(f"HNSW, ef {_DEPTH}", How.approximate, APPROXIMATE)]

    def __init__(self, layout: Layout, folder: Path, url: str | None) -> None:
        self._layout, self._client = layout, client_of(url or str(folder))
        known = [one.name for one in self._client.list_collections()]
        self._collection: Any = self._client.get_collection(layout.name, embedding_function=None) if (
            layout.name in known
        ) else None  # fmt: skip

    @property
    def asks(self) -> Search:
        return Search(self._collection)

    def rows(self) -> int | None:
        return None if self._collection is None else self._collection.count()

    def create(self) -> None:
        self.drop()
        index = {"space": "ip", "ef_construction": 200, "max_neighbors": 32, "ef_search": _DEPTH}
        self._collection = self._client.create_collection(
            self._layout.name, embedding_function=None, configuration={"hnsw": index}
        )

    def add(self, batch: Batch, *, again: bool = False) -> None:
        texts = [text or "" for text in batch.payload[WORDS]] if self._layout.words else None
        rows = [{name: value for name, value in row.items() if name != WORDS} or None for row in batch.rows]
        add = self._collection.upsert if again else self._collection.add
        add(batch.ids, embeddings=batch.vectors, metadatas=rows if any(rows) else None, documents=texts)

    def finish(self) -> None:
        pass

    def drop(self) -> None:
        if self._collection is not None:
            self._client.delete_collection(self._layout.name)
            self._collection = None

    def close(self) -> None:
        self._collection = None


ENGINE = Engine(
    name="chroma",
    title="Chroma",
    explanation="a database in a folder, or at an address; it always searches its index",
    collection=Chroma,
    serve="docker run -p 8000:8000 -v ./chroma:/data chromadb/chroma",
    url="http://localhost:8000",
    here=Here.database,
    batch=5000,
    requires=("chromadb",),
    extra="chroma",
)
