"""Typesense 27 or later. It always searches its index, and keeps every number whole."""

from __future__ import annotations

from typing import Any

from gcl.exports.engines.clients import typesense
from gcl.exports.engines.engine import Engine, How, Layout, Setting
from gcl.exports.engines.http import Http
from gcl.exports.engines.payload import Column


class Typesense(Http):
    """A collection."""

    client = typesense
    made = ("POST", "/collections")
    deleted = "/collections/{name}"
    added = "/collections/{name}/documents/import?action=upsert"
    counted = ("/collections/{name}", ("num_documents",))

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        words = Setting.words(layout, "text match")
        return Setting.graph() + [setting for setting in words if setting.how is not How.rrf]

    def schema(self) -> Any:
        types = {Column.text: "string", Column.number: "float"}
        columns = [{"name": name, "type": types[kind], "optional": True} for name, kind in self.layout.columns.items()]
        graph = {"M": 16, "ef_construction": 200}
        vector = {"name": "vector", "type": "float[]", "num_dim": self.layout.width, "vec_dist": "ip"}
        return {"name": self.name, "fields": [*columns, {**vector, "hnsw_params": graph}]}


ENGINE = Engine(
    name="typesense",
    title="Typesense",
    collection=Typesense,
    serve="docker run -p 8108:8108 -v ./typesense:/data typesense/typesense:29.0 --data-dir /data --api-key=KEY",
    url="http://:KEY@localhost:8108",
    files="create.json and documents/, which `sh load.sh http://localhost:8108 KEY` sends",
)
