"""Weaviate 1.27 or later. It always searches its index, whose depth is the class's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from gcl.exports.engines.clients import weaviate
from gcl.exports.engines.engine import APPROXIMATE, Engine, How, Layout, Quantization, Setting
from gcl.exports.engines.http import VECTOR, Http
from gcl.exports.engines.payload import WORDS, Column

_EF = 256
_WHOLE = {"dataType": ["text"], "tokenization": "field", "indexSearchable": False}
_TYPES: dict[Column, dict] = {Column.text: _WHOLE, Column.number: {"dataType": ["number"], "indexRangeFilters": True}}
_QUANTIZED: dict[Quantization, dict] = {
    Quantization.none: {"skipDefaultQuantization": True},  # a server may quantise by default
    Quantization.scalar: {"sq": {"enabled": True, "rescoreLimit": 200}},
    Quantization.binary: {"bq": {"enabled": True, "rescoreLimit": 200}},
}


class Weaviate(Http):
    """A class with one named vector, which it does not make itself."""

    client = weaviate
    made = ("POST", "/v1/schema")
    deleted = "/v1/schema/{name}"
    added = "/v1/batch/objects"
    around = ('{"objects": [', ",\n", "]}\n")
    counted = ("/v1/schema/{name}", ())

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        return [Setting(f"HNSW, ef {_EF}", How.approximate, APPROXIMATE), *Setting.words(layout)]

    @property
    def name(self) -> str:
        return self.asks.name

    def schema(self) -> Any:
        graph = {"distance": "dot", "ef": _EF, "efConstruction": 200, "maxConnections": 32}
        graph |= _QUANTIZED[self.layout.quantization]
        vector = {"vectorizer": {"none": {}}, "vectorIndexType": "hnsw", "vectorIndexConfig": graph}
        words = {"dataType": ["text"], "tokenization": "word", "indexSearchable": True}
        properties = [{"name": weaviate.ID, **_WHOLE}]
        for name, kind in self.layout.columns.items():
            properties.append({"name": name, **(words if name == WORDS else _TYPES[kind])})
        return {"class": self.name, "vectorConfig": {"vector": vector}, "properties": properties}

    def document(self, name: str, row: dict[str, Any]) -> Sequence[Any]:
        key, properties = str(uuid5(NAMESPACE_URL, name)), {weaviate.ID: name, **row}
        return [{"class": self.name, "id": key, "vectors": {"vector": VECTOR}, "properties": properties}]

    def rows(self) -> int | None:
        if self.send("GET", self.deleted, missing=(404,)) is None:
            return None
        return self.asks.count()


ENGINE = Engine(
    name="weaviate",
    title="Weaviate",
    collection=Weaviate,
    files="create.json and documents/, which `sh load.sh http://localhost:8080` sends",
    serve="docker run -p 8080:8080 -v ./weaviate:/var/lib/weaviate semitechnologies/weaviate:1.34.0",
    url="http://localhost:8080",
    quantizations=tuple(Quantization),
)
