"""Vespa 8. An application package for `vespa deploy`, and a feed for `vespa feed`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import indent
from typing import Any
from urllib.parse import quote

from gcl.errors import ConfigError
from gcl.exports.engines.clients import vespa
from gcl.exports.engines.engine import SHARE, Engine, Layout, Quantization
from gcl.exports.engines.http import VECTOR, Http, encode, numbers
from gcl.exports.engines.payload import WORDS, Batch, Column
from gcl.files.atomic import replacing, write_text

_AT_ONCE = 8  # requests; a session keeps ten connections
_SERVICES = """<?xml version="1.0" encoding="utf-8" ?>
<services version="1.0">
  <container id="default" version="1.0">
    <search />
    <document-api />
  </container>
  <content id="{name}" version="1.0">
    <min-redundancy>1</min-redundancy>
    <documents>
      <document type="{name}" mode="index" />
    </documents>
    <nodes>
      <node distribution-key="0" hostalias="node1" />
    </nodes>
  </content>
</services>
"""
_WHOLE = "indexing: summary | attribute"
_FIELDS = {Column.text: f"string {{\n  {_WHOLE}\n  match: cased\n}}", Column.number: f"double {{\n  {_WHOLE}\n}}"}
_WORDS = "string {\n  indexing: index\n  index: enable-bm25\n}"
_VECTOR = """tensor<{cell}>(x[{width}]) {
  indexing: attribute | index
  attribute {
    distance-metric: dotproduct
  }
  index {
    hnsw {
      max-links-per-node: 16
      neighbors-to-explore-at-insert: 200
    }
  }
}"""
_NEAR = """
rank-profile near {
  inputs {
    query(asked) tensor<float>(x[{width}])
  }
  first-phase {
    expression: sum(query(asked) * attribute(vector))
  }
}"""
_SAID = """
rank-profile words {
  first-phase {
    expression: bm25({words})
  }
}
rank-profile weighted inherits near {
  inputs {
    query(share) double: {share}
  }
  first-phase {
    expression: query(share) * sum(query(asked) * attribute(vector)) + (1 - query(share)) / 20 * bm25({words})
  }
}
rank-profile rrf inherits weighted {
  global-phase {
    rerank-count: {most}
    expression: reciprocal_rank_fusion(closeness(field, vector), bm25({words}))
  }
}"""


def schema(layout: Layout) -> str:
    """schemas/<name>.sd: what a document holds, and how it is ranked (20 is a high score of BM25)."""
    given = {
        "cell": "bfloat16" if layout.quantization is Quantization.scalar else "float",
        "width": layout.width, "words": WORDS, "share": SHARE, "most": 200,
    }  # fmt: skip
    fields = {"id": _FIELDS[Column.text]}
    fields |= {name: _WORDS if name == WORDS else _FIELDS[kind] for name, kind in layout.columns.items()}
    told = "\n".join(f"field {name} type {field}" for name, field in {**fields, "vector": _VECTOR}.items())
    document = f"document {layout.name} {{\n{indent(told, '  ')}\n}}"
    text = document + _NEAR + (_SAID if layout.words else "")
    for name, value in given.items():
        text = text.replace(f"{{{name}}}", str(value))
    return f"schema {layout.name} {{\n{indent(text, '  ')}\n}}\n"


class Vespa(Http):
    """Documents of an application that is up: how vectors are kept is said by its schema."""

    client = vespa
    deleted = "/document/v1/{name}/{name}/docid?selection=true&cluster={name}"
    counted = ("/search/?yql=select+*+from+{name}+where+true&hits=0", ("root", "fields", "totalCount"))
    absent = ()

    def document(self, name: str, row: dict[str, Any]) -> Sequence[Any]:
        key = f"id:{self.name}:{self.name}::{name}"
        return [{"put": key, "fields": {"id": name, "vector": {"values": VECTOR}, **row}}]

    def rows(self) -> int | None:
        """None for an empty one, too, which is made elsewhere."""
        try:
            return super().rows() or None
        except ValueError as error:
            raise ConfigError(
                f"Vespa has no application with the schema {self.name}, as it seems ({error}): `gcl deploy` without "
                "url=… writes one, for `vespa deploy application`."
            ) from error

    def drop(self) -> None:
        """The documents, as many per request as the engine likes."""
        goes_on: str | None = ""
        while goes_on is not None:
            answer = self.send("DELETE", self.deleted + goes_on)
            goes_on = f"&continuation={answer['continuation']}" if "continuation" in answer else None

    create = drop

    def add(self, batch: Batch, *, again: bool = False) -> None:
        """A request takes one document, so several are sent at once."""

        def put(name: str, row: dict[str, Any], vector: str) -> None:
            fields = {"fields": self.document(name, row)[0]["fields"]}
            self.send("POST", f"/document/v1/{{name}}/{{name}}/docid/{quote(name, safe='')}", encode(fields, vector))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(put, batch.ids, batch.rows, numbers(batch)):
                pass

    @classmethod
    def write(cls, layout: Layout, batches: Iterable[Batch], folder: Path) -> Sequence[Path]:
        """application/ and documents.jsonl."""
        server, package = cls(layout, folder, None), folder / "application"
        write_text(package / "services.xml", _SERVICES.replace("{name}", layout.name))
        write_text(package / "schemas" / f"{layout.name}.sd", schema(layout))
        with replacing(folder / "documents.jsonl") as partial, open(partial, "w", encoding="utf-8") as file:
            for batch in batches:
                file.write(server.documents(batch))
        return [package, folder / "documents.jsonl"]


ENGINE = Engine(
    name="vespa",
    title="Vespa",
    collection=Vespa,
    serve="docker run -p 8080:8080 -p 19071:19071 vespaengine/vespa",
    url="http://localhost:8080",
    files="application/ and documents.jsonl, for `vespa deploy application` and `vespa feed documents.jsonl`",
    quantizations=(Quantization.none, Quantization.scalar),
)
