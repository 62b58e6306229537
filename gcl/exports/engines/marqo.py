"""Marqo 2.13 or later. A structured index of `no_model`, to which vectors are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gcl.exports.engines.clients import marqo
from gcl.exports.engines.engine import Engine
from gcl.exports.engines.http import VECTOR, Http
from gcl.exports.engines.payload import WORDS, Column


class Marqo(Http):
    """An index."""

    client = marqo
    made = ("POST", "/indexes/{name}")
    deleted = "/indexes/{name}"
    added = "/indexes/{name}/documents"
    around = ('{"documents": [', ",\n", "]}\n")
    counted = ("/indexes/{name}/stats", ("numberOfDocuments",))

    def schema(self) -> Any:
        types = {Column.text: "text", Column.number: "double"}
        fields: list[dict[str, Any]] = [
            {"name": name, "type": types[kind], "features": ["lexical_search" if name == WORDS else "filter"]}
            for name, kind in self.layout.columns.items()
        ]
        graph = {"spaceType": "dotproduct", "parameters": {"efConstruction": 512, "m": 16}}
        return {
            "type": "structured", "model": "no_model", "normalizeEmbeddings": False, "vectorNumericType": "float",
            "modelProperties": {"type": "no_model", "dimensions": self.layout.width}, "annParameters": graph,
            "allFields": [*fields, {"name": "vector", "type": "custom_vector"}], "tensorFields": ["vector"],
        }  # fmt: skip

    def document(self, name: str, row: dict[str, Any]) -> Sequence[Any]:
        return [{"_id": name, "vector": {"content": "", "vector": VECTOR}, **row}]


ENGINE = Engine(
    name="marqo",
    title="Marqo",
    collection=Marqo,
    files="create.json and documents/, which `sh load.sh http://localhost:8882` sends",
    serve="docker run -p 8882:8882 marqoai/marqo:latest",
    url="http://localhost:8882",
    batch=128,  # as many as it takes at once
)
