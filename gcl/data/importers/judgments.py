"""Judgments in the forms of other tools -> the two tables of a task: TREC qrels, Marqo's ground truths, a column.

TREC qrels    of any suffix: "query_id iteration document_id relevance", separated by white space; the texts of the
              queries are in a table of their own
ground truth  a .json of {query: {document id: relevance}}: its keys are the queries, or their ids where a table of
              queries is named as well
a column      every value of a column of the products table is a query for the products that have it
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.data.catalog import Catalog, Task
from gcl.data.tables.block import Reading
from gcl.data.tables.cells import canonical_id
from gcl.data.tables.changes import open_products
from gcl.data.tables.formats import SUFFIXES
from gcl.data.tables.json_file import json_entries
from gcl.data.tables.remote import is_remote
from gcl.data.tables.source import suffix_of
from gcl.data.tables.table import open_table
from gcl.data.tables.trec import QRELS, is_trec, trec_lines
from gcl.files.atomic import replacing
from gcl.files.digest import text_sha256

_TEXTS = (".txt", ".tsv", ".csv")  # that may be TREC qrels as well as a table
_BLOCK = 1 << 16  # rows written at a time
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
    if is_remote(task.qrels) or any(sign in task.qrels for sign in "*?"):
        return TaskTables(task, task.queries, task.qrels)
    own = suffix_of(Path(task.qrels)) not in SUFFIXES
    judged = None
    if own or (suffix in _TEXTS and (root / task.qrels).is_file() and is_trec(root / task.qrels)):
        judged = _of_trec(_file(task.qrels, root, where))
    elif suffix == ".json" and _is_dictionary(_file(task.qrels, root, where)):
        judged = _of_dictionary(_file(task.qrels, root, where))
    if judged is None:
        return TaskTables(task, task.queries, task.qrels)
    return _with_qrels(task, task.queries, name, judged, _folder(catalog, copies, where))


def _of_trec(file: Path) -> Iterator[tuple[str, str, str]]:
    """(query id, document id, relevance) of each line, in order."""
    for _, (query, _, document, relevance) in trec_lines(file, QRELS):
        # Some collections judge -1 or -2 (spam); no metric counts a relevance below 0 as anything but 0.
        yield query, document, "0" if relevance.startswith("-") else relevance


def _of_dictionary(file: Path) -> Iterator[tuple[str, str, Any]]:
    """(query, document id, relevance) of a {query: {document id: relevance}}."""
    for query, relevances in json_entries(file):
        if not isinstance(relevances, dict):
            raise ValueError(f"{file} is not a ground truth: {query!r} has {relevances!r:.40}, not an object.")
        yield from ((query, document, relevance) for document, relevance in relevances.items())


def _is_dictionary(file: Path) -> bool:
    """Whether a .json is a {query id: {document id: relevance}}, not a table."""
    try:
        return isinstance(next(json_entries(file))[1], dict)
    except (ValueError, StopIteration):
        return False


def _of_ground_truth(catalog: Catalog, name: str, task: Task, file: Path, folder: Path) -> TaskTables:
    number = {query: f"q{place}" for place, (query, _) in enumerate(json_entries(file))}
    judged = ((number[query], document, relevance) for query, document, relevance in _of_dictionary(file))
    return _write_task(catalog, name, task, ((key, query) for query, key in number.items()), judged, folder)


def _of_column(
    catalog: Catalog, name: str, task: Task, column: str, root: Path, copies: Path | None, folder: Path
) -> TaskTables:
    """Each value is a query, and every product that has it an answer with relevance 1."""
    source = catalog.products or catalog.pairs
    if source is None:
        raise ValueError(f"data.tasks.{name}.column needs data.products.")
    table = open_products(catalog, root, copies) or open_table(
        source, root=root, setting="data.products", copies=copies, reading=Reading.of(catalog)
    )
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
    queries = _write(folder / f"{name}.queries.parquet", [_QUERY, spec.column or field], texts)
    task = replace(task, query_id=_QUERY, column=None, query_columns={})
    return _with_qrels(task, str(queries), name, judged, folder)


def _with_qrels(task: Task, queries: str, name: str, judged: Iterable[tuple], folder: Path) -> TaskTables:
    qrels = str(_write(folder / f"{name}.qrels.parquet", [_QUERY, _DOCUMENT, _SCORE], judged))
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
    root = catalog.root and Path(catalog.root).expanduser().absolute()
    return copies / "judged" / f"{catalog.name}-{text_sha256(str(root))[:8]}"


def _write(path: Path, header: Sequence[str], rows: Iterable[tuple]) -> Path:
    """Parquet: the catalog's encoding and delimiter are those of its own tables."""
    schema = pa.schema([(name, pa.string()) for name in header])
    remaining = iter(rows)
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema, compression="zstd") as target:
        while block := list(islice(remaining, _BLOCK)):
            columns = [
                pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
                for cells in zip(*block, strict=True)
            ]
            target.write_table(pa.table(columns, schema=schema))
    return path.absolute()
