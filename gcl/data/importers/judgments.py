"""Judgments in the forms of other tools -> the two tables of a task: TREC qrels, Marqo's ground truths, a column.

TREC qrels    .trec, .qrels or .txt: "query_id iteration document_id relevance", separated by white space; the texts
              of the queries are in a table of their own
ground truth  a .json of {query: {document id: relevance}}: its keys are the queries
a column      every value of a column of the products table is a query for the products that have it
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gcl.data.catalog import Catalog, Task
from gcl.data.tables.block import Reading
from gcl.data.tables.cells import canonical_id
from gcl.data.tables.json_file import json_entries
from gcl.data.tables.table import open_table
from gcl.files.atomic import replacing
from gcl.files.digest import text_sha256

TREC = (".trec", ".qrels", ".txt")
_QUERY, _DOCUMENT, _SCORE = "query_id", "document_id", "score"


class TaskTables(NamedTuple):
    """A task whose queries and judgments are tables gcl reads, and their paths."""

    spec: Task
    queries: str
    qrels: str


def as_tables(catalog: Catalog, name: str, task: Task, root: Path, copies: Path | None) -> TaskTables:
    """The task with tables that gcl reads in place of what it names, written below `copies` where they are new."""
    where = f"data.tasks.{name}"
    if task.qrels is None:
        if task.column is None:
            raise ValueError(
                f"{where}.qrels is missing: a table of judgments or a .json ground truth; or set {where}.column."
            )
        return _of_column(catalog, name, task, task.column, root, copies, _folder(catalog, copies, where))
    suffix = Path(task.qrels).suffix.lower()
    if suffix == ".json" and task.queries is None:
        return _of_ground_truth(catalog, name, task, _file(task.qrels, root, where), _folder(catalog, copies, where))
    if task.queries is None:
        raise ValueError(f"{where}.queries is missing: the table with the queries that {task.qrels} judges.")
    if suffix in TREC:
        judged = read_trec_qrels(_file(task.qrels, root, where))
        return _with_qrels(task, task.queries, name, judged, _folder(catalog, copies, where))
    return TaskTables(task, task.queries, task.qrels)


def read_trec_qrels(file: Path) -> Iterator[tuple[str, str, str]]:
    """(query id, document id, relevance) of each line, in order."""
    with open(file, encoding="utf-8") as source:
        for number, line in enumerate(source, start=1):
            values = line.split()
            if not values:
                continue
            if len(values) != 4:
                raise ValueError(
                    f"{file}, line {number}: {len(values)} columns, expected 4 (query_id 0 document_id relevance)."
                )
            # Some collections judge -1 or -2 (spam); no metric counts a relevance below 0 as anything but 0.
            yield values[0], values[2], "0" if values[3].startswith("-") else values[3]


def _of_ground_truth(catalog: Catalog, name: str, task: Task, file: Path, folder: Path) -> TaskTables:
    def judged() -> Iterator[tuple[str, str, Any]]:
        for number, (query, relevances) in enumerate(json_entries(file)):
            if not isinstance(relevances, dict):
                raise ValueError(f"{file} is not a ground truth: {query!r} has {relevances!r:.40}, not an object.")
            yield from ((f"q{number}", document, relevance) for document, relevance in relevances.items())

    texts = ((f"q{number}", query) for number, (query, _) in enumerate(json_entries(file)))
    return _write_task(catalog, name, task, texts, judged(), folder)


def _of_column(
    catalog: Catalog, name: str, task: Task, column: str, root: Path, copies: Path | None, folder: Path
) -> TaskTables:
    """Each value is a query, and every product that has it an answer with relevance 1."""
    source = catalog.products or catalog.pairs
    if source is None:
        raise ValueError(f"data.tasks.{name}.column needs data.products.")
    table = open_table(source, root=root, setting="data.products", copies=copies, reading=Reading.of(catalog))
    table.check_columns([(column, f"data.tasks.{name}.column"), (catalog.document_id, "data.document_id")])
    pairs: dict[tuple[str, str], None] = {}
    for block in table.blocks([column, catalog.document_id]):
        for value, identifier in zip(block.columns[column], block.columns[catalog.document_id], strict=True):
            if isinstance(value, str) and isinstance(identifier, str):
                pairs[value, canonical_id(identifier)] = None
    number: dict[str, str] = {}
    for value, _ in pairs:
        number.setdefault(value, f"q{len(number)}")
    texts = ((identifier, value) for value, identifier in number.items())
    judged = ((number[value], document, 1) for value, document in pairs)
    return _write_task(catalog, name, task, texts, judged, folder)


def _write_task(
    catalog: Catalog, name: str, task: Task, texts: Iterable[tuple], judged: Iterable[tuple], folder: Path
) -> TaskTables:
    """texts: (query id, text); judged: (query id, document id, relevance)."""
    if len(catalog.query) != 1:
        raise ValueError(
            f"data.tasks.{name}: its queries are single texts, but the query side has the fields "
            f"{', '.join(catalog.query)}; give a table of queries and one of judgments instead."
        )
    field, spec = next(iter(catalog.query.items()))
    queries = _write(folder / f"{name}.queries.csv", [_QUERY, spec.column or field], texts)
    return _with_qrels(replace(task, query_id=_QUERY, column=None), str(queries), name, judged, folder)


def _with_qrels(task: Task, queries: str, name: str, judged: Iterable[tuple], folder: Path) -> TaskTables:
    qrels = str(_write(folder / f"{name}.qrels.csv", [_QUERY, _DOCUMENT, _SCORE], judged))
    task = replace(task, queries=queries, qrels=qrels)
    task = replace(task, qrels_query_id=_QUERY, document_id=_DOCUMENT, score=_SCORE)
    return TaskTables(task, queries, qrels)


def _file(name: str, root: Path, where: str) -> Path:
    path = root / Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{where}.qrels: there is no file {path} (paths are relative to {root}).")
    return path


def _folder(catalog: Catalog, copies: Path | None, where: str) -> Path:
    if copies is None:
        raise ValueError(f"{where} names judgments that have to be translated; prepare the catalog.")
    return copies / "judged" / f"{catalog.name}-{text_sha256(str(catalog.root))[:8]}"


def _write(path: Path, header: Sequence[str], rows: Iterable[tuple]) -> Path:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(header)
        writer.writerows(rows)
    return path.absolute()
