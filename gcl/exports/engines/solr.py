"""Solr 9.6 or later (quantised vectors: 10 or later). A core gets the fields, which `solr create` made."""

from __future__ import annotations

from typing import Any

from gcl.errors import ConfigError
from gcl.exports.engines.clients import solr
from gcl.exports.engines.engine import Engine, How, Quantization
from gcl.exports.engines.http import Http
from gcl.exports.engines.payload import WORDS, Column

_TYPE = "gcl_vector"
_CLASSES: dict[Quantization, dict] = {
    Quantization.none: {"class": "solr.DenseVectorField"},
    Quantization.scalar: {"class": "solr.ScalarQuantizedDenseVectorField", "bits": 7},
    Quantization.binary: {"class": "solr.BinaryQuantizedDenseVectorField"},
}


class Solr(Http):
    """Fields of a core, and its documents. Its index looks at `topK` candidates, of which the first are taken."""

    client = solr
    hows = tuple(how for how in How if how is not How.rrf)
    made = ("POST", "/solr/{name}/schema")
    added = "/solr/{name}/update?commitWithin=1000"
    around = ("[", ",\n", "]\n")
    finished = "/solr/{name}/update?commit=true"
    counted = ("/solr/{name}/select?q=*:*&rows=0", ("response", "numFound"))
    absent = ()

    def schema(self) -> Any:
        types = {Column.text: "string", Column.number: "pdouble"}
        fields = [
            {"name": name, "type": "text_general" if name == WORDS else types[kind], "multiValued": False}
            for name, kind in self.layout.columns.items()
        ]
        kind = {"name": _TYPE, **_CLASSES[self.layout.quantization], "vectorDimension": self.layout.width}
        kind["similarityFunction"] = "cosine"  # the same ranking, and not for vectors of length 1 alone
        return {"add-field-type": kind, "add-field": [*fields, {"name": "vector", "type": _TYPE}]}

    def rows(self) -> int | None:
        """None for an empty one, too, which is made elsewhere."""
        try:
            return super().rows() or None
        except ValueError as error:
            raise ConfigError(
                f"Solr has no core {self.name}, as it seems ({error}): make it with `solr create -c {self.name}`."
            ) from error

    def drop(self) -> None:
        """The core stays; fields are removed one by one, as one that is not there is refused."""
        self.send("POST", self.finished, {"delete": {"query": "*:*"}})
        commands: list[dict] = [{"delete-field": {"name": name}} for name in [*self.layout.columns, "vector"]]
        for command in [*commands, {"delete-field-type": {"name": _TYPE}}]:
            self.send(*self.made, command, missing=(400,))


ENGINE = Engine(
    name="solr",
    title="Solr",
    collection=Solr,
    files="create.json and documents/, which `sh load.sh http://localhost:8983` sends",
    serve="docker run -p 8983:8983 solr:10 solr-precreate products",
    url="http://localhost:8983",
    quantizations=tuple(Quantization),
)
