"""OpenSearch (2.19 or later): an index, loaded by the bulk API as that of Elasticsearch is."""

from __future__ import annotations

from typing import Any

from gcl.exports.engines.clients import opensearch
from gcl.exports.engines.elasticsearch import GRAPH, Elasticsearch
from gcl.exports.engines.engine import Engine, How, Quantization

_7_BITS = {"name": "sq", "parameters": {"bits": 7}}  # 1 if left out, from OpenSearch 3.6 on
_METHODS: dict[Quantization, dict] = {
    Quantization.none: {"engine": "faiss", "space_type": "innerproduct", "parameters": GRAPH},
    Quantization.scalar: {  # which keeps more of a cosine than of an inner product
        "engine": "lucene", "space_type": "cosinesimil", "parameters": {**GRAPH, "encoder": _7_BITS},
    },
    Quantization.binary: {"engine": "faiss", "space_type": "innerproduct", "parameters": GRAPH},
}  # fmt: skip


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


ENGINE = Engine(
    name="opensearch",
    title="OpenSearch",
    collection=OpenSearch,
    files="create.json and documents/, which `sh load.sh http://localhost:9200` sends",
    serve="docker run -p 9200:9200 -e discovery.type=single-node -e DISABLE_SECURITY_PLUGIN=true "
    "opensearchproject/opensearch:3",
    url="http://localhost:9200",
    quantizations=tuple(Quantization),
    widest=16_000,
)
