"""What is evaluated: queries, a corpus, and judgments that join them.

Inside, judgments are arrays of positions; dicts of ids (`Qrels`, `Run`) exist at the edges only: files and people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gcl.data.store.records import Record, Records, Value, images_of
from gcl.data.store.shard_writer import content_hash, set_hash
from gcl.data.titles import title_of
from gcl.retrieval.metrics.functions import JUDGED, JUDGED_ELSEWHERE, NOTHING, UNKNOWN
from gcl.retrieval.search.ties import id_ranks
from gcl.retrieval.tasks.audit import Audit
from gcl.schema import Field

Qrels = dict[str, dict[str, float]]
Run = dict[str, list[tuple[str, float]]]


@dataclass
class ListRecords:
    """Records that are already in memory (what a caller typed, a small table), behind the interface of a store."""

    ids: Sequence[str]
    records: Sequence[Record]
    side: dict[str, Field]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.records):
            raise ValueError(f"{len(self.ids)} ids for {len(self.records)} records: give one id per record.")
        for name, record in zip(self.ids, self.records, strict=True):
            if unknown := record.keys() - self.side.keys():
                raise ValueError(f"Record {name!r} has no field {sorted(unknown)}; fields: {', '.join(self.side)}.")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int) -> Record:
        return {name: self._value(row, name) for name in self.side}

    def _value(self, row: int, name: str) -> Value:
        """A set may have been given as its only image."""
        value = self.records[row].get(name)
        return (images_of(value) if self.side[name].is_set else value) or None

    @property
    def rows(self) -> np.ndarray:
        return np.arange(len(self))

    def hashes(self, field: str) -> list[bytes | None]:
        """Front half of SHA-256 of each value, as a store keeps it."""
        return [value_hash(record.get(field)) for record in self.records]

    def image_hashes(self, field: str) -> list[list[bytes]]:
        """Those of each image."""
        return [[content_hash(image) for image in images_of(record.get(field))] for record in self.records]

    def present(self, rows: np.ndarray) -> np.ndarray:
        return np.array([[bool(self.records[row].get(name)) for name in self.side] for row in rows]).reshape(
            len(rows), -1
        )

    def column(self, field: str, rows: np.ndarray) -> list[Value]:
        return [self._value(row, field) for row in rows]

    def place(self, row: int) -> str:
        return f"record {row}, id {self.ids[row]!r}"

    def subset(self, rows: np.ndarray) -> ListRecords:
        return ListRecords([self.ids[row] for row in rows], [self.records[row] for row in rows], self.side)


def value_hash(value: Value) -> bytes | None:
    """Of a text, an image or a set; None for what is not there."""
    if not value:
        return None
    parts = (value.encode(),) if isinstance(value, str) else images_of(value)
    return set_hash([content_hash(one) for one in parts])


@dataclass(frozen=True)
class JudgedPairs:
    """J judged pairs.

    query[J]: positions in the task's queries. document[J]: positions in its corpus, -1 for a document that is not
    there (kept, so that nothing disappears from a denominator; `outside` names those, in order). relevance[J].
    complete: what is not listed is irrelevant; otherwise nobody has judged it.
    """

    query: np.ndarray
    document: np.ndarray
    relevance: np.ndarray
    outside: tuple[str, ...] = ()
    complete: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "query", np.ascontiguousarray(self.query, dtype=np.int64))
        object.__setattr__(self, "document", np.ascontiguousarray(self.document, dtype=np.int64))
        object.__setattr__(self, "relevance", np.ascontiguousarray(self.relevance, dtype=np.float32))
        if not len(self.query) == len(self.document) == len(self.relevance):
            raise ValueError("Judgments need one query, one document and one relevance for each pair.")
        if not np.isfinite(self.relevance).all():
            raise ValueError("A relevance must be a finite number; some judgments have NaN or infinity.")

    def __len__(self) -> int:
        return len(self.query)

    def by_query(self, queries: int) -> np.ndarray:
        """All judged relevances of each query, [Q, J], padded with 0 (which no metric counts)."""
        order = np.argsort(self.query, kind="stable")
        query, relevance = self.query[order], self.relevance[order]
        count = np.bincount(query, minlength=queries)
        column = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
        padded = np.zeros((queries, int(count.max(initial=0))), dtype=np.float32)
        padded[query, column] = relevance
        return padded

    def gains(self, row: np.ndarray, documents: int) -> np.ndarray:
        """Relevance of what was retrieved: row[Q, K] corpus positions (-1: nothing) -> [Q, K], 0 where unjudged."""
        table = np.zeros(documents + 1, dtype=np.float32)
        return self._looked_up(row, table, lambda which: self.relevance[which])

    def status(self, row: np.ndarray, documents: int) -> np.ndarray:
        """What is known about each result, row[Q, K] -> int8[Q, K]: NOTHING, JUDGED, JUDGED_ELSEWHERE or UNKNOWN."""
        table = np.full(documents + 1, UNKNOWN, dtype=np.int8)
        table[self.document[self.document >= 0]] = JUDGED_ELSEWHERE
        if self.complete:
            table[:] = JUDGED
        table[documents] = NOTHING
        return self._looked_up(row, table, lambda which: np.full(len(which), JUDGED, dtype=np.int8))

    def _looked_up(self, row: np.ndarray, table: np.ndarray, judged: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """row[Q, K] looked up in table[M + 1] (the last entry is row -1's), where each query's own judgments have
        the values that `judged` gives them, by their positions. No Q x M table and no hashing: the entries are
        written and wiped query by query."""
        inside = np.flatnonzero(self.document >= 0)
        order = inside[np.argsort(self.query[inside], kind="stable")]
        document, value = self.document[order], judged(order)
        before = table[document]
        end = np.cumsum(np.bincount(self.query[inside], minlength=len(row)))
        values = np.empty(row.shape, dtype=table.dtype)
        start = 0
        for position in range(len(row)):
            own = document[start : end[position]]
            table[own] = value[start : end[position]]
            table.take(row[position], out=values[position], mode="wrap")
            table[own] = before[start : end[position]]
            start = end[position]
        return values


@dataclass
class RetrievalTask:
    """Queries to be answered from a corpus, and what is known about the right answers."""

    name: str
    queries: Records
    corpus: Records
    judgments: JudgedPairs
    document_weights: Mapping[str, float] | None = None  # of this task alone; None: the schema's
    hidden: tuple[str, ...] = ()  # fields its documents do not show: its queries were made from them
    word_for_word: Mapping[str, Sequence[int]] = field(default_factory=dict)  # {field: (pairs whose query it has, of)}
    dangling: int = 0  # judgments of documents that do not exist, which were left out before
    unanswered: int = 0  # queries without a relevant document, which were left out before
    asked_before: int = 0  # queries and judgments that were not left out, over all parts: what these two compare with
    judged_before: int = 0
    title: str = ""  # what people read; by default the name in words

    def __post_init__(self) -> None:
        self.title = self.title or title_of(self.name)

    @cached_property
    def id_ranks(self) -> np.ndarray:
        """How ties between documents are broken, int32[M]; sorted once per task."""
        return id_ranks(self.corpus.ids)

    @cached_property
    def audit(self) -> Audit:
        """What is wrong with the task; looked for once."""
        return audit_of(self)

    @property
    def qrels(self) -> Qrels:
        """The judgments as `{query id: {document id: relevance}}`; documents outside the corpus keep their ids."""
        qrels: Qrels = {str(name): {} for name in self.queries.ids}
        query_ids, document_ids, outside = list(self.queries.ids), self.corpus.ids, iter(self.judgments.outside)
        judgments = self.judgments
        for number, (query, document, relevance) in enumerate(
            zip(judgments.query, judgments.document, judgments.relevance, strict=True)
        ):
            name = document_ids[document] if document >= 0 else next(outside, f"outside-{number}")
            qrels[str(query_ids[query])][str(name)] = float(relevance)
        return qrels


def task_from_qrels(
    name: str, queries: Records, corpus: Records, qrels: Mapping[str, Mapping[str, float]]
) -> RetrievalTask:
    """A task from ids. JudgedPairs of unknown queries raise; documents outside the corpus are kept (see `Audit`)."""
    query_at = {str(key): position for position, key in enumerate(queries.ids)}
    document_at = {str(key): position for position, key in enumerate(corpus.ids)}
    unknown = [key for key in qrels if str(key) not in query_at]
    if unknown:
        raise ValueError(
            f"Task {name!r}: {len(unknown)} judged queries are not among its queries, for example {unknown[0]!r}."
        )
    triples = [(query_at[str(q)], str(d), r) for q, judged in qrels.items() for d, r in judged.items()]
    return RetrievalTask(
        name,
        queries,
        corpus,
        JudgedPairs(
            np.array([q for q, _, _ in triples], dtype=np.int64),
            np.array([document_at.get(d, -1) for _, d, _ in triples], dtype=np.int64),
            np.array([r for _, _, r in triples], dtype=np.float32),
            tuple(d for _, d, _ in triples if d not in document_at),
        ),
    )


def from_prepared(prepared, name: str, part: str, *, prefix: str = "") -> RetrievalTask:
    """The task `name` of a prepared catalog, its "dev" or "test" part, or "all" of it. Its queries are those with a
    judgment; what preparing left out is counted (`dangling`, `unanswered`). prefix: put before its name."""
    counts = prepared.counts["tasks"][name]
    parts = [half for half in ("dev", "test") if counts[half]["queries"]] if part == "all" else [part]
    halves = [prepared.task(name, half) for half in parts]
    query, wanted, relevance = (
        np.concatenate([getattr(half, key) for half in halves]) for key in ("query", "document", "relevance")
    )
    query_rows, query = np.unique(query, return_inverse=True)
    corpus_rows = np.asarray(halves[0].corpus, dtype=np.int64)
    order = np.argsort(corpus_rows, kind="stable")
    slot = np.searchsorted(corpus_rows, wanted, sorter=order).clip(max=max(len(corpus_rows) - 1, 0))
    document = order[slot] if len(corpus_rows) else np.full(len(wanted), -1)
    inside = corpus_rows[document] == wanted if len(corpus_rows) else np.zeros(len(wanted), dtype=bool)
    outside = tuple(str(prepared.documents.ids[row]) for row in wanted[~inside])
    return RetrievalTask(
        prefix + (name if part == "all" else f"{name}.{part}"),
        prepared.queries.subset(query_rows),
        prepared.documents.subset(corpus_rows),
        JudgedPairs(
            query.reshape(-1), np.where(inside, document, -1), relevance, outside, counts.get("complete", False)
        ),
        dangling=counts.get("dangling_judgments", 0),
        unanswered=counts.get("queries_without_relevant", 0) if "dangling_judgments" in counts else 0,
        asked_before=sum(counts[half]["queries"] for half in ("dev", "test")),
        judged_before=sum(counts[half]["judgments"] for half in ("dev", "test")),
        hidden=tuple(counts.get("hidden", ())),
        word_for_word=counts.get("word_for_word", {}),
    )


def audit_of(task: RetrievalTask) -> Audit:
    """Looks at everything that makes a task's numbers mean something else than they say."""
    judged, queries, documents = task.judgments, len(task.queries), len(task.corpus)
    positive, inside = judged.relevance > 0, judged.document >= 0
    any_positive = np.bincount(judged.query[positive], minlength=queries) > 0
    reachable = np.bincount(judged.query[positive & inside], minlength=queries) > 0
    twin = content_groups(task.corpus, without=task.hidden)
    schema = {name: spec.weight for name, spec in task.corpus.side.items()}
    weights = schema if task.document_weights is None else task.document_weights
    copies = np.bincount(twin, minlength=documents)
    pair = judged.query[inside] * max(documents, 1) + judged.document[inside]
    outside_names = judged.outside[0] if judged.outside else None
    return Audit(
        task=task.name,
        queries=queries,
        documents=documents,
        judgments=len(judged),
        dangling=int((~inside).sum()),
        dangling_example=outside_names,
        unanswerable=int((any_positive & ~reachable).sum()),
        without_positive=int((~any_positive).sum()),
        negative=int((judged.relevance < 0).sum()),
        repeated=len(pair) - len(np.unique(pair)),
        duplicates=int((copies[twin] > 1).sum()),
        unfair=_unfair(judged.query[positive & inside], twin[judged.document[positive & inside]], copies),
        same_ids=len(set(map(str, task.queries.ids)) & set(map(str, task.corpus.ids))),
        absent=task.dangling,
        absent_of=task.judged_before + task.dangling,
        unanswered=task.unanswered,
        unanswered_of=task.asked_before + task.unanswered,
        hidden=task.hidden,
        word_for_word={name: held for name, held in task.word_for_word.items() if weights.get(name, 0) > 0},
        title=task.title,
    )


def content_groups(records: Records, *, without: Sequence[str] = ()) -> np.ndarray:
    """[M] number of each record's content: two records have the same number if all their fields (`without` some) are
    equal."""
    seen: dict[tuple, int] = {}
    columns = [list(records.hashes(name)) for name in records.side if name not in without]
    return np.array([seen.setdefault(key, len(seen)) for key in zip(*columns, strict=True)], dtype=np.int64)


def _unfair(query: np.ndarray, group: np.ndarray, copies: np.ndarray) -> int:
    """Queries that judge some, but not all, of the equal documents of a group relevant."""
    if not len(query):
        return 0
    pair, relevant = np.unique(np.stack([query, group]), axis=1, return_counts=True)
    return len(np.unique(pair[0][relevant < copies[pair[1]]]))
