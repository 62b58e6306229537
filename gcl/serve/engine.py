"""Search over a catalog with several models at once: fields are embedded once and fused anew for each weighting."""

from __future__ import annotations

import reprlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from gcl.data.store.records import Record, Records
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.embedding.embed import DEFAULTS, EmbedOptions, FieldEmbeddings, embed
from gcl.retrieval.search.search import search
from gcl.retrieval.search.ties import id_ranks
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field, Modality, Schema, SideName

LONGEST_TEXT = 1000
MOST_RESULTS = 100
MOST_WEIGHT = 1_000_000
_LEAST_SHARE = 1e-6  # of the largest weight: less would vanish in float32
_CACHED_QUERIES = 64
_CACHED_WEIGHTINGS = 4  # fused copies of the catalog per model: [M, D] each


class BadRequest(ValueError):
    """A search that cannot be answered, in a sentence for the person who asked."""


@dataclass(frozen=True)
class Hit:
    """One result: the document's row in the catalog, its score, and its place (0: none) with each model."""

    row: int
    score: float
    places: dict[str, int]


class Engine:
    """A catalog and the models that search it. Thread-safe.

    encoders: {label: DualEncoder}, the base first. documents: the catalog's. embedding: how they are
    embedded. features: {label: the frozen trunks' cached output, as in EmbedOptions}.
    Queries may be texts, images or both, whatever the catalog's own queries are, as far as the models have towers.
    """

    def __init__(
        self,
        encoders: Mapping[str, DualEncoder],
        documents: Records,
        embedding: EmbedOptions = DEFAULTS,
        *,
        features: Mapping[str, Mapping[SideName, Mapping[str, np.ndarray]]] | None = None,
    ) -> None:
        if not encoders or not len(documents):
            raise ValueError(f"A search needs a model and documents; there are {len(encoders)} and {len(documents)}.")
        first = next(iter(encoders.values()))
        self.documents, self.fields = documents, dict(first.schema.document)
        self.query_fields = open_query_fields(first)
        schema = Schema(query=self.query_fields, document=self.fields)
        self._rank = id_ranks(documents.ids)
        self._searchers = {}
        for label, encoder in encoders.items():
            options = replace(embedding, features=(features or {}).get(label, {}))
            embedded = embed(encoder, documents, "document", options)
            self._searchers[label] = _Searcher(encoder.with_schema(schema), embedded, self._rank)

    @property
    def labels(self) -> list[str]:
        return list(self._searchers)

    @property
    def weights(self) -> dict[str, float]:
        """The document fields' weights of the schema."""
        return {name: field.weight for name, field in self.fields.items()}

    def accepts(self, modality: Modality) -> bool:
        return any(field.modality is modality for field in self.query_fields.values())

    def search(
        self,
        text: str | None = None,
        image: bytes | None = None,
        *,
        k: int = 10,
        weights: Mapping[str, float] | None = None,
    ) -> dict[str, list[Hit]]:
        """{label: the k best documents, best first}. weights: of document fields; those left out count as 0.

        Raises BadRequest for an empty or overlong query, or a k or weights out of range.
        """
        record = self.record(text, image)
        if not 1 <= k <= MOST_RESULTS:
            raise BadRequest(f"k is the number of results, from 1 to {MOST_RESULTS}; given {k}.")
        return self.answer(record, k=k, weights=weights)

    def answer(self, record: Record, *, k: int, weights: Mapping[str, float] | None = None) -> dict[str, list[Hit]]:
        """The same for a query with all of `query_fields`; absent ones are None."""
        chosen = self._weights(weights)
        results = {label: searcher(record, chosen, k) for label, searcher in self._searchers.items()}
        places = {label: {row: place for place, (row, _) in enumerate(hits, 1)} for label, hits in results.items()}
        return {
            label: [Hit(row, score, {other: at.get(row, 0) for other, at in places.items()}) for row, score in hits]
            for label, hits in results.items()
        }

    def record(self, text: str | None, image: bytes | None) -> Record:
        """A query of a text, an image or both. Raises BadRequest for an empty or overlong one."""
        text = " ".join((text or "").split())
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise BadRequest("The text holds half a surrogate pair, which is no character: send it as UTF-8.")
        if not text and not image:
            raise BadRequest("The search is empty: give a text, a picture, or both.")
        if len(text) > LONGEST_TEXT:
            raise BadRequest(f"The text has {len(text):,} characters; a search has at most {LONGEST_TEXT:,}.")
        record: Record = dict.fromkeys(self.query_fields)
        for value, modality in ((text, Modality.text), (image, Modality.image)):
            if value:
                name = next((name for name, f in self.query_fields.items() if f.modality is modality), None)
                if name is None:
                    raise BadRequest(f"This model cannot search by {modality.value}.")
                record[name] = value
        return record

    def _weights(self, weights: Mapping[str, float] | None) -> tuple[float, ...]:
        if weights is None:
            return tuple(self.weights.values())
        if unknown := [name for name in weights if name not in self.fields]:
            raise BadRequest(f"There is no field {unknown[0]!r} to weight; fields: {', '.join(self.fields)}.")
        numbers = {name: _weight(name, value) for name, value in weights.items()}
        largest = max(numbers.values(), default=0.0)
        if largest == 0:
            raise BadRequest("All weights are 0: give at least one field a weight.")
        for name, value in numbers.items():
            if 0 < value < _LEAST_SHARE * largest:
                raise BadRequest(
                    f"The weight of {name} is {value:g}, which counts for nothing beside {largest:g}: give it 0, or at "
                    f"least {_LEAST_SHARE:g} of the largest."
                )
        return tuple(numbers.get(name, 0.0) / largest for name in self.fields)  # only proportions count


def _weight(name: str, value: Any) -> float:
    """Raises BadRequest for what is no number from 0 to what a catalog's own weights may be."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MOST_WEIGHT:
        return float(value)
    said = repr(value) if isinstance(value, float) else reprlib.repr(value)
    raise BadRequest(f"The weight of {name} is {said}: a weight is a number of at least 0 and at most {MOST_WEIGHT:,}.")


class _Searcher:
    """One model over the catalog. Caches the last queries' vectors and the last weightings of the catalog."""

    def __init__(self, encoder: DualEncoder, fields: FieldEmbeddings, rank: np.ndarray) -> None:
        self.encoder, self.fields, self.rank = encoder, fields, rank
        self._lock = threading.Lock()
        self._query = lru_cache(_CACHED_QUERIES)(self._vector)
        self._corpus = lru_cache(_CACHED_WEIGHTINGS)(self._weighted)

    def __call__(self, record: Record, weights: tuple[float, ...], k: int) -> list[tuple[int, float]]:
        with self._lock:  # or two threads would compute the same
            query = self._query(tuple(record.values()))
            rows, corpus, rank = self._corpus(weights)
        if not len(rows):
            return []
        score, row = search(query, corpus, k, rank=rank)
        return [(int(rows[r]), float(s)) for r, s in zip(row[0], score[0], strict=True)]

    def _vector(self, values: tuple[str | bytes | None, ...]) -> np.ndarray:
        """[1, D]. values: of the query fields, in their order."""
        fields = self.encoder.schema.query
        records = ListRecords([""], [dict(zip(fields, values, strict=True))], fields)
        given = {name: max(field.weight, 1e-3) for name, field in records.side.items()}  # what was asked for counts
        return embed(self.encoder, records, "query").fused(given)

    def _weighted(self, weights: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows that have a field of positive weight, their vectors and their rank among themselves."""
        rows = np.flatnonzero((self.fields.present * np.array(weights)).sum(axis=1) > 0)
        whole = len(rows) == len(self.fields)
        part = self.fields if whole else self.fields.take(rows)
        rank = self.rank if whole else self.rank[rows].argsort().argsort()
        return rows, part.fused(weights) if len(rows) else part.embedding[:, 0], rank


def open_query_fields(encoder: DualEncoder) -> dict[str, Field]:
    """The schema's query fields, and one more for each modality that the model has a tower for and they lack."""
    fields = dict(encoder.schema.query)
    for name, modality in (("text", Modality.text), ("picture", Modality.image)):
        if encoder.tower(modality) is not None and all(field.modality is not modality for field in fields.values()):
            fields[name if name not in fields else f"{name}_query"] = Field(modality)
    return {name: replace(field) for name, field in fields.items()}
