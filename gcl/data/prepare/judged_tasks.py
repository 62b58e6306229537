"""Explicit retrieval tasks of a catalog: their queries and judgments, read from the tables that hold them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gcl.data.catalog import Catalog, Corpus
from gcl.data.prepare.distinct import Collector
from gcl.data.prepare.gathered import PairList, shows_other_fields
from gcl.data.prepare.near_ids import NearIds
from gcl.data.prepare.rows import Line, Row, Scores, read_rows, usable_rows
from gcl.data.prepare.sources import TaskSource
from gcl.data.prepare.split import WholeTask, whole_task
from gcl.data.store.prepared import PARTS, SITUATIONS, Fields, Pairs
from gcl.data.store.store import RecordStore
from gcl.data.tables.quarantine import Bad, Quarantine
from gcl.data.titles import file_name
from gcl.table import ListFile


@dataclass
class TaskQueries:
    """The queries of one table. `kind_of`: id -> the name of its task; queries of kinds not asked for have None.
    `part_of`: id -> "dev" or "test", where the table says so. `kinds`: all that occur, in their order."""

    name: str
    source: TaskSource
    row_of: dict[str, int] = field(default_factory=dict)
    kind_of: dict[str, str | None] = field(default_factory=dict)
    part_of: dict[str, str] = field(default_factory=dict)
    all_kinds: dict[str, None] = field(default_factory=dict)

    @property
    def kinds(self) -> list[str]:
        """Those asked for: each becomes a task."""
        return [kind for kind in self.all_kinds if self._is_wanted(kind)]

    def note(self, line: Line) -> str | Bad | None:
        """Writes down what a row of the queries says of its query. Returns the query's id, None for a kind that was
        not asked for."""
        spec = self.source.spec
        identifier, kind = line.identifier(spec.query_id), line.identifier(spec.kind) if spec.kind else self.name
        if identifier is None:
            return line.absent(spec.query_id, "no query id")
        if kind is None:
            return line.absent(spec.kind or "", "no kind")
        if spec.part:
            part = (line.identifier(spec.part) or "").lower()
            if part not in PARTS:
                return Bad("part is neither dev nor test", part)
            self.part_of[identifier] = part
        self.all_kinds[kind] = None
        self.kind_of[identifier] = kind if self._is_wanted(kind) else None
        return identifier if self._is_wanted(kind) else None

    def dev_queries(self, otherwise: np.ndarray) -> np.ndarray:
        """Which rows of the store are in the dev half, bool [Q]: as the table says, or as `otherwise`."""
        dev = otherwise.copy()
        for identifier, part in self.part_of.items():
            if identifier in self.row_of:
                dev[self.row_of[identifier]] = part == "dev"
        return dev

    def _is_wanted(self, kind: str) -> bool:
        return self.source.spec.kinds is None or kind in self.source.spec.kinds


def read_queries(name: str, source: TaskSource, *, queries: Collector, quarantine: Quarantine) -> TaskQueries:
    """Puts the queries of one explicit task (of its kinds, if it has several) into the store of queries."""
    spec, table, task, side = source.spec, source.queries, TaskQueries(name, source), source.query
    others = [spec.query_id, spec.kind, spec.part]
    lines = read_rows(table, {"query": side}, others, quarantine=quarantine, all_fields=False)
    usable = usable_rows(lines, task.note, table=table, named_by=spec.query_id, quarantine=quarantine)
    rows = (Row(line.file, line.number, identifier, line.record(side)) for line, identifier in usable)
    for row, result in queries.collect(rows, namespace=name):
        if isinstance(result, Bad):
            quarantine.add(table.name, row.file, row.number, row.identifier, result)
        elif row.identifier is not None:
            task.row_of[row.identifier] = result
    unknown = [kind for kind in spec.kinds or () if kind not in task.all_kinds]
    if unknown:
        raise ValueError(
            f"data.tasks.{name}.kinds names {', '.join(map(repr, unknown))}, which the column {spec.kind!r} of "
            f"{table.name} does not hold; it holds {', '.join(map(repr, task.all_kinds))}."
        )
    queries.check_conflicts(f"data.tasks.{name}.query_id")
    return task


@dataclass
class TaskJudgments:
    """Judgments by task name; of those of documents the catalog lacks, how many."""

    judged: dict[str, Pairs]
    dangling: dict[str, int]


class _Judgment(NamedTuple):
    query: str
    document: str
    score: float


def read_judgments(
    task: TaskQueries, *, scores: Scores, documents: Collector, near: NearIds, quarantine: Quarantine, folder: Path
) -> TaskJudgments:
    """The judgments of a task's queries. Those of documents the catalog lacks are written down in `folder`."""
    spec, table, document_id = task.source.spec, task.source.qrels, task.source.document_id
    by = spec.qrels_query_id or spec.query_id

    def usable(line: Line) -> _Judgment | Bad:
        query, document = line.identifier(by), line.identifier(document_id)
        score = scores(line.text(spec.score), line.block.decimal)
        if query is None:
            return line.absent(by, "no query id")
        if document is None:
            return line.absent(document_id, "no product id")
        if query not in task.kind_of:
            return Bad("unknown query id", query)
        if line.columns[spec.score] is None:
            return line.absent(spec.score, "no score")
        return score if isinstance(score, Bad) else _Judgment(query, document, score)

    judged = {kind: PairList() for kind in task.kinds}
    dangling: dict[str, list[tuple[str, str, str | None, str]]] = defaultdict(list)
    lines = read_rows(table, {}, [by, document_id, spec.score], quarantine=quarantine)
    for line, (query, document, score) in usable_rows(lines, usable, table=table, named_by=by, quarantine=quarantine):
        kind = task.kind_of[query]
        if kind is None or query not in task.row_of:
            continue  # of a kind nobody asked for, or of a query that is in the quarantine itself
        if document not in documents.row_of:
            why = "quarantined product" if document in documents.failed else near(document) or "not in the catalog"
            dangling[file_name(kind)].append((query, document, line.text(spec.score), why))
        else:
            judged[kind].add(task.row_of[query], documents.row_of[document], score)
    for name, rows in dangling.items():
        with ListFile(folder / f"{name}.dangling.csv", ("query_id", "document_id", "score", "reason")) as target:
            for row in rows:
                target.write(*row)
    return TaskJudgments(
        judged={file_name(kind): pairs.pairs() for kind, pairs in judged.items()},
        dangling={name: len(rows) for name, rows in dangling.items()},
    )


def read_corpus(task: TaskQueries, *, documents: Collector, near: NearIds, quarantine: Quarantine) -> np.ndarray | None:
    """Rows int64[M] of the documents that the task's own table lists; None where it has none."""
    table, document_id = task.source.corpus, task.source.document_id
    if table is None:
        return None

    def usable(line: Line) -> int | Bad | None:
        identifier = line.identifier(document_id)
        row = documents.row_of.get(identifier or "")
        if row is not None or identifier in documents.failed:
            return row
        if not identifier:
            return line.absent(document_id, "no product id")
        return Bad("unknown product id", near(identifier) or identifier)

    lines = read_rows(table, {}, [document_id], quarantine=quarantine)
    listed = {row for _, row in usable_rows(lines, usable, table=table, named_by=document_id, quarantine=quarantine)}
    return np.array(sorted(listed), np.int64)


def explicit_task(
    name: str,
    queries: TaskQueries,
    judged: Pairs,
    *,
    seen: np.ndarray,
    documents: RecordStore,
    listed: np.ndarray | None = None,
    hides: Fields = (),
) -> WholeTask:
    """A task of judged pairs over the corpus its configuration asks for. `listed`: its own corpus, where it names a
    table. seen bool[M]: the documents of training pairs, and copies of them. hides: document fields that its queries
    were made from."""
    key, wanted = queries.name, queries.source.spec.corpus
    corpus = documents.rows if listed is None else listed
    if hides:
        corpus = corpus[shows_other_fields(documents, hides)[corpus]]
    if wanted == Corpus.held_out:
        corpus = np.setdiff1d(corpus, np.flatnonzero(seen))
        if not len(corpus):
            raise ValueError(
                f"The task {name!r} searches among held-out products, but every product is in a training pair: set "
                f"data.split.documents below 1, or data.tasks.{key}.corpus=all."
            )
    task = replace(whole_task(name, corpus, judged), hides=hides)
    asked = sum(kind is not None and file_name(kind) == name for kind in queries.kind_of.values())
    task.without_relevant = asked - len(np.unique(task.judged.query))
    if not len(task.judged):
        raise ValueError(
            f"The task {name!r} has no query with a relevant product in its corpus of {len(corpus):,}: {len(judged):,} "
            f"judgments name products of the catalog, {task.outside_corpus:,} of them products outside this corpus. "
            f"Check data.tasks.{key}.qrels, document_id and corpus (it is {wanted!r})."
        )
    return task


def possible_tasks(catalog: Catalog) -> list[str] | None:
    """The tasks that a catalog can have when it is prepared; None where a column of its tables names some."""
    names = list(SITUATIONS) if catalog.training else []
    if catalog.mix:
        names = []
        for part, one in catalog.catalogs.items():
            if (own := possible_tasks(one)) is None:
                return None
            names += [f"{part}/{name}" for name in own]
    for name, task in catalog.tasks.items():
        if task.kind is not None and task.kinds is None:
            return None
        names += [file_name(kind) for kind in task.kinds or [name]]
    return names


def check_names(names: list[str]) -> None:
    """Raises ValueError when two tasks would be written to the same files."""
    taken = list(SITUATIONS)
    for name in names:
        if name in taken:
            raise ValueError(
                f"Two tasks are called {name!r} (the situations are {', '.join(SITUATIONS)}): rename the task or kind."
            )
        taken.append(name)
