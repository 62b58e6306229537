"""Embeddings that somebody else's model made, behind the interface of a model: they are measured on the same path."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from gcl.data.importers.vectors import Vectors, read_vectors
from gcl.data.store.records import Records
from gcl.files.digest import add_file
from gcl.retrieval.embedding.embed import FieldEmbeddings
from gcl.schema import Field, Modality, SideName

if TYPE_CHECKING:
    from gcl.model.dual_encoder import DualEncoder
    from gcl.retrieval.embedding.run_files import GivenRuns

Embedder = Union["DualEncoder", "GivenEmbeddings", "GivenRuns"]  # what is measured; the last brings its results
_FIELD = {"embedding": Field(Modality.text)}
_UNIT = 1e-3  # how far from 1 a length may be and still count as normalised


@dataclass(frozen=True)
class WholeEmbeddings(FieldEmbeddings):
    """One vector a record, made of all its fields: field weights do not apply."""

    def fused(self, weights=None) -> np.ndarray:
        return super().fused(None)


class GivenEmbeddings:
    """Vectors by id. `files`: Parquet with id and vector in every row, of documents and of queries, in one file or two.

    A query is found by its id, or by its text (as an id, or in a column `text`). Rows with a `side` belong to that side
    alone; where both sides share ids, it is needed. Everything is normalised: scores are cosines.
    """

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.files = [Path(file) for file in files]
        self.vectors = read_vectors(self.files)
        lengths = np.linalg.norm(self.vectors.vector, axis=1)
        self.normalised = bool((np.abs(lengths - 1) < _UNIT).all())
        self._unit = self.vectors.vector / lengths[:, None]
        self._row_of = {side: self._index(side) for side in ("query", "document")}

    @property
    def width(self) -> int:
        return self._unit.shape[1]

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures has to know."""
        if self.normalised:
            return []
        return [f"{self.files[0].name}: its vectors are not of length 1; they were normalised, so scores are cosines."]

    def digest(self) -> str:
        """SHA-256 of the files."""
        whole = hashlib.sha256()
        for file in self.files:
            with open(file, "rb") as source:
                add_file(whole, source)
        return whole.hexdigest()

    def embed_records(self, records: Records, side: SideName) -> FieldEmbeddings:
        """Raises ValueError, with counts and the first ids, for records that have no vector."""
        row_of = self._row_of[side]
        rows = [row_of.get(str(name), -1) for name in records.ids]
        if side == "query":
            texts = _texts(records)
            rows = [row_of.get(text, -1) if row < 0 else row for row, text in zip(rows, texts, strict=True)]
        missing = [place for place, row in enumerate(rows) if row < 0]
        if missing:
            shown = ", ".join(repr(_name(records, place, side)) for place in missing[:3])
            how = "id or text" if side == "query" else "id"
            raise ValueError(
                f"embeddings:{'+'.join(map(str, self.files))} has no vector for {len(missing):,} of {len(rows):,} "
                f"{ {'query': 'queries', 'document': 'documents'}[side] } (by {how}), for example {shown}."
            )
        taken = np.ascontiguousarray(self._unit[rows])[:, None, :]
        return WholeEmbeddings(taken, np.ones((len(rows), 1), dtype=bool), _FIELD)

    def _index(self, side: SideName) -> dict[str, int]:
        vectors: Vectors = self.vectors
        found: dict[str, int] = {}
        for row, name in enumerate(vectors.ids):
            given = vectors.sides[row] if vectors.sides is not None else None
            if given is not None and given not in ("query", "document"):
                raise ValueError(f"embeddings: the side of {name!r} is {given!r}; it is query, document or empty.")
            if given not in (None, side):
                continue
            if found.setdefault(name, row) != row and not (vectors.vector[found[name]] == vectors.vector[row]).all():
                raise ValueError(
                    f"embeddings:{'+'.join(map(str, self.files))} has two vectors for {name!r}: make ids unique, or "
                    "add a column `side` (query or document) where a query and a document share an id."
                )
        if side == "query" and vectors.texts is not None:
            for row, text in enumerate(vectors.texts):
                if text is not None and (vectors.sides is None or vectors.sides[row] in (None, "query")):
                    found.setdefault(text, row)
        return found


def _texts(records: Records) -> list[str]:
    """Each query's text fields, joined by a space."""
    rows = np.arange(len(records))
    names = [name for name, field in records.side.items() if field.modality is Modality.text]
    columns = [records.column(name, rows) for name in names]
    return [" ".join(text for text in texts if text) for texts in zip(*columns, strict=True)] or [""] * len(rows)


def _name(records: Records, place: int, side: SideName) -> str:
    return (_texts(records)[place] if side == "query" else None) or str(records.ids[place])
