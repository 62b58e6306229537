"""Somebody's own encoder, an API or another library's model, measured on the same path as a model of gcl."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gcl.data.store.records import Record, Records
from gcl.files.progress import counted
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.embedding.embed import FieldEmbeddings
from gcl.retrieval.embedding.precomputed import WHOLE, PrecomputedEmbeddings, RunFiles, WholeEmbeddings
from gcl.schema import SideName

_UNIT = 1e-3  # how far from 1 a length may be and still count as normalised
_METHODS: dict[SideName, str] = {"query": "embed_queries", "document": "embed_documents"}
_NORMALISED = "The encoder's vectors are not of length 1; they were normalised, so scores are cosines."


@runtime_checkable
class Encoder(Protocol):
    """What `gcl.evaluate` measures besides models: an object with two methods.

    Each takes a batch of records, {field: value} of the fields that are there (a text as str, an image as the bytes of
    its file, several images as a tuple of these), and gives one vector for each: anything that numpy makes a float
    array [n, D] of. Vectors need not have length 1.
    """

    def embed_queries(self, queries: list[dict[str, Any]]) -> Any:
        """[n, D]"""

    def embed_documents(self, documents: list[dict[str, Any]]) -> Any:
        """[n, D]"""


class OwnEncoder:
    """An `Encoder`, or one function for both sides, in the place of a model. batch: records of one call."""

    def __init__(self, encoder: Encoder | Callable[[list[dict[str, Any]]], Any], *, batch: int = 64) -> None:
        self.encoder, self.batch, self.width = encoder, batch, 0
        self.notes: list[str] = []

    def facts(self) -> dict[str, Any]:
        """Provenance."""
        kind: Any = self.encoder if hasattr(self.encoder, "__qualname__") else type(self.encoder)
        return {"encoder": f"{kind.__module__}.{kind.__qualname__}", "width": self.width}

    def embed_records(self, records: Records, side: SideName) -> FieldEmbeddings:
        """Raises ValueError, in a sentence, for anything but one finite vector for each record."""
        starts = range(0, len(records), self.batch)
        parts = [
            self._embed([records[row] for row in range(start, min(start + self.batch, len(records)))], side)
            for start in counted(starts, f"embedding, {side}", unit="batch")
        ]
        vectors = np.concatenate(parts) if parts else np.zeros((0, self.width), np.float32)
        return WholeEmbeddings(vectors[:, None, :], np.ones((len(vectors), 1), dtype=bool), WHOLE)

    def _embed(self, records: Sequence[Record], side: SideName) -> np.ndarray:
        """[n, D] unit vectors."""
        call: Any = getattr(self.encoder, _METHODS[side], self.encoder)
        given = call([{name: value for name, value in record.items() if value is not None} for record in records])
        given = given.detach().cpu() if hasattr(given, "detach") else given  # a tensor of torch
        try:
            vectors = np.asarray(given, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"The encoder gave no array of numbers for {len(records):,} records ({error}).") from error
        if vectors.ndim != 2 or len(vectors) != len(records) or vectors.shape[1] != (self.width or vectors.shape[1]):
            raise ValueError(
                f"The encoder gave an array {list(vectors.shape)} for {len(records):,} records of the {side} side: "
                f"expected [{len(records)}, {self.width or 'D'}], one vector for each."
            )
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(length) & (length > 0)).all():
            raise ValueError(
                f"The encoder gave a vector of the {side} side that is 0 or has values that are not numbers."
            )
        self.width = vectors.shape[1]
        if _NORMALISED not in self.notes and (np.abs(length - 1) > _UNIT).any():
            self.notes.append(_NORMALISED)
        return vectors / length


Embedder = DualEncoder | PrecomputedEmbeddings | RunFiles | OwnEncoder
"""What can be measured; RunFiles brings its results."""
