"""A published data set and what a model finds in it, on any number of ranks.

A job that was killed takes up where it was: vectors are kept in parts (gcl/retrieval/embedding/parts.py), and of a set
that is done the results of its tasks.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gcl.config.schema import RunConfig
from gcl.data.catalog import Catalog
from gcl.data.importers.benchmark_set import Grouped, PublishedSet, files_of, grouped
from gcl.data.store.away import local_folder
from gcl.data.store.records import Column, Identifiers, Record
from gcl.distributed.ranks import of_first_rank, own_rows, world
from gcl.errors import ConfigError
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.embedding.embed import EmbedOptions, embed, embedding_key
from gcl.retrieval.embedding.own import OwnEncoder
from gcl.retrieval.embedding.parts import Parts
from gcl.retrieval.embedding.precomputed import PrecomputedEmbeddings, RunFiles
from gcl.retrieval.embedding.stream import MOST_UNREADABLE, Streamed, embed_images, parts_of
from gcl.retrieval.evaluate import TaskResult, result_of
from gcl.retrieval.search.ties import pack, unpack
from gcl.retrieval.settings import BenchmarkConfig, Rules
from gcl.retrieval.tasks.protocol import BETWEEN, draw
from gcl.retrieval.tasks.task import JudgedPairs, ListRecords, RetrievalTask
from gcl.run.contestants import Contestant
from gcl.run.measurement import embedding_cache
from gcl.schema import Field, Modality

Embeds = DualEncoder | PrecomputedEmbeddings | OwnEncoder
PUBLISHED = Catalog("published", query={"text": Field(Modality.text)}, document={"image": Field(Modality.image)})
SCHEMA = PUBLISHED.schema

logger = logging.getLogger("gcl")


class Texts(Identifiers):
    """Products by their ids, with one text that a page shows of each; their images are streamed."""

    def __init__(self, ids: Column, values: Grouped, name: str) -> None:
        super().__init__(ids)
        self.side, self.values = {name: Field(Modality.text)}, values

    def __getitem__(self, row: int) -> Record:
        code = int(self.values.code[row])
        return {name: self.values.texts[code].as_py() if code >= 0 else None for name in self.side}

    def present(self, rows: np.ndarray) -> np.ndarray:
        return (self.values.code[rows] >= 0)[:, None]

    def hashes(self, field: str) -> Column:
        """No two are called the same: their images are not compared."""
        return self.ids


@dataclass(frozen=True)
class OpenSet:
    """A data set at one size, and its tasks, which share the products."""

    name: str
    source: PublishedSet
    tasks: list[RetrievalTask]

    @cached_property
    def content(self) -> str:
        """A digest of the images, the same on every rank."""
        return of_first_rank(self.source.digest() if world()[0] == 0 else "")

    @cached_property
    def ids_sha256(self) -> str:
        digest = hashlib.sha256()
        for name in self.tasks[0].corpus.ids:
            digest.update(name.encode() + b"\n")
        return digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """Provenance: what was read."""
        names = [file.rpartition("/")[2] for file in self.source.files]
        about = {"files": names, "rows": self.source.rows, "bytes": self.source.bytes, "ids_sha256": self.ids_sha256}
        return {"fingerprint": self.content, **about}


def opened(name: str, size: str, benchmark: BenchmarkConfig, rules: Rules) -> OpenSet:
    """The set's tasks: each text of a column is a query, every row that has it an answer with relevance 1."""
    about = benchmark.sets[name]
    columns = [benchmark.image, benchmark.document_id, *about.tasks.values()]
    source = PublishedSet(files_of(about.tables[size], benchmark.root), columns=columns, limit=benchmark.limit)
    ids = source.ids(benchmark.document_id)
    tasks = []
    for task, column in about.tasks.items():
        values = grouped(source.column(column), BETWEEN)
        weight = np.bincount(values.code[values.code >= 0], minlength=len(values.texts)).astype(np.float64)
        drawn = draw(weight, rules)
        place = np.full(len(values.texts) + 1, -1)
        place[drawn] = np.arange(len(drawn))
        rows = np.flatnonzero(place[values.code] >= 0)
        query = place[values.code[rows]]
        order = np.argsort(query, kind="stable")
        query, rows = query[order], rows[order]
        if rules.judged is not None:
            kept = np.arange(len(query)) - np.searchsorted(query, query) < rules.judged
            query, rows = query[kept], rows[kept]
        texts = values.texts.take(drawn).to_pylist() if len(drawn) else []
        queries = ListRecords([f"q{n}" for n in range(len(texts))], [{"text": text} for text in texts], SCHEMA.query)
        judgments = JudgedPairs(query, rows, np.ones(len(rows), np.float32), complete=True)
        tasks.append(RetrievalTask(f"{task}.{size}", queries, Texts(ids, values, column), judgments))
    return OpenSet(f"{name}.{size}", source, tasks)


def encoder_of(entry: Contestant) -> Embeds:
    """The contestant's encoder or embeddings. Raises ConfigError for a TREC run file, which cannot embed."""
    if isinstance(entry.encoder, RunFiles):
        raise ConfigError(
            f"models: {entry.label} is a TREC run file; a benchmark needs models or precomputed embeddings."
        )
    return entry.encoder


def set_parts(config: RunConfig, encoder: DualEncoder, one: OpenSet) -> Parts:
    """The parts of this model's vectors of a set, under the name that they have on every rank."""
    assert config.evaluate.benchmark is not None
    size, device = config.evaluate.batch_size, next(encoder.parameters()).device.type
    content = f"{one.content} {config.evaluate.benchmark.image}"
    name = embedding_key(encoder, content, SCHEMA.document, block=size, device=device) if world()[0] == 0 else ""
    return parts_of(one.source, size, of_first_rank(name), embedding_cache(config))


@dataclass
class Spent:
    """What a model's measurement took: images embedded now (others were in the cache), seconds, bytes of vectors."""

    images: int = 0
    embedding: float = 0.0
    search: float = 0.0
    disk: int = 0


@dataclass
class Finder:
    """What models find in sets. spent: since it was last emptied."""

    config: RunConfig
    spent: Spent = field(default_factory=Spent)
    _used: set[str] = field(default_factory=set)

    def results(self, entry: Contestant, one: OpenSet) -> tuple[dict[str, TaskResult], list[str]]:
        """{task: result} and notes, on every rank."""
        settings, encoder = self.config.evaluate, encoder_of(entry)
        found, unreadable = self._found(encoder, one, self._queries(encoder, one))
        notes = []
        if len(unreadable):
            notes.append(
                f"{one.name}: {len(unreadable):,} of {one.source.rows:,} images cannot be read; the first is that of "
                f"{one.tasks[0].corpus.ids[int(unreadable[0])]!r}: these products are never retrieved and count as "
                "misses."
            )
        results = {}
        for task, keys in zip(one.tasks, found, strict=True):
            score, place = unpack(keys)
            row = np.argsort(task.id_ranks)[place]
            results[task.name] = result_of(task, score, row, settings.metrics, ties=settings.ties)
        return results, notes

    def left(self, encoder: DualEncoder, one: OpenSet) -> tuple[int, bool]:
        """Images of a set that are not in the cache, and whether its searches are still to be done."""
        cache, parts = embedding_cache(self.config), set_parts(self.config, encoder, one)
        names = [self._name(parts.name, one, query) for query in self._queries(encoder, one)]
        done = cache is not None and all(map(cache.holds, [*names, _last(names)]))
        missing = [part for part in range(len(parts)) if cache is None or not cache.holds(parts.entry(part))]
        images = 0 if done else sum(len(parts.rows(part)) for part in missing)
        return of_first_rank((images, not done))  # machines need not share a cache

    def _queries(self, encoder: Embeds, one: OpenSet) -> list[np.ndarray]:
        options = EmbedOptions(self.config.evaluate.batch_size, cache=embedding_cache(self.config))
        return [embed(encoder, task.queries, "query", options).fused() for task in one.tasks]

    def _found(self, encoder: Embeds, one: OpenSet, queries: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """Packed results [Q, K] of each task (see `ties.pack`), and the unreadable rows."""
        if not isinstance(encoder, DualEncoder):
            rows = own_rows(one.source.rows)
            vectors = encoder.embed_records(one.tasks[0].corpus, "document").fused()
            return self._searched(Streamed(vectors[rows.start : rows.stop], rows, np.empty(0, np.int64)), one, queries)
        parts = set_parts(self.config, encoder, one)
        self.spent.disk += one.source.rows * int(encoder.width) * 4
        names = [self._name(parts.name, one, query) for query in queries]
        kept = self._load(names, [*map(len, queries)])
        if kept is not None:
            return kept
        begun = time.monotonic()
        assert self.config.evaluate.benchmark is not None
        embedded = embed_images(
            encoder, one.source, self.config.evaluate.benchmark.image, parts=parts,
            batch_size=self.config.evaluate.batch_size, workers=self.config.train.workers,
            scratch=local_folder(self.config.cache_dir) / "embeddings",
        )  # fmt: skip
        self.spent.images += embedded.embedded
        self.spent.embedding += time.monotonic() - begun
        found, unreadable = self._searched(embedded, one, queries)
        self._keep(names, found, unreadable)
        return found, unreadable

    def _searched(
        self, embedded: Streamed, one: OpenSet, queries: list[np.ndarray]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        begun, found = time.monotonic(), []
        for task, query in zip(one.tasks, queries, strict=True):
            score, row = embedded.search(query, min(self.config.evaluate.depth, one.source.rows), task.id_ranks)
            found.append(pack(score, task.id_ranks[row]))
        self.spent.search += time.monotonic() - begun
        return found, embedded.unreadable

    def _name(self, vectors: str, one: OpenSet, query: np.ndarray) -> str:
        """Of a task's results: a digest of what they depend on."""
        digest = hashlib.sha256(f"results {vectors} {one.ids_sha256} {self.config.evaluate.depth}".encode())
        digest.update(query.tobytes())
        return digest.hexdigest()

    def _load(self, names: list[str], sizes: list[int]) -> tuple[list[np.ndarray], np.ndarray] | None:
        """The results of an earlier job; None unless all are there. The last entry is of the unreadable rows."""
        cache, kept = embedding_cache(self.config), None
        if cache is not None and world()[0] == 0:
            sizes = [*sizes, MOST_UNREADABLE]
            arrays = [cache.load(name, size) for name, size in zip([*names, _last(names)], sizes, strict=True)]
            whole = [np.array(array) for array in arrays if array is not None]
            if len(whole) == len(sizes):
                self._used |= {*names, _last(names)}
                kept = whole[:-1], whole[-1][whole[-1] >= 0]
        return of_first_rank(kept)

    def _keep(self, names: list[str], found: list[np.ndarray], unreadable: np.ndarray) -> None:
        """Afterwards vectors of earlier sets and models may go, where the cache is too small for all."""
        cache = embedding_cache(self.config)
        if cache is None or world()[0] != 0:
            return
        rows = np.full(MOST_UNREADABLE, -1)
        rows[: len(unreadable)] = unreadable
        self._used |= {*names, _last(names)}
        try:
            for name, array in zip([*names, _last(names)], [*found, rows], strict=True):
                cache.put(name, array)
        except OSError as problem:
            logger.warning(f"note: results could not be kept in {cache.folder} ({problem.strerror or problem}).")
        cache.prune(self._used)


def _last(names: list[str]) -> str:
    return hashlib.sha256(" ".join(names).encode()).hexdigest()
