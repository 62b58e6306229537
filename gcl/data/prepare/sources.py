"""The tables a catalog names, opened, their columns checked, before a single row is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gcl.data.catalog import Catalog, Task
from gcl.data.importers.judgments import as_tables
from gcl.data.prepare.split import check_split
from gcl.data.tables.download import check_download
from gcl.data.tables.images import is_url
from gcl.data.tables.table import Table, open_table
from gcl.schema import Field, Modality

CORPORA = ("held_out", "all")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass
class TaskSource:
    spec: Task
    queries: Table
    qrels: Table
    document_id: str
    corpus: Table | None = None


@dataclass
class Sources:
    """`documents` and `pairs` are the same table in two of the three forms a catalog has: pairs alone (the product's
    columns stand in every row) and products alone (the query is made of the product's own columns). `pairs` is None for
    a catalog without training."""

    root: Path
    documents: Table
    pairs: Table | None
    document_id: str | None  # None: the content of a product is its id
    image_root: Path | None
    tasks: dict[str, TaskSource] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        """Every table once."""
        both = [
            self.documents,
            *([self.pairs] if self.pairs else []),
            *(part for task in self.tasks.values() for part in (task.queries, task.qrels, task.corpus) if part),
        ]
        return list({table.name: table for table in both}.values())


def column(name: str, spec: Field) -> str:
    return spec.column or name


def check_catalog(catalog: Catalog) -> None:
    """Raises ValueError for what can be known without opening anything."""
    if not _SAFE_NAME.fullmatch(catalog.name):
        raise ValueError(f"data.name is {catalog.name!r}: it names a folder, so use letters, digits, '.', '_' and '-'.")
    if catalog.mix:
        raise ValueError(f"{catalog.name} is a mix of {', '.join(catalog.mix)}: each of them is prepared by itself.")
    if not (catalog.products or catalog.pairs or catalog.shards):
        raise ValueError("The catalog names no table: set data.pairs, data.products or both (or data.shards).")
    if catalog.shards and (catalog.products or catalog.pairs):
        both = "data.products" if catalog.products else "data.pairs"
        raise ValueError(f"data.shards and {both} are both set: a catalog is tables or ready shards, not both.")
    catalog.schema.check()
    check_split(catalog.split)
    if not catalog.training and (catalog.pairs or not catalog.products or not catalog.tasks):
        raise ValueError(
            "data.training is false, so the catalog is evaluated on alone: it needs data.products and data.tasks, and "
            "no data.pairs."
        )
    if not 0 <= catalog.max_bad <= 1:
        raise ValueError(f"data.max_bad is {catalog.max_bad}: it is a share of rows, between 0 and 1.")
    check_download(catalog.download)
    if catalog.store.workers < 1:
        raise ValueError(f"data.store.workers is {catalog.store.workers}: at least one thread checks the images.")
    if catalog.store.image_side is not None and catalog.store.image_side < 1:
        raise ValueError(
            f"data.store.image_side is {catalog.store.image_side}: give pixels, or null to store images unchanged."
        )
    for name, task in catalog.tasks.items():
        if task.corpus not in CORPORA and not Path(task.corpus).suffix:
            raise ValueError(
                f"data.tasks.{name}.corpus is {task.corpus!r}; expected 'held_out', 'all' or a table of product ids."
            )
        if task.kinds is not None and task.kind is None:
            raise ValueError(
                f"data.tasks.{name}.kinds is set but data.tasks.{name}.kind is not: name the column that holds them."
            )


def open_sources(catalog: Catalog, root: Path, copies: Path | None = None) -> Sources:
    """`copies`: where tables that are URLs are kept; None: there are none.

    Raises FileNotFoundError, KeyError or ValueError, in sentences, for tables or columns that are not there.
    """
    products = (
        open_table(catalog.products, root=root, setting="data.products", copies=copies) if catalog.products else None
    )
    if not catalog.training:
        return _to_evaluate(catalog, products, root, copies)
    pairs = open_table(catalog.pairs, root=root, setting="data.pairs", copies=copies) if catalog.pairs else products
    documents = products or pairs
    # without an id column a product is its content; a column that somebody named has to be there
    by_id = products is not None or catalog.document_id != Catalog.document_id or catalog.document_id in pairs.columns
    documents.check_columns(
        _side_columns(catalog, "document") + ([(catalog.document_id, "data.document_id")] if by_id else [])
    )
    _check_own_queries(catalog, products)
    wanted = _side_columns(catalog, "query")
    wanted += [(catalog.document_id, "data.document_id")] if by_id else []
    wanted += [
        (name, f"data.{key}") for key, name in (("query_id", catalog.query_id), ("score", catalog.score)) if name
    ]
    pairs.check_columns(wanted)
    return _sources(catalog, documents, pairs, catalog.document_id if by_id else None, root, copies)


def _to_evaluate(catalog: Catalog, products: Table, root: Path, copies: Path | None) -> Sources:
    """Of a catalog without training: its products and its tasks."""
    products.check_columns(_side_columns(catalog, "document") + [(catalog.document_id, "data.document_id")])
    return _sources(catalog, products, None, catalog.document_id, root, copies)


def _sources(
    catalog: Catalog, documents: Table, pairs: Table | None, document_id: str | None, root: Path, copies: Path | None
) -> Sources:
    return Sources(
        root=root,
        documents=documents,
        pairs=pairs,
        document_id=document_id,
        image_root=root / Path(catalog.image_root).expanduser() if catalog.image_root else None,
        tasks={name: _open_task(catalog, name, task, root, copies) for name, task in catalog.tasks.items()},
    )


def _check_own_queries(catalog: Catalog, products: Table | None) -> None:
    if not catalog.own_queries:
        return
    if products is None or not catalog.pairs:
        raise ValueError(
            "data.own_queries adds pairs of the products table to the pairs table: set data.products and data.pairs."
        )
    if catalog.query_id:
        raise ValueError(
            "data.own_queries makes queries without an id, and data.query_id is set: leave one of them out."
        )
    unknown = next((name for name in catalog.own_queries if name not in catalog.query), None)
    if unknown is not None:
        raise ValueError(
            f"data.own_queries.{unknown}: the query side has no such field; it has {', '.join(catalog.query)}."
        )
    products.check_columns([(name, f"data.own_queries.{key}") for key, name in catalog.own_queries.items()])


def _open_task(catalog: Catalog, name: str, task: Task, root: Path, copies: Path | None) -> TaskSource:
    where = f"data.tasks.{name}"
    task = as_tables(catalog, name, task, root, copies)
    queries = open_table(task.queries, root=root, setting=f"{where}.queries", copies=copies)
    qrels = open_table(task.qrels, root=root, setting=f"{where}.qrels", copies=copies)
    document_id = task.document_id or catalog.document_id
    wanted = [(task.query_id, f"{where}.query_id"), *_side_columns(catalog, "query")]
    wanted += [(name, f"{where}.{key}") for key, name in (("kind", task.kind), ("part", task.part)) if name]
    queries.check_columns(wanted)
    by = "qrels_query_id" if task.qrels_query_id else "query_id"
    qrels.check_columns([
        (getattr(task, by), f"{where}.{by}"),
        (document_id, f"{where}.document_id"), (task.score, f"{where}.score"),
    ])  # fmt: skip
    corpus = None
    if task.corpus not in CORPORA:
        corpus = open_table(task.corpus, root=root, setting=f"{where}.corpus", copies=copies)
        corpus.check_columns([(document_id, f"{where}.document_id")])
    return TaskSource(task, queries, qrels, document_id, corpus)


def _side_columns(catalog: Catalog, side: str) -> list[tuple[str, str]]:
    return [(column(name, spec), f"data.{side}.{name}") for name, spec in catalog.schema.side(side).items()]


def image_urls(sources: Sources, catalog: Catalog) -> Iterator[str]:
    """Every URL that stands in an image column, as often as it does."""
    sides = [(sources.documents, catalog.document)]
    sides += [(sources.pairs, catalog.query)] if sources.pairs else []
    sides += [(task.queries, catalog.query) for task in sources.tasks.values()]
    for table, side in sides:
        columns = [column(name, spec) for name, spec in side.items() if spec.modality is Modality.image]
        if columns:
            for block in table.blocks((), columns):
                for name in columns:
                    yield from (cell for cell in block.columns[name] if isinstance(cell, str) and is_url(cell))
