"""Qdrant: https://qdrant.tech/documentation. Its client searches in this process what a server would, exactly."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gcl.exports.engines.engine import Collection, Engine, Here, How, Layout, Quantization, Setting
from gcl.exports.engines.payload import WORDS, Batch, Column
from gcl.files.atomic import write_json
from gcl.retrieval.search.bm25 import K1, B

_KEY = "id"  # a point's own id is its row; the document's id is in the payload
_LENGTH = 12  # words of a document, about: BM25 asks how much longer or shorter each one is


def _schema(layout: Layout) -> dict[str, Any]:
    from qdrant_client import models

    quantized: dict[Quantization, models.QuantizationConfig] = {
        Quantization.scalar: models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        ),
        Quantization.binary: models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    }
    words = {WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)}
    return {
        "vectors": models.VectorParams(size=layout.width, distance=models.Distance.DOT),
        "sparse_vectors": words if layout.words else None,
        "quantization_config": quantized.get(layout.quantization),
    }


class Qdrant(Collection):
    """A collection in memory, or at an address."""

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        """Exact; with the index of a server at several depths; with words."""
        made = [Setting("exact", How.exact)]
        if url is not None:
            made = [Setting("exact", How.exact, options={"exact": True}), *Setting.graph(rescore=True)]
        if layout.quantization is not Quantization.none:
            options = {"ef": 128, "rescore": False}
            made.append(Setting("HNSW, ef 128, without rescoring", How.approximate, None, options))
        return made + Setting.words(layout)

    @classmethod
    def write(cls, layout: Layout, batches: Iterable[Batch], folder: Path) -> Sequence[Path]:
        """collection.json; the vectors come by `url=…`."""
        from qdrant_client import models

        body = models.CreateCollection(**_schema(layout)).model_dump(mode="json", exclude_none=True)
        return [write_json(folder / "collection.json", body)]

    def __init__(self, layout: Layout, folder: Path, url: str | None) -> None:
        from qdrant_client import QdrantClient

        from gcl.exports.engines.clients.qdrant import Search, client_of

        self._layout = layout
        self._client = QdrantClient(":memory:") if url is None else client_of(url)
        self.asks = Search(self._client, layout.name)

    def rows(self) -> int | None:
        name = self._layout.name
        return self._client.count(name).count if self._client.collection_exists(name) else None

    def create(self) -> None:
        from qdrant_client.models import PayloadSchemaType

        layout, client = self._layout, self._client
        client.delete_collection(layout.name)
        made = _schema(layout)
        client.create_collection(
            layout.name, vectors_config=made["vectors"], sparse_vectors_config=made["sparse_vectors"],
            quantization_config=made["quantization_config"],
        )  # fmt: skip
        if self._remote:
            kinds = {Column.text: PayloadSchemaType.KEYWORD, Column.number: PayloadSchemaType.FLOAT}
            for name, kind in layout.columns.items():
                if name != WORDS:
                    client.create_payload_index(layout.name, name, field_schema=kinds[kind])

    @property
    def _remote(self) -> bool:
        return hasattr(self._client._client, "rest_uri")

    def add(self, batch: Batch, *, again: bool = False) -> None:
        """A point replaces the one of its number."""
        from qdrant_client import models

        rows: list[Any] = list(range(batch.start, batch.start + len(batch)))
        payloads = [{_KEY: name, **row} for name, row in zip(batch.ids, batch.rows, strict=True)]
        vectors: dict = {"": batch.vectors.tolist()}
        if self._layout.words:
            vectors[WORDS] = [models.SparseVector(**_sparse(text or "")) for text in batch.payload[WORDS]]
        self._client.upsert(self._layout.name, models.Batch(ids=rows, vectors=vectors, payloads=payloads))

    def finish(self) -> None:
        """Waits until a server has built its index."""
        while self._remote and self._client.get_collection(self._layout.name).status != "green":
            time.sleep(0.5)

    def drop(self) -> None:
        self._client.delete_collection(self._layout.name)

    def close(self) -> None:
        self._client.close()


def _sparse(text: str) -> dict[str, list]:
    """BM25's part of each word of a document; the engine multiplies by the idf."""
    from gcl.exports.engines.clients.qdrant import word_numbers

    count = Counter(word_numbers(text))
    norm = K1 * (1 - B + B * sum(count.values()) / _LENGTH)
    values = [times * (K1 + 1) / (times + norm) for times in count.values()]
    return {"indices": list(count), "values": values}


ENGINE = Engine(
    name="qdrant",
    title="Qdrant",
    explanation="checked in this process by its client's own search, which is exact; at an address with its index",
    collection=Qdrant,
    files="collection.json, the body of PUT /collections/<name>",
    serve="docker run -p 6333:6333 -v ./qdrant_storage:/qdrant/storage qdrant/qdrant",
    url="http://localhost:6333",
    here=Here.check,
    quantizations=tuple(Quantization),
    batch=1000,
    requires=("qdrant_client",),
    extra="qdrant",
)
