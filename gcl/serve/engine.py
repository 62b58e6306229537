"""Search over a catalog with several models at once.

1. Each model embeds the documents once, field by field; a weighting of the fields only fuses them anew.
2. Searches that arrive while a model is at work are answered together afterwards: their queries are embedded in one
   batch, and those with the same weights and filters are searched for in one pass.
3. A query is a text, an image, a document to be like, or a text with one of these two: the vectors of the two are mixed
   in the shares that it names.
4. Filters choose the documents first; the k best are the k best among those.
"""

from __future__ import annotations

import reprlib
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch

from gcl.data.store.records import Record, Records, first_images
from gcl.data.store.shard_writer import content_hash
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fusion import fuse
from gcl.retrieval.embedding.embed import DEFAULTS, EmbedOptions, FieldEmbeddings, embed
from gcl.retrieval.search.search import search
from gcl.retrieval.search.ties import id_ranks
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field, Modality, Schema, SideName, fields_of
from gcl.serve.facets import Facet, Wanted
from gcl.serve.refusal import BadRequest

LONGEST_TEXT = 1000
MOST_RESULTS = 100
MOST_WEIGHT = 1_000_000
TOGETHER = 64  # searches answered together, at most
_LEAST_SHARE = 1e-6  # of the largest weight: less would vanish in float32
_CACHED_QUERIES = 256
_Corpus = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows, vectors, rank
_CACHED_WEIGHTINGS = 4  # fused copies of the catalog per model: [M, D] each


@dataclass(frozen=True)
class Query:
    """What is searched for: a text, an image, a document to be like (its id), or a text with one of these.

    mix: share of the image or document next to a text, from 0 to 1; None: the engine's. k: results per model. weights:
    of document fields, those left out count as 0; None: the schema's. filters: by name of a facet, see `Facet.keep`.
    """

    text: str | None = None
    image: bytes | None = None
    like: str | None = None
    mix: float | None = None
    k: int = 10
    weights: Mapping[str, float] | None = None
    filters: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Hit:
    """One result: the document's row in the catalog, its score, and its place (0: none) with each model."""

    row: int
    score: float
    places: dict[str, int]


class Engine:
    """A catalog and the models that search it. Thread-safe.

    encoders: {label: DualEncoder}, the base first. documents: the catalog's. embedding: how they are
    embedded. features: {label: the frozen trunks' cached output, as in EmbedOptions}. facets: what can be filtered by.
    Queries may be texts, images or both, whatever the catalog's own queries are, as far as all models have towers.
    """

    def __init__(
        self,
        encoders: Mapping[str, DualEncoder],
        documents: Records,
        embedding: EmbedOptions = DEFAULTS,
        *,
        features: Mapping[str, Mapping[SideName, Mapping[str, np.ndarray]]] | None = None,
        facets: Iterable[Facet] = (),
    ) -> None:
        if not encoders or not len(documents):
            raise ValueError(f"A search needs a model and documents; there are {len(encoders)} and {len(documents)}.")
        first = next(iter(encoders.values()))
        self.documents, self.fields = documents, dict(first.schema.document)
        self.facets = {facet.name: facet for facet in facets}
        self.query_fields = open_query_fields(*encoders.values())
        schema = Schema(query=self.query_fields, document=self.fields)
        self.on_batch: Callable[[int], object] | None = None  # is told how many searches are answered together
        self._rank = id_ranks(documents.ids)
        self._by_rank = np.argsort(self._rank)
        self._searchers = {}
        for label, encoder in encoders.items():
            options = replace(embedding, features=(features or {}).get(label, {}))
            embedded = embed(encoder, documents, "document", options)
            searcher = _Searcher(encoder.with_schema(schema), embedded, self._rank, self.kept, self._note)
            self._searchers[label] = searcher

    def _note(self, size: int) -> None:
        if self.on_batch is not None:
            self.on_batch(size)

    @property
    def labels(self) -> list[str]:
        return list(self._searchers)

    @property
    def by_query(self) -> list[str]:
        """The models whose queries give the weights of document fields, unless a search names some."""
        return [label for label, searcher in self._searchers.items() if searcher.fields.by_query is not None]

    @property
    def weights(self) -> dict[str, float]:
        """The document fields' weights of the schema."""
        return {name: field.weight for name, field in self.fields.items()}

    @property
    def mix(self) -> float:
        """The share of an image next to a text, unless a query names one: by the weights of the schema's fields."""
        text, image = (self._query_weight(modality) for modality in (Modality.text, Modality.image))
        return image / (text + image)

    @property
    def waiting(self) -> int:
        """Searches that no model has begun with."""
        return max(searcher.waiting for searcher in self._searchers.values())

    def encoder(self, label: str) -> DualEncoder:
        """A model, reading queries as this engine takes them."""
        if label not in self._searchers:
            raise BadRequest(f"There is no model {label!r} here; there is: {', '.join(self._searchers)}.", 404)
        return self._searchers[label].encoder

    def accepts(self, modality: Modality) -> bool:
        return self._query_field(modality) is not None

    def row_of(self, document: str) -> int:
        """The row of a document's id. Raises BadRequest."""
        ids, order = self.documents.ids, self._by_rank
        place = bisect_left(range(len(order)), document, key=lambda at: str(ids[int(order[at])]))
        if place == len(order) or str(ids[int(order[place])]) != document:
            raise BadRequest(f"There is no product {reprlib.repr(document)} in this catalog.", 404)
        return int(order[place])

    def search(self, text: str | None = None, image: bytes | None = None, **options: Any) -> dict[str, list[Hit]]:
        """`search_all` for one query; options: the other fields of Query."""
        return self.search_all([Query(text, image, **options)])[0]

    def search_all(self, queries: Sequence[Query]) -> list[dict[str, list[Hit]]]:
        """For each query {label: the k best documents, best first}.

        Raises BadRequest for an empty or overlong query, and k, weights, filters or documents that cannot be.
        """
        return self._answers([self._job(query) for query in queries])

    def answer(self, record: Record, *, k: int, weights: Mapping[str, float] | None = None) -> dict[str, list[Hit]]:
        """The same for one query with all of `query_fields`, absent ones None, and any k."""
        own = self._are_own(weights)
        return self._answers([_Job(record, None, self.mix, k, self._weights(weights), (), own)])[0]

    def _answers(self, jobs: Sequence[_Job]) -> list[dict[str, list[Hit]]]:
        results = {label: searcher(jobs) for label, searcher in self._searchers.items()}
        return [_with_places({label: lists[n] for label, lists in results.items()}) for n in range(len(jobs))]

    def check(self, query: Query) -> Query:
        """The query itself. Raises BadRequest where `search_all` would."""
        self._job(query)
        return query

    @cached_property
    def _images(self) -> np.ndarray:
        images = [np.diff(first_images(self.documents, name)) for name in fields_of(self.fields, Modality.image)]
        return np.sum(images, axis=0, initial=0) + np.zeros(len(self.documents), dtype=np.int64)

    def images(self, rows: Sequence[int]) -> list[int]:
        """How many images each of these documents has."""
        return self._images[rows].tolist() if len(rows) else []

    def record(self, text: str | None, image: bytes | None) -> Record:
        """A query of a text, an image or both, with all of `query_fields`. Raises BadRequest for an empty or overlong
        one."""
        text = plain(" ".join((text or "").split()))
        if len(text) > LONGEST_TEXT:
            raise BadRequest(
                f"The text has {len(text):,} characters; a search has at most {LONGEST_TEXT:,}. Shorten it."
            )
        if not text and not image:
            raise BadRequest("The search is empty: give a text, a picture, or both.")
        record: Record = dict.fromkeys(self.query_fields)
        for value, modality in ((text, Modality.text), (image, Modality.image)):
            if value:
                if (name := self._query_field(modality)) is None:
                    raise BadRequest(f"This model cannot search by {modality.value}.")
                record[name] = value
        return record

    def kept(self, wanted: Wanted) -> np.ndarray:
        """bool[M]: the documents that pass these filters, all of them."""
        return np.logical_and.reduce([self.facets[name].keep(choice) for name, choice in wanted])

    def _job(self, query: Query) -> _Job:
        if query.like is not None and query.image:
            raise BadRequest("A search is like a picture or like a product, not both: leave one of them out.")
        if query.like is not None and not (query.text or "").strip():
            record: Record = dict.fromkeys(self.query_fields)
        else:
            record = self.record(query.text, query.image)
        if not 1 <= query.k <= MOST_RESULTS:
            raise BadRequest(f"k is the number of results, from 1 to {MOST_RESULTS}; given {query.k}.")
        mix = self.mix if query.mix is None else query.mix
        if isinstance(mix, bool) or not isinstance(mix, int | float) or not 0 <= mix <= 1:
            raise BadRequest(f"mix is the share of the picture next to a text, from 0 to 1; given {mix!r}.")
        like = None if query.like is None else self.row_of(query.like)
        weights, filters = self._weights(query.weights), self._filters(query.filters)
        return _Job(record, like, float(mix), query.k, weights, filters, self._are_own(query.weights))

    def _are_own(self, weights: Mapping[str, float] | None) -> bool:
        """Whether they are others than the schema's, which the page names where nobody has moved one."""
        return weights is not None and dict(weights) != self.weights

    def _query_field(self, modality: Modality) -> str | None:
        return next((name for name, f in self.query_fields.items() if f.modality is modality), None)

    def _query_weight(self, modality: Modality) -> float:
        name = self._query_field(modality)
        return 1.0 if name is None else max(self.query_fields[name].weight, 1e-3)  # what was asked for counts

    def _filters(self, filters: Mapping[str, Any] | None) -> Wanted:
        if unknown := [name for name in filters or {} if name not in self.facets]:
            known = ", ".join(self.facets) or "none"
            raise BadRequest(f"There is no filter {reprlib.repr(unknown[0])}; there is: {known}.")
        return tuple(sorted((name, self.facets[name].check(value)) for name, value in (filters or {}).items()))

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
                    f"The weight of {name} is {value:g}, which counts for nothing next to {largest:g}: give it 0, or "
                    f"at least {_LEAST_SHARE:g} of the largest."
                )
        return tuple(numbers.get(name, 0.0) / largest for name in self.fields)  # only proportions count


def plain(text: str) -> str:
    """The text. Raises BadRequest where a model's tokenizer would fail."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise BadRequest("The text holds half a surrogate pair, which is no character: send it as UTF-8.")
    return text


def _weight(name: str, value: Any) -> float:
    """Raises BadRequest for what is no number from 0 to what a catalog's own weights may be."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MOST_WEIGHT:
        return float(value)
    said = repr(value) if isinstance(value, float) else reprlib.repr(value)
    raise BadRequest(f"The weight of {name} is {said}: a weight is a number of at least 0 and at most {MOST_WEIGHT:,}.")


def _with_places(results: Mapping[str, list[tuple[int, float]]]) -> dict[str, list[Hit]]:
    places = {label: {row: place for place, (row, _) in enumerate(hits, 1)} for label, hits in results.items()}
    return {
        label: [Hit(row, score, {other: at.get(row, 0) for other, at in places.items()}) for row, score in hits]
        for label, hits in results.items()
    }


@dataclass(frozen=True)
class _Job:
    """A query that has been checked. like: a row. weights: in the order of the fields."""

    record: Record
    like: int | None
    mix: float
    k: int
    weights: tuple[float, ...]
    filters: Wanted
    own_weights: bool = False  # not the schema's, which queries may give anew where the model has learned that


@dataclass
class _Waiting:
    """The searches of one request."""

    jobs: Sequence[_Job]
    results: list[list[tuple[int, float]]] | None = None
    error: Exception | None = None


@dataclass
class _Searcher:
    """One model over the catalog. Keeps the last queries' vectors and the last weightings of the catalog."""

    encoder: DualEncoder
    fields: FieldEmbeddings
    rank: np.ndarray
    kept: Callable[[Wanted], np.ndarray]
    on_batch: Callable[[int], object]
    _queue: list[_Waiting] = field(default_factory=list)
    _at_work: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[tuple, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._weighted = lru_cache(_CACHED_WEIGHTINGS)(self._fused)
        self._corpus = lru_cache(_CACHED_WEIGHTINGS)(self._filtered)

    @property
    def waiting(self) -> int:
        return sum(len(one.jobs) for one in tuple(self._queue))

    def __call__(self, jobs: Sequence[_Job]) -> list[list[tuple[int, float]]]:
        """For each search (row, score), best first."""
        mine = _Waiting(jobs)
        self._queue.append(mine)
        with self._at_work:
            while mine.results is None and mine.error is None:  # whoever was at work before may have answered it
                together = [self._queue.pop(0)]
                while self._queue and sum(len(one.jobs) for one in (*together, self._queue[0])) <= TOGETHER:
                    together.append(self._queue.pop(0))
                self._answer(together)
        if mine.error is not None:
            raise mine.error
        assert mine.results is not None
        return mine.results

    def _answer(self, together: Sequence[_Waiting]) -> None:
        jobs = [job for one in together for job in one.jobs]
        try:
            self.on_batch(len(jobs))
            found = iter(self._search(jobs))
        except Exception as error:
            if len(together) == 1:
                together[0].error = error
            else:  # one of them is at fault
                for one in together:
                    self._answer([one])
            return
        for one in together:
            one.results = [next(found) for _ in one.jobs]

    def _search(self, jobs: Sequence[_Job]) -> list[list[tuple[int, float]]]:
        vectors = self._vectors(jobs)
        results: list[list[tuple[int, float]]] = [[] for _ in jobs]
        groups: dict[tuple, list[int]] = defaultdict(list)
        for number, job in enumerate(jobs):
            if vectors[number] is not None:
                groups[self._key(job), job.filters].append(number)
        for (weights, filters), members in groups.items():
            rows, corpus, rank = self._corpus(weights, filters)
            if not len(rows):
                continue
            most = max(jobs[number].k + (jobs[number].like is not None) for number in members)  # it is no answer itself
            asked, gate = np.array([vectors[number] for number in members]), self.fields.gate(weights)
            score, row = search(asked if gate is None else gate.asked(asked), corpus, most, rank=rank)
            for number, its_score, its_row in zip(members, score.tolist(), rows[row].tolist(), strict=True):
                job = jobs[number]
                pairs = zip(its_row, its_score, strict=True)
                results[number] = [(r, s) for r, s in pairs if r != job.like][: job.k]
        return results

    def _vectors(self, jobs: Sequence[_Job]) -> list[np.ndarray | None]:
        """[D] for each search; None where the document to be like has no field that counts."""
        known = self._embedded([job.record for job in jobs])
        side, vectors = self.encoder.schema.query, list[np.ndarray | None]()
        for job, (embedding, present) in zip(jobs, known, strict=True):
            if job.like is not None:
                rows, weighted, _ = self._weighted(job.weights)
                place = int(np.searchsorted(rows, job.like))
                if place == len(rows) or rows[place] != job.like:
                    vectors.append(None)
                    continue
                embedding, present = np.vstack([embedding, weighted[place]]), np.append(present, True)
            texts = np.array([f.modality is Modality.text for f in side.values()] + [False] * (job.like is not None))
            share = np.where(texts, 1 - job.mix, job.mix)
            if not (present & texts).any() or not (present & ~texts).any():
                share = np.ones(len(texts))  # nothing to mix
            weight = torch.from_numpy(share.astype(np.float32))
            parts = torch.from_numpy(embedding)[None], weight, torch.from_numpy(present)[None]
            vectors.append(fuse(*parts)[0].numpy())
        return vectors

    def _embedded(self, records: Sequence[Record]) -> list[tuple[np.ndarray, np.ndarray]]:
        """embedding[F, D] and present[F] of queries; those not asked for lately are embedded in one batch."""
        fields = self.encoder.schema.query
        keys = [
            tuple(content_hash(value) if isinstance(value, bytes) else value for value in record.values())
            for record in records
        ]
        new = {key: record for key, record in zip(keys, records, strict=True) if key not in self._known}
        known = {key: self._known[key] for key in keys if key in self._known}
        if new:
            asked = ListRecords([str(number) for number in range(len(new))], list(new.values()), fields)
            found = embed(self.encoder, asked, "query", EmbedOptions(batch_size=TOGETHER))
            known |= {key: (found.embedding[n], found.present[n]) for n, key in enumerate(new)}
        self._known = {**{key: value for key, value in self._known.items() if key not in known}, **known}
        for key in list(self._known)[:-_CACHED_QUERIES]:
            del self._known[key]
        return [known[key] for key in keys]

    def _key(self, job: _Job) -> tuple[float, ...] | None:
        """The weights of a search; None: its query gives them."""
        return job.weights if job.own_weights or self.fields.by_query is None else None

    def _fused(self, weights: tuple[float, ...] | None) -> _Corpus:
        """Rows that have a field of positive weight, their vectors and their rank among themselves."""
        gate = self.fields.gate(weights)
        counts = np.array(weights if gate is None else [*gate.given.values()])
        rows = np.flatnonzero((self.fields.present * counts).sum(axis=1) > 0)
        whole = len(rows) == len(self.fields)
        part = self.fields if whole else self.fields.take(rows)
        return rows, part.searched(weights) if len(rows) else part.embedding[:, 0], _ranks(self.rank[rows])

    def _filtered(self, weights: tuple[float, ...] | None, filters: Wanted) -> _Corpus:
        """The same for the rows that pass the filters."""
        rows, vectors, rank = self._weighted(weights)
        if not filters:
            return rows, vectors, rank
        kept = np.flatnonzero(self.kept(filters)[rows])
        return rows[kept], vectors[kept], _ranks(rank[kept])


def _ranks(some: np.ndarray) -> np.ndarray:
    return some.argsort().argsort()


def open_query_fields(*encoders: DualEncoder) -> dict[str, Field]:
    """The schema's query fields, and one more for each modality that the models have a tower for and they lack."""
    fields = dict(encoders[0].schema.query)
    for name, modality in (("text", Modality.text), ("picture", Modality.image)):
        towers = all(encoder.tower(modality) is not None for encoder in encoders)
        if towers and all(field.modality is not modality for field in fields.values()):
            fields[name if name not in fields else f"{name}_query"] = Field(modality)
    return {name: replace(field) for name, field in fields.items()}
