"""Elasticsearch (8.19, or 9.1 or later) and OpenSearch (2.19 or later): an index, loaded by the bulk API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gcl.exports.engines.clients import elasticsearch, opensearch
from gcl.exports.engines.http import VECTOR, Http
from gcl.exports.engines.payload import WORDS, Column
from gcl.exports.engines.registry import How, Quantization

_TYPES: dict[Column, dict] = {Column.text: {"type": "keyword", "ignore_above": 8191}, Column.number: {"type": "double"}}
_GRAPH = {"m": 16, "ef_construction": 200}
_INDEXES: dict[Quantization, dict] = {
    Quantization.none: {"type": "hnsw"},
    Quantization.scalar: {"type": "int8_hnsw", "rescore_vector": {"oversample": 3.0}},
    Quantization.binary: {"type": "bbq_hnsw", "rescore_vector": {"oversample": 3.0}},
}
_7_BITS = {"name": "sq", "parameters": {"bits": 7}}  # 1 if left out, from OpenSearch 3.6 on
_METHODS: dict[Quantization, dict] = {
    Quantization.none: {"engine": "faiss", "space_type": "innerproduct", "parameters": _GRAPH},
    Quantization.scalar: {  # which keeps more of a cosine than of an inner product
        "engine": "lucene", "space_type": "cosinesimil", "parameters": {**_GRAPH, "encoder": _7_BITS},
    },
    Quantization.binary: {"engine": "faiss", "space_type": "innerproduct", "parameters": _GRAPH},
}  # fmt: skip


class Elasticsearch(Http):
    """An index. Vectors are compared by their cosine: of vectors of one length, that is the same ranking."""

    client = elasticsearch
    hows = tuple(how for how in How if how is not How.rrf)  # that needs a licence
    made = ("PUT", "/{name}")
    added = "/{name}/_bulk"
    finished = "/{name}/_refresh"
    counted = ("/{name}/_count", ("count",))

    def schema(self) -> Any:
        kinds = {
            name: {"type": "text"} if name == WORDS else _TYPES[kind] for name, kind in self.layout.columns.items()
        }
        return {"mappings": {"dynamic": "strict", "properties": {**kinds, "vector": self.vector()}}}

    def vector(self) -> dict[str, Any]:
        """The kind of index is said, as the default is one bit of each number."""
        index = {**_INDEXES[self.layout.quantization], **_GRAPH}
        dims = self.layout.width
        return {"type": "dense_vector", "dims": dims, "index": True, "similarity": "cosine", "index_options": index}

    def document(self, name: str, row: dict[str, Any]) -> Sequence[Any]:
        return [{"index": {"_id": name}}, {"vector": VECTOR, **row}]

    def rows(self) -> int | None:
        self.send("POST", self.finished, missing=(404,))  # what was added just now counts
        return super().rows()


class OpenSearch(Elasticsearch):
    """An index of faiss, or for 8 bits (7 in fact) of Lucene; of 1 bit, it scores candidates again by whole numbers."""

    client = opensearch
    hows = tuple(How)

    def schema(self) -> Any:
        return {"settings": {"index": {"knn": True}}, **super().schema()}

    def vector(self) -> dict[str, Any]:
        method = {"name": "hnsw", **_METHODS[self.layout.quantization]}
        binary = self.layout.quantization is Quantization.binary
        packed = {"mode": "on_disk", "compression_level": "32x"} if binary else {}
        return {"type": "knn_vector", "dimension": self.layout.width, "method": method, **packed}
