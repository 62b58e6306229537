"""Milvus: https://milvus.io/docs. Milvus Lite keeps a database in a file; a server has the same interface.

The vectors of the fields are side by side in one, and not searched one by one: its WeightedRanker adds scores of cut
candidates, normalised unless told otherwise, and finds other products than the run's score.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gcl.exports.engines.clients.milvus import Search
from gcl.exports.engines.engine import Collection, Engine, Here, How, Layout, Quantization, Setting
from gcl.exports.engines.payload import WORDS, Batch, Column

_SPARSE = "bm25"
_TEXT = 65_535  # bytes of a text, at most


class Milvus(Collection):
    """A collection of <collection>.milvus.db, or at an address."""

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        """Exact here; at an address with the index of a server at several depths. With words."""
        made = [Setting("exact", How.exact)] if url is None else Setting.graph()
        return made + Setting.words(layout)

    def __init__(self, layout: Layout, folder: Path, url: str | None) -> None:
        self._layout, self._local = layout, url is None
        import pymilvus

        self._milvus = pymilvus
        self._client = pymilvus.MilvusClient(url or str(folder / f"{layout.name}.milvus.db"))
        self.asks = Search(self._client, layout.name)

    def rows(self) -> int | None:
        if not self._client.has_collection(self._layout.name):
            return None
        name = self._layout.name
        try:
            self._client.load_collection(name)
            (found,) = self._client.query(name, output_fields=["count(*)"], consistency_level="Strong")
        except self._milvus.MilvusException:  # one of others, without an index
            return int(self._client.get_collection_stats(name)["row_count"])
        return int(found["count(*)"])  # the statistics lack what is not flushed, and have what is deleted

    def create(self) -> None:
        layout, client, kinds = self._layout, self._client, self._milvus.DataType
        self.drop()
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", kinds.VARCHAR, is_primary=True, max_length=512)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=layout.width)
        index = client.prepare_index_params()
        if self._local:
            index.add_index("vector", index_type="FLAT", metric_type="IP")
        else:
            kind = {Quantization.none: "HNSW", Quantization.scalar: "HNSW_SQ"}[layout.quantization]
            options = {"M": 32, "efConstruction": 200, **({"sq_type": "SQ8"} if kind == "HNSW_SQ" else {})}
            index.add_index("vector", index_type=kind, metric_type="IP", params=options)
        for name, column in layout.columns.items():
            if column is Column.number:
                schema.add_field(name, kinds.DOUBLE, nullable=True)
            else:
                words = {"enable_analyzer": True} if name == WORDS else {"nullable": True}
                schema.add_field(name, kinds.VARCHAR, max_length=_TEXT, **words)
        if layout.words:
            schema.add_field(_SPARSE, kinds.SPARSE_FLOAT_VECTOR)
            schema.add_function(self._milvus.Function(_SPARSE, self._milvus.FunctionType.BM25, [WORDS], [_SPARSE]))
            index.add_index(_SPARSE, index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        client.create_collection(layout.name, schema=schema, index_params=index)

    def add(self, batch: Batch, *, again: bool = False) -> None:
        rows: list[dict[str, Any]] = [
            {"id": name, "vector": vector, **payload}
            for name, vector, payload in zip(batch.ids, batch.vectors, batch.rows, strict=True)
        ]
        if self._layout.words:
            rows = [{**row, WORDS: str(row.get(WORDS, ""))} for row in rows]
        (self._client.upsert if again else self._client.insert)(self._layout.name, rows)

    def finish(self) -> None:
        self._client.flush(self._layout.name)
        self._client.load_collection(self._layout.name)

    def drop(self) -> None:
        if self._client.has_collection(self._layout.name):
            self._client.drop_collection(self._layout.name)

    def close(self) -> None:
        self._client.close()


ENGINE = Engine(
    name="milvus",
    title="Milvus",
    explanation="Milvus Lite keeps a database in one file and searches it exactly; at an address with its index",
    collection=Milvus,
    serve="docker run -p 19530:19530 milvusdb/milvus:latest milvus run standalone",
    url="http://localhost:19530",
    here=Here.database,
    quantizations=(Quantization.none, Quantization.scalar),
    batch=2000,
    requires=("pymilvus", "milvus_lite"),
    extra="milvus",
)
