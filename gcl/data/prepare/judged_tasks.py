"""Explicit retrieval tasks of a catalog: their queries and judgments, read from the tables that hold them."""

from __future__ import annotations

import csv
import re
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gcl.data.prepare.distinct import Collector, Row
from gcl.data.prepare.rows import parse_score, read_rows
from gcl.data.prepare.sources import TaskSource
from gcl.data.prepare.split import Judgments, judgments
from gcl.data.store.prepared import PARTS, SITUATIONS, Pairs
from gcl.data.tables.quarantine import Bad, Quarantine
from gcl.schema import Field


@dataclass
class TaskQueries:
    """The queries of one table. `kind_of`: id -> the name of its task; queries of kinds not asked for have None.
    `part_of`: id -> "dev" or "test", where the table says so."""

    source: TaskSource
    row_of: dict[str, int] = field(default_factory=dict)
    kind_of: dict[str, str | None] = field(default_factory=dict)
    part_of: dict[str, str] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)

    def dev_queries(self, otherwise: np.ndarray) -> np.ndarray:
        """Which rows of the store are in the dev half, bool [Q]: as the table says, or as `otherwise`."""
        dev = otherwise.copy()
        for identifier, part in self.part_of.items():
            if identifier in self.row_of:
                dev[self.row_of[identifier]] = part == "dev"
        return dev


def read_queries(
    name: str, source: TaskSource, *, side: Mapping[str, Field], queries: Collector, quarantine: Quarantine
) -> TaskQueries:
    """Puts the queries of one explicit task (of its kinds, if it has several) into the store of queries."""
    spec, found = source.spec, TaskQueries(source)
    kinds: dict[str, None] = {}

    def rows() -> Iterator[Row]:
        others = [spec.query_id, spec.kind, spec.part]
        for line in read_rows(source.queries, {"query": side}, others, quarantine=quarantine, all_fields=False):
            identifier, kind = line.identifier(spec.query_id), line.identifier(spec.kind) if spec.kind else name
            if identifier is None or kind is None:
                reason = Bad("no query id" if identifier is None else "no kind")
                quarantine.add(source.queries.name, line.file, line.number, identifier, reason)
                continue
            if spec.part:
                part = (line.identifier(spec.part) or "").lower()
                if part not in PARTS:
                    bad = Bad("part is neither dev nor test", part)
                    quarantine.add(source.queries.name, line.file, line.number, identifier, bad)
                    continue
                found.part_of[identifier] = part
            kinds[kind] = None
            wanted = spec.kinds is None or kind in spec.kinds
            found.kind_of[identifier] = kind if wanted else None
            if wanted:
                yield Row(line.file, line.number, identifier, line.record(side))

    for row, result in queries.collect(rows(), namespace=name):
        if isinstance(result, Bad):
            quarantine.add(source.queries.name, row.file, row.number, row.identifier, result)
        else:
            found.row_of[row.identifier] = result
    unknown = [kind for kind in spec.kinds or () if kind not in kinds]
    if unknown:
        raise ValueError(
            f"data.tasks.{name}.kinds names {', '.join(map(repr, unknown))}, which the column {spec.kind!r} of "
            f"{source.queries.name} does not hold; it holds {', '.join(map(repr, kinds))}."
        )
    queries.check_conflicts(f"data.tasks.{name}.query_id")
    found.kinds = [kind for kind in kinds if spec.kinds is None or kind in spec.kinds]
    return found


@dataclass
class TaskJudgments:
    """Judgments by task name, those against products the catalog lacks counted and written down."""

    judged: dict[str, Pairs]
    dangling: dict[str, int]


def read_judgments(found: TaskQueries, *, documents: Collector, quarantine: Quarantine, folder: Path) -> TaskJudgments:
    spec, table, where = found.source.spec, found.source.qrels, found.source.document_id
    judged: dict[str, tuple[array, array, array]] = {kind: (array("q"), array("q"), array("f")) for kind in found.kinds}
    dangling: dict[str, list[tuple[str, str, str, str]]] = defaultdict(list)
    by = spec.qrels_query_id or spec.query_id
    for line in read_rows(table, {}, [by, where, spec.score], quarantine=quarantine):
        query, document = line.identifier(by), line.identifier(where)
        score = parse_score(line.columns[spec.score])
        bad = score if isinstance(score, Bad) else None
        if query is None or document is None:
            bad = Bad("no query id" if query is None else "no product id")
        elif query not in found.kind_of:
            bad = Bad("unknown query id")
        if bad:
            quarantine.add(table.name, line.file, line.number, query, bad)
        elif (kind := found.kind_of[query]) is None or query not in found.row_of:
            continue  # of a kind nobody asked for, or of a query that is in the quarantine itself
        elif document not in documents.row_of:
            why = "quarantined product" if document in documents.failed else "not in the catalog"
            dangling[file_name(kind)].append((query, document, line.columns[spec.score], why))
        else:
            values = (found.row_of[query], documents.row_of[document], score)
            for column, value in zip(judged[kind], values, strict=True):
                column.append(value)
    for name, rows in dangling.items():
        with open(folder / f"{name}.dangling.csv", "w", newline="", encoding="utf-8") as target:
            writer = csv.writer(target)
            writer.writerow(["query_id", "document_id", "score", "reason"])
            writer.writerows(rows)
    return TaskJudgments(
        judged={file_name(kind): Pairs(*map(as_numpy, values)) for kind, values in judged.items()},
        dangling={name: len(rows) for name, rows in dangling.items()},
    )


def read_corpus(found: TaskQueries, *, documents: Collector, quarantine: Quarantine) -> np.ndarray | None:
    """Rows of the products that the task's own table lists; None where it has none."""
    table, where = found.source.corpus, found.source.document_id
    if table is None:
        return None
    listed = set()
    for line in read_rows(table, {}, [where], quarantine=quarantine):
        identifier = line.identifier(where)
        row = documents.row_of.get(identifier or "")
        if row is not None:
            listed.add(row)
        elif identifier not in documents.failed:
            bad = Bad("unknown product id" if identifier else "no product id", identifier or "")
            quarantine.add(table.name, line.file, line.number, identifier, bad)
    return np.array(sorted(listed), np.int64)


def as_numpy(values: array) -> np.ndarray:
    return np.array(values, dtype={"q": np.int64, "f": np.float32}[values.typecode])


def file_name(kind: str) -> str:
    """A task's name, which names files.

    >>> file_name("T-shirts & tops")
    'T-shirts_tops'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", kind).strip("._") or "task"


def explicit_task(
    name: str,
    found: TaskQueries,
    judged: Pairs,
    *,
    key: str,
    training: Pairs,
    documents: int,
    listed: np.ndarray | None = None,
) -> Judgments:
    """A task of judged pairs over the corpus its configuration asks for. `key`: its name there, for messages;
    `listed`: its own corpus, where it names a table."""
    corpus = np.arange(documents, dtype=np.int64) if listed is None else listed
    if found.source.spec.corpus == "held_out":
        corpus = np.setdiff1d(corpus, training.document)
        if not len(corpus):
            raise ValueError(
                f"The task {name!r} searches among held-out products, but every product stands in a training pair: set "
                f"data.split.documents below 1, or data.tasks.{key}.corpus=all."
            )
    task = judgments(name, corpus, judged)
    asked = sum(kind is not None and file_name(kind) == name for kind in found.kind_of.values())
    task.without_relevant = asked - len(np.unique(task.judged.query))
    if not len(task.judged):
        raise ValueError(
            f"The task {name!r} has no query with a relevant product in its corpus of {len(corpus):,}: {len(judged):,} "
            f"judgments name products of the catalog, {task.outside_corpus:,} of them products outside this corpus. "
            f"Check data.tasks.{key}.qrels, document_id and corpus (it is {found.source.spec.corpus!r})."
        )
    return task


def check_names(names: list[str]) -> None:
    """Raises ValueError when two tasks would be written to the same files."""
    taken = list(SITUATIONS)
    for name in names:
        if name in taken:
            raise ValueError(
                f"Two tasks are called {name!r} (the situations are {', '.join(SITUATIONS)}): rename the task or kind."
            )
        taken.append(name)
