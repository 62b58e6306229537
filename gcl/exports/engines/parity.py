"""Whether an engine ranks as the run was measured: its results against exact search over the same vectors.

1. `Reference.of` reads the vectors that the engine was loaded from once, and keeps the best documents of each query by
   exact search (`retrieval.search`), all of them in the total order.
2. `measure` asks the engine the same queries, one after the other, in every setting: what it found of the exact top
   10, nDCG@10 of what it found, and milliseconds. A result that scores as the tenth does, but for rounding, is right.
3. Where a setting falls short, its results are compared with those of the mistakes that engines make (mistakes.py).

nDCG is over the whole catalog, as it is searched in the shop: the run's own figures are of each task's corpus. So a
query of several tasks is asked once, and has the judgments of all of them (`united`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from gcl.errors import sentence_of
from gcl.exports.engines.engine import Asked, Collection, Filter, How, Setting
from gcl.exports.engines.filters import passes
from gcl.exports.engines.payload import WORDS, Batch
from gcl.files.progress import counted
from gcl.model.fusion import fuse
from gcl.retrieval.metrics.functions import JUDGED, NOTHING
from gcl.retrieval.metrics.metrics import measure as measure_metrics
from gcl.retrieval.search.bm25 import search_blocks
from gcl.retrieval.search.search import search
from gcl.retrieval.search.ties import best_of, id_ranks
from gcl.retrieval.tasks.task import JudgedPairs, RetrievalTask
from gcl.table import Table

K = 10
METRIC = "ndcg@10"
_KEPT = 100  # of the exact results of a query: room for those that tie with the tenth
_NEAR = 2e-6  # scores that differ by less are equal in float32 sums of any order


@dataclass(frozen=True)
class Judged:
    """What tasks know of some queries. pairs: query by its place, document by its row of the catalog. complete: (places
    of queries, rows of documents) about which everything is known: what `pairs` lacks there is irrelevant."""

    pairs: JudgedPairs
    complete: Sequence[tuple[np.ndarray, np.ndarray]] = ()

    def unjudged(self, row: np.ndarray, documents: int) -> float:
        """The share of results, row[Q, K] of the catalog (-1: nothing), of which nothing is known."""
        status = self.pairs.status(row, documents)
        unknown = (status != JUDGED) & (status != NOTHING)
        for queries, corpus in self.complete:
            unknown[queries] &= ~np.isin(row[queries], corpus)
        return float(unknown.sum() / max(1, (status != NOTHING).sum()))


def united(tasks: Iterable[RetrievalTask], rows: np.ndarray) -> Judged:
    """What the tasks know of the queries with these rows of the store, which are sorted.

    A task's judgments are of its own corpus, a part of the catalog: of known products, say. Of a pair that several
    tasks judge, the highest relevance counts."""
    found, complete = [np.empty((3, 0))], []
    for task in tasks:
        judged, asked, corpus = task.judgments, np.asarray(task.queries.rows), np.asarray(task.corpus.rows)
        known = np.isin(asked[judged.query], rows)
        document = np.where(judged.document >= 0, corpus[judged.document], -1)[known]
        place = np.searchsorted(rows, asked[judged.query][known])
        found.append(np.stack([place, document, judged.relevance[known]]))
        if judged.complete:
            complete.append((np.searchsorted(rows, asked[np.isin(asked, rows)]), corpus))
    every = np.concatenate(found, axis=1)
    every = every[:, np.lexsort((-every[2], every[1], every[0]))]
    again = np.zeros(every.shape[1], bool)
    again[1:] = (every[:2, 1:] == every[:2, :-1]).all(axis=0) & (every[1, 1:] >= 0)
    query, document, relevance = every[:, ~again]
    return Judged(JudgedPairs(query, document, relevance), complete)


@dataclass(frozen=True)
class Queries:
    """Queries of the dev tasks. vector[Q, W]: as the engine is asked. words: their texts. judged: what is known of the
    catalog's documents. weights[Q, K]: of the fields side by side, where there are any. fused[Q, D]: for fused vectors.
    """

    vector: np.ndarray
    words: Sequence[str]
    judged: Judged
    weights: np.ndarray | None = None
    fused: np.ndarray | None = None
    given: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.vector)

    def ndcg(self, row: np.ndarray, documents: int) -> float:
        """The mean of nDCG@10; row[Q, K] of the catalog, -1: nothing."""
        judged = self.judged.pairs
        gains = judged.gains(row, documents)
        return float(measure_metrics([METRIC], gains=gains, judged=judged.by_query(len(row)))[METRIC].mean())


class Best:
    """The documents of each query[Q, W] that exact search finds among those so far: score, ids and row [Q, K], in the
    total order."""

    def __init__(self, query: np.ndarray, most: int = _KEPT) -> None:
        self._query, self._most, empty = query, most, (len(query), 0)
        self.score, self.ids = np.empty(empty, np.float32), np.empty(empty, object)
        self.row = np.empty(empty, np.int64)

    def add(self, vectors: np.ndarray, rows: np.ndarray, ids: Sequence[str]) -> None:
        """vectors[n, W] of the documents `rows`[n]."""
        if not len(rows):
            return
        score, place = search(self._query, vectors, self._most, rank=id_ranks(ids))
        score = np.concatenate([self.score, score], axis=1)
        names = np.concatenate([self.ids, np.array(ids, object)[place]], axis=1)
        self.score, self.ids, self.row = best_of(
            self._most, score, names, np.concatenate([self.row, rows[place]], axis=1)
        )

    def overlap(self, found: Sequence[Sequence[str]]) -> float:
        """The share of the exact top 10 that was found, the mean over queries."""
        shares = []
        for score, ids, names in zip(self.score, self.ids, found, strict=True):
            if not (most := min(K, len(ids))):
                continue
            right = set(ids[score >= score[most - 1] - _NEAR])
            shares.append(min(most, len(right.intersection(names[:K]))) / most)
        return float(np.mean(shares)) if shares else 1.0


@dataclass
class Reference:
    """Exact search: by the vectors that the engine has; with the check's filter; by fused vectors, where those are
    another score. kept: documents that pass the filter."""

    queries: Queries
    best: Best
    filtered: Best | None = None
    fused: Best | None = None
    documents: int = 0
    kept: int = 0

    @classmethod
    def of(cls, queries: Queries, batches: Iterable[Batch], filter: Filter) -> Reference:
        """Reads the batches once."""
        filtered = Best(queries.vector) if filter else None
        fused = None if queries.fused is None else Best(queries.fused)
        made = cls(queries, Best(queries.vector), filtered, fused)
        for batch in batches:
            rows = np.arange(batch.start, batch.start + len(batch))
            made.best.add(batch.vectors, rows, batch.ids)
            made.documents += len(batch)
            if made.filtered is not None:
                keep = np.flatnonzero(passes(batch, filter))
                made.kept += len(keep)
                ids = [batch.ids[at] for at in keep]
                made.filtered.add(batch.vectors[keep], rows[keep], ids)
            if made.fused is not None:
                fields = torch.from_numpy(np.array(batch.vectors)).reshape(len(batch), len(queries.given), -1)
                every = torch.ones(fields.shape[:2], dtype=torch.bool)
                vectors = fuse(fields, torch.tensor(queries.given, dtype=torch.float32), every)
                made.fused.add(vectors.numpy(), rows, batch.ids)
        return made


@dataclass(frozen=True)
class Measured:
    """A row of the table. found: ids of each query. overlap: None where results are not to be the same."""

    setting: Setting
    quantization: str
    found: Sequence[Sequence[str]] = field(repr=False)
    overlap: float | None = None
    ndcg: float | None = None
    p50: float | None = None
    p99: float | None = None

    @property
    def short(self) -> bool:
        return self.overlap is not None and self.setting.least is not None and self.overlap < self.setting.least

    def record(self) -> dict[str, Any]:
        return {
            "quantization": self.quantization, "setting": self.setting.name, "overlap@10": self.overlap,
            METRIC: self.ndcg, "p50 ms": self.p50, "p99 ms": self.p99, "at least": self.setting.least,
            "depth": self.setting.depth, "filtered": self.setting.filtered,
        }  # fmt: skip


def measure(
    collection: Collection, settings: Sequence[Setting], reference: Reference, filter: Filter, quantization: str
) -> list[Measured]:
    """Every setting; those that compare vectors with the filter as well, if there is one. Raises ValueError for
    what the engine raises, with the setting."""
    queries, rows = reference.queries, list[Measured]()
    plain: list[tuple[Setting, Filter, Best]] = [(setting, {}, reference.best) for setting in settings]
    kept = [] if reference.filtered is None else [
        (_filtered(setting), filter, reference.filtered)
        for setting in settings if setting.how in (How.exact, How.approximate)
    ]  # fmt: skip
    for setting, wanted, best in [*plain, *kept]:
        found, took = [], []
        for vector, words in counted(
            list(zip(queries.vector, queries.words, strict=True)), f"Asking: {setting.name}", unit="query"
        ):
            asked = Asked(vector, words, wanted)
            begun = time.perf_counter()
            try:
                found.append(list(collection.search(asked, K, setting)))
            except Exception as error:
                raise ValueError(
                    f"asked in the setting {setting.name!r}, {sentence_of(error).rstrip('.')}. What is loaded stays; "
                    "the same command asks again."
                ) from error
            took.append(1000 * (time.perf_counter() - begun))
        compared = setting.how in (How.exact, How.approximate)
        p50, p99 = np.percentile(took, [50, 99])
        overlap = best.overlap(found) if compared else None
        rows.append(Measured(setting, quantization, found, overlap, None, float(p50), float(p99)))
    return rows


def _filtered(setting: Setting) -> Setting:
    """An index that is searched with a filter may find few: that is told, and no limit holds for it."""
    least = setting.least if setting.how is How.exact else None
    return replace(setting, name=f"{setting.name}, filtered", least=least, filtered=True)


def with_ndcg(
    rows: Sequence[Measured], reference: Reference, ids: Iterable[tuple[int, Sequence[str]]]
) -> list[Measured]:
    """The rows with nDCG@10. ids: (row of the first, ids) of the catalog's documents, in pieces."""
    wanted = {name for row in rows for names in row.found for name in names}
    row_of = {name: start + at for start, names in ids for at, name in enumerate(names) if name in wanted}
    measured = []
    for one in rows:
        found = np.full((len(one.found), K), -1, np.int64)
        for query, names in enumerate(one.found):
            places = [row_of.get(name, -1) for name in names[:K]]
            found[query, : len(places)] = places
        ndcg = None if one.setting.filtered else reference.queries.ndcg(found, reference.documents)
        measured.append(replace(one, ndcg=ndcg))
    return measured


def compared(reference: Reference, texts: Callable[[], Iterable[Batch]] | None) -> list[dict[str, Any]]:
    """Rows of what the engine is compared with: exact search, by other scores as well, and words alone. texts:
    batches of the documents' words; None where they are not searched."""
    queries = reference.queries

    def row(setting: str, found: np.ndarray) -> dict[str, Any]:
        return {"quantization": "", "setting": setting, METRIC: queries.ndcg(found[:, :K], reference.documents)}

    exact = "exact search (gcl)" if queries.weights is None else "exact search (gcl), weights in the query"
    rows = [row(exact, reference.best.row)]
    if reference.fused is not None:
        rows.append(row("exact search (gcl), fused", reference.fused.row))
    if texts is not None and any(queries.words):
        rows.append(row("BM25 alone (gcl)", search_blocks(partial(_words, texts), queries.words, K)[1]))
    return rows


def _words(batches: Callable[[], Iterable[Batch]]) -> Iterator[list[str]]:
    return ([text or "" for text in batch.payload[WORDS]] for batch in batches())


def parity_table(rows: Sequence[Mapping[str, Any]], reference: Reference) -> Table:
    """rows: records of `Measured`, and of what they are compared with."""
    queries, documents = len(reference.queries), reference.documents
    formats = {"overlap@10": ".4f", METRIC: ".4f", "p50 ms": ".2f", "p99 ms": ".2f", "at least": "g"}
    notes = [f"{queries:,} queries of the dev tasks over all {documents:,} documents; overlap with exact search."]
    if share := reference.queries.judged.unjudged(reference.best.row[:, :K], documents):
        notes.append(f"unjudged in the top {K} of exact search, where they count as irrelevant: {share:.0%}.")
    if any(row.get("at least") is not None for row in rows):
        notes.append(
            "at least: what a setting must find, or the deployment fails (overlap=… for exact ones, approximate=… for "
            "the deepest search of an index); the others are measured only."
        )
    if reference.filtered is not None:
        notes.append(f"filtered: the filter keeps {reference.kept:,} of them.")
    header = ["setting", "quantization", *formats]
    return Table(header, [[row.get(name) for name in header] for row in rows], align="ll", formats=formats, notes=notes)
