"""Elasticsearch (8.19, or 9.1 or later): an index, loaded by the bulk API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gcl.exports.engines.clients import elasticsearch
from gcl.exports.engines.engine import Engine, How, Quantization
from gcl.exports.engines.http import VECTOR, Http
from gcl.exports.engines.payload import WORDS, Column

_TYPES: dict[Column, dict] = {Column.text: {"type": "keyword", "ignore_above": 8191}, Column.number: {"type": "double"}}
GRAPH = {"m": 16, "ef_construction": 200}
_INDEXES: dict[Quantization, dict] = {
    Quantization.none: {"type": "hnsw"},
    Quantization.scalar: {"type": "int8_hnsw", "rescore_vector": {"oversample": 3.0}},
    Quantization.binary: {"type": "bbq_hnsw", "rescore_vector": {"oversample": 3.0}},
}


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
        index = {**_INDEXES[self.layout.quantization], **GRAPH}
        dims = self.layout.width
        return {"type": "dense_vector", "dims": dims, "index": True, "similarity": "cosine", "index_options": index}

    def document(self, name: str, row: dict[str, Any]) -> Sequence[Any]:
        return [{"index": {"_id": name}}, {"vector": VECTOR, **row}]

    def rows(self) -> int | None:
        self.send("POST", self.finished, missing=(404,))  # what was added just now counts
        return super().rows()


ENGINE = Engine(
    name="elasticsearch",
    title="Elasticsearch",
    collection=Elasticsearch,
    files="create.json and documents/, which `sh load.sh http://localhost:9200` sends",
    serve="docker run -p 9200:9200 -e discovery.type=single-node -e xpack.security.enabled=false elasticsearch:9.2.0",
    url="http://localhost:9200",
    quantizations=tuple(Quantization),
    widest=4096,
)
