"""Judgments in the forms of other tools -> the two tables of a task: TREC qrels, Marqo's ground truths, a column.

TREC qrels    .trec, .qrels or .txt: "query_id iteration document_id relevance", white space between; the texts of
              the queries stand in a table of their own
ground truth  a .json of {query: {document id: relevance}}: its keys are the queries
a column      every value of a column of the products table is a query for the products that have it
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gcl.data.catalog import Catalog, Task
from gcl.data.importers.marqo_gs import entries
from gcl.data.tables.table import open_table
from gcl.files.atomic import replacing
from gcl.files.digest import text_sha256

TREC = (".trec", ".qrels", ".txt")
_QUERY, _DOCUMENT, _SCORE = "query_id", "document_id", "score"


def as_tables(catalog: Catalog, name: str, task: Task, root: Path, copies: Path | None) -> Task:
    """The task with tables that gcl reads in place of what it names, written below `copies` where they are new."""
    where = f"data.tasks.{name}"
    if task.column is not None and task.qrels is None:
        return _of_column(catalog, name, task, root, copies, _folder(catalog, copies, where))
    if task.qrels is None:
        raise ValueError(f"{where}.qrels is missing: a table of judgments, a .json ground truth, or {where}.column.")
    suffix = Path(task.qrels).suffix.lower()
    if suffix == ".json" and task.queries is None:
        return _of_ground_truth(catalog, name, task, _file(task.qrels, root, where), _folder(catalog, copies, where))
    if task.queries is None:
        raise ValueError(f"{where}.queries is missing: the table with the queries that {task.qrels} judges.")
    if suffix in TREC:
        target = _folder(catalog, copies, where) / f"{name}.qrels.csv"
        _write(target, [_QUERY, _DOCUMENT, _SCORE], _trec(_file(task.qrels, root, where)))
        return replace(task, qrels=str(target), qrels_query_id=_QUERY, document_id=_DOCUMENT, score=_SCORE)
    return task


def _of_ground_truth(catalog: Catalog, name: str, task: Task, file: Path, folder: Path) -> Task:
    def judged() -> Iterator[tuple]:
        for number, (query, found) in enumerate(entries(file)):
            if not isinstance(found, dict):
                raise ValueError(f"{file} is no ground truth: {query!r} stands for {found!r:.40}, not for an object.")
            yield from ((f"q{number}", document, relevance) for document, relevance in found.items())

    texts = ((f"q{number}", query) for number, (query, _) in enumerate(entries(file)))
    queries = _write(folder / f"{name}.queries.csv", _query_columns(catalog, name), texts)
    qrels = _write(folder / f"{name}.qrels.csv", [_QUERY, _DOCUMENT, _SCORE], judged())
    return _task(task, queries, qrels)


def _of_column(catalog: Catalog, name: str, task: Task, root: Path, copies: Path | None, folder: Path) -> Task:
    """Of a product's value, every product that has it is an answer, with relevance 1."""
    source = catalog.products or catalog.pairs
    if source is None:
        raise ValueError(f"data.tasks.{name}.column needs data.products.")
    table = open_table(source, root=root, setting="data.products", copies=copies)
    table.check_columns([(task.column, f"data.tasks.{name}.column"), (catalog.document_id, "data.document_id")])

    def rows() -> Iterator[tuple[str, str]]:
        for block in table.blocks([task.column, catalog.document_id]):
            for value, identifier in zip(block.columns[task.column], block.columns[catalog.document_id], strict=True):
                if value is not None and identifier is not None:
                    yield value, identifier.strip()

    number: dict[str, str] = {}
    for value, _ in rows():
        number.setdefault(value, f"q{len(number)}")
    texts = ((identifier, value) for value, identifier in number.items())
    queries = _write(folder / f"{name}.queries.csv", _query_columns(catalog, name), texts)
    judged = ((number[value], document, 1) for value, document in dict.fromkeys(rows()))
    qrels = _write(folder / f"{name}.qrels.csv", [_QUERY, _DOCUMENT, _SCORE], judged)
    return _task(task, queries, qrels)


def _task(task: Task, queries: Path, qrels: Path) -> Task:
    return replace(
        task, queries=str(queries), qrels=str(qrels), query_id=_QUERY, qrels_query_id=_QUERY, document_id=_DOCUMENT,
        score=_SCORE, column=None,
    )  # fmt: skip


def _query_columns(catalog: Catalog, name: str) -> list[str]:
    """Header of a table of queries that are one text each."""
    if len(catalog.query) != 1:
        raise ValueError(
            f"data.tasks.{name}: its queries are single texts, but the query side has the fields "
            f"{', '.join(catalog.query)}; give a table of queries and one of judgments instead."
        )
    field, spec = next(iter(catalog.query.items()))
    return [_QUERY, spec.column or field]


def _trec(file: Path) -> Iterator[list[str]]:
    with open(file, encoding="utf-8") as source:
        for number, line in enumerate(source, start=1):
            values = line.split()
            if values and len(values) != 4:
                raise ValueError(
                    f"{file}, line {number}: {len(values)} columns, expected 4 (query_id 0 document_id relevance)."
                )
            if values:
                # Some collections judge -1 or -2 (spam); no metric counts a relevance below 0 as anything but 0.
                yield [values[0], values[2], "0" if values[3].startswith("-") else values[3]]


def _file(name: str, root: Path, where: str) -> Path:
    path = root / Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{where}.qrels: there is no file {path} (paths are relative to {root}).")
    return path


def _folder(catalog: Catalog, copies: Path | None, where: str) -> Path:
    if copies is None:
        raise ValueError(f"{where} names judgments that have to be translated; prepare the catalog.")
    return copies / "judged" / f"{catalog.name}-{text_sha256(str(catalog.root))[:8]}"


def _write(path: Path, header: list[str], rows) -> Path:
    with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(header)
        writer.writerows(rows)
    return path.absolute()
