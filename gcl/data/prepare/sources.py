"""What a catalog names -> its tables, opened, their columns checked, before a single row is read.

1. `opened_catalog`: the catalog as it is prepared: its generator called, a shop's export translated, a click log
   turned into pairs
2. `open_sources`: the tables of products, pairs and tasks; judgments in other tools' forms become tables
3. `read_columns`: later, for a report, what the tables say about products and queries in columns of no field
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gcl.data.catalog import Catalog, Task, is_corpus
from gcl.data.check import check_catalog
from gcl.data.importers.judgments import as_tables
from gcl.data.importers.layouts.translate import catalog_of_export
from gcl.data.masked import masked
from gcl.data.prepare.clicks import catalog_of_clicks
from gcl.data.prepare.rows import columns_of, image_columns, taken_images
from gcl.data.store.away import local_folder
from gcl.data.tables.block import Reading
from gcl.data.tables.cells import canonical_id
from gcl.data.tables.changes import open_products
from gcl.data.tables.images import is_one_url
from gcl.data.tables.remote import is_remote
from gcl.data.tables.table import Table, open_table
from gcl.files.atomic import PARTIAL
from gcl.files.digest import text_sha256
from gcl.files.lock import locked
from gcl.files.progress import doing
from gcl.schema import Field, SideName

_ABANDONED = 86_400  # seconds after which another machine's unfinished folder belongs to nobody


@dataclass
class TaskSource:
    """The tables of an explicit task."""

    spec: Task
    queries: Table
    qrels: Table
    document_id: str
    query: dict[str, Field]  # the query side, with the columns of `queries`
    corpus: Table | None = None


@dataclass
class Sources:
    """`documents` and `pairs` are the same table in two of the three forms a catalog has: pairs alone (every row has
    the product's columns) and products alone (the query is made of the product's own columns). `pairs` is None where
    all training pairs are made by data.own_queries, and for a catalog without training."""

    root: Path
    documents: Table
    pairs: Table | None
    document_id: str | None  # None: the content of a product is its id
    pairs_document_id: str | None  # the same, as pairs call it
    image_root: Path | None
    judgments: Table | None = None
    tasks: dict[str, TaskSource] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        """Every table once."""
        several = [
            self.documents,
            *(table for table in (self.pairs, self.judgments) if table),
            *(part for task in self.tasks.values() for part in (task.queries, task.qrels, task.corpus) if part),
        ]
        return list({(table.name, *table.files): table for table in several}.values())

    def sides(self, catalog: Catalog) -> list[tuple[Table, Mapping[str, Field]]]:
        """Every table that holds records, with the fields of the side it holds."""
        pairs = [(table, catalog.query) for table in (self.pairs, self.judgments) if table]
        return [
            (self.documents, catalog.document), *pairs, *((task.queries, task.query) for task in self.tasks.values())
        ]  # fmt: skip

    def image_urls(self, catalog: Catalog) -> Iterator[str]:
        """Every URL in an image column, as often as it occurs."""
        for table, side in self.sides(catalog):
            if (columns := image_columns(side)) and table.has_paths(columns):
                for block in table.blocks((), columns):
                    yield from filter(is_one_url, taken_images(block, side))


def opened_catalog(catalog: Catalog, folder: str | Path) -> tuple[Catalog, Path, Path]:
    """The catalog as it is prepared (generated or translated, scored from its clicks), its root, and `folder`."""
    check_catalog(catalog)
    folder = local_folder(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(catalog.root or ".").expanduser().absolute()
    if generator := catalog.generator:
        if catalog.root:  # images stay where they are
            catalog = replace(catalog, image_root=str(root / Path(catalog.image_root or "").expanduser()))
        root = _generated(catalog, generator, folder, root if catalog.root else None)
    if catalog.layout is not None:
        catalog = catalog_of_export(catalog, root, folder)
    if catalog.clicks is not None:
        catalog = catalog_of_clicks(catalog, catalog.clicks, root, folder)
    return catalog, root, folder


def _generated(catalog: Catalog, generator: str, folder: Path, root: Path | None) -> Path:
    """The folder below `folder` that a generator wrote its tables into; called the first time only, or with a `root`
    to translate when the files in it (not those in its folders) change."""
    source = folder / f"{catalog.name}-source{'' if root is None else '-' + _state_of(root)}"

    def is_whole() -> bool:  # an earlier version's generator wrote no judgments
        return source.is_dir() and (catalog.judgments is None or (source / catalog.judgments).exists())

    if is_whole():
        return source
    with locked(folder / f".{source.name}.lock", waiting_for=f"{source} to be generated"):
        if not is_whole():
            with _few_rows(catalog) as few:
                if few is not None:  # what is wrong with the columns is said before everything is written
                    opened, place, made = opened_catalog(few, str(few.root))
                    open_sources(opened, place, copies=made / "tables")
            write = _import(generator)
            # A name of its own: another host may be at work on the same folder, where locks do not reach it.
            _remove_abandoned(folder, source.name)
            unfinished = folder / f".{source.name}.{socket.gethostname()}.{secrets.token_hex(6)}{PARTIAL}"
            unfinished.mkdir()
            try:
                with doing(f"{catalog.name}: writing its tables"):
                    write(unfinished, *([] if root is None else [root]))
                if not is_whole():
                    shutil.rmtree(source, ignore_errors=True)
                with suppress(OSError):  # it was faster
                    os.rename(unfinished, source)
                if not source.is_dir():
                    raise OSError(f"{source} could not be made: {unfinished} cannot be renamed.")
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return source


@contextmanager
def _few_rows(catalog: Catalog) -> Iterator[Catalog | None]:
    """The catalog, with a few rows where a generator would write all; None for a generator that does not do this."""
    if catalog.generator is None:
        yield catalog
        return
    write = _import(catalog.generator)
    if "sample" not in inspect.signature(write).parameters:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="gcl-") as folder:
        write(Path(folder), *([Path(catalog.root).expanduser().absolute()] if catalog.root else []), sample=True)
        yield replace(catalog, generator=None, root=folder)


def _remove_abandoned(folder: Path, name: str) -> None:
    """What killed generations left: of this machine all of it, since the lock is ours; of others after a day."""
    own = f".{name}.{socket.gethostname()}."
    for left in folder.glob(f".{name}.*{PARTIAL}"):
        with suppress(OSError):
            if left.name.startswith(own) or time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)


def _state_of(root: Path) -> str:
    if not root.is_dir():
        raise FileNotFoundError(f"data.root: there is no folder {root}.")
    files = sorted((entry.name, entry.stat()) for entry in os.scandir(root) if entry.is_file())
    state = [str(root), *(f"{name} {about.st_size} {about.st_mtime_ns}" for name, about in files)]
    return text_sha256("\n".join(state))[:12]


def _import(path: str) -> Callable[..., None]:
    module, _, name = path.partition(":")
    hint = f"data.generator is {path!r}; expected 'package.module:function'"
    if not name:
        raise ValueError(f"{hint}.")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{hint}, and this one cannot be imported: {error}.") from error


def open_sources(catalog: Catalog, root: Path, copies: Path | None = None) -> Sources:
    """`copies`: where tables that are URLs are kept; None: there are none.

    Raises FileNotFoundError, KeyError or ValueError, in sentences, for tables or columns that are not there.
    """

    reading = Reading.of(catalog)

    def opened(path: str | None, setting: str) -> Table | None:
        return open_table(path, root=root, setting=setting, copies=copies, reading=reading) if path else None

    products = open_products(catalog, root, copies)
    pairs = opened(catalog.pairs, "data.pairs") if catalog.training else None
    if catalog.training and not catalog.own_queries:
        pairs = pairs or products
    documents = products or pairs
    if documents is None:
        raise ValueError("The catalog names no table: set data.pairs, data.products or both (or data.shards).")
    # without an id column a product is its content; a column that somebody named has to be there
    by_id = (
        products is not None or catalog.document_id != Catalog.document_id or catalog.document_id in documents.columns
    )
    judgments = opened(catalog.judgments, "data.judgments")
    identifier = [(catalog.document_id, "data.document_id")] if by_id else []
    groups = [(name, "data.split.group") for name in catalog.split.group]
    documents.check_columns([*_side_columns(catalog.document, "document"), *identifier, *groups])
    documents.check_columns([(name, f"data.own_queries.{key}") for key, name in catalog.own_queries.items()])
    if pairs is not None:
        others = (("query_id", catalog.query_id), ("score", catalog.score))
        wanted = [(name, f"data.{key}") for key, name in others if name]
        if pairs is not documents and catalog.pairs_document_id:
            identifier = [(catalog.pairs_document_id, "data.pairs_document_id")]
        for table in (pairs, judgments) if judgments else (pairs,):
            table.check_columns([*_side_columns(catalog.query, "query"), *identifier, *wanted])
    return Sources(
        root=root,
        documents=documents,
        pairs=pairs,
        document_id=catalog.document_id if by_id else None,
        pairs_document_id=identifier[0][0] if by_id else None,
        image_root=root / Path(catalog.image_root).expanduser() if catalog.image_root else None,
        judgments=judgments,
        tasks={name: _open_task(catalog, name, task, root, copies) for name, task in catalog.tasks.items()},
    )


def _open_task(catalog: Catalog, name: str, task: Task, root: Path, copies: Path | None) -> TaskSource:
    where, reading = f"data.tasks.{name}", Reading.of(catalog)
    given = task.qrels
    task, queries_path, qrels_path = as_tables(catalog, name, task, root, copies)
    queries = open_table(queries_path, root=root, setting=f"{where}.queries", copies=copies, reading=reading)
    qrels = open_table(qrels_path, root=root, setting=f"{where}.qrels", copies=copies, reading=reading)
    qrels.name = masked(given or qrels_path)  # not that of a translated copy, which nobody can fix
    document_id = task.document_id or catalog.document_id
    query = {name: _in_column(spec, task.query_columns.get(name)) for name, spec in catalog.query.items()}
    wanted = [(task.query_id, f"{where}.query_id"), *_side_columns(query, "query")]
    wanted += [(name, f"{where}.{key}") for key, name in (("kind", task.kind), ("part", task.part)) if name]
    queries.check_columns(wanted)
    by = "qrels_query_id" if task.qrels_query_id else "query_id"
    qrels.check_columns([
        (getattr(task, by), f"{where}.{by}"),
        (document_id, f"{where}.document_id"), (task.score, f"{where}.score"),
    ])  # fmt: skip
    corpus = None
    if not is_corpus(task.corpus):
        corpus = open_table(task.corpus, root=root, setting=f"{where}.corpus", copies=copies, reading=reading)
        corpus.check_columns([(document_id, f"{where}.document_id")])
    return TaskSource(task, queries, qrels, document_id, query, corpus)


def _in_column(spec: Field, name: str | None) -> Field:
    return replace(spec, column=name, columns=[]) if name else spec


def _side_columns(fields: Mapping[str, Field], side: SideName) -> list[tuple[str, str]]:
    return [(one, f"data.{side}.{name}") for name, spec in fields.items() for one in columns_of(name, spec)]


Values = dict[str, dict[str, str]]  # column -> id -> value


@dataclass
class Columns:
    """What the tables say about products and queries, by the ids of the stores; without a value, no entry."""

    documents: Values = field(default_factory=dict)
    queries: Values = field(default_factory=dict)


def read_columns(catalog: Catalog, folder: str | Path, names: Sequence[str]) -> Columns:
    """The columns `names` of the products table (or of the pairs, where they hold the products) and of the tables of
    the explicit tasks' queries. folder: where prepared catalogs lie. A mix's ids begin with `<catalog>/`.

    Raises KeyError, naming the nearest column there is, for a name that no table has.
    """
    columns = Columns({name: {} for name in names}, {name: {} for name in names})
    if not names:
        return columns
    known: dict[str, None] = {}
    parts = {f"{name}/": one for name, one in catalog.catalogs.items()} if catalog.mix else {"": catalog}
    for prefix, one in parts.items():
        known |= dict.fromkeys(_read_catalog(one, folder, names, prefix, columns))
    for name in names:
        if name not in known:
            raise KeyError(_unknown(name, list(known)))
    return columns


def product_rows(catalog: Catalog, folder: str | Path) -> Iterator[tuple[list[str], dict[str, Sequence[Any]], str]]:
    """The products table (or the pairs, where they hold the products) in blocks: ids as the stores have them, the texts
    of every column that is no image, and the decimal sign of numbers in these (`parse_number`). Nothing where products
    have no ids, and of ready shards."""
    parts = {f"{name}/": one for name, one in catalog.catalogs.items()} if catalog.mix else {"": catalog}
    for prefix, one in parts.items():
        if one.shards:
            continue
        one, root, place = opened_catalog(one, folder)
        sources = open_sources(one, root, copies=place / "tables")
        if (identifier := sources.document_id) is None:
            continue
        others = {identifier, *image_columns(one.document)}
        names = [name for name in sources.documents.columns if name not in others]
        for block in sources.documents.blocks([identifier, *names]):
            ids = [prefix + canonical_id(key) if isinstance(key, str) else "" for key in block.columns[identifier]]
            yield ids, {name: block.columns[name] for name in names}, block.decimal


def check_columns(catalog: Catalog, names: Sequence[str]) -> None:
    """Raises KeyError for a name that no table has, by the tables' headers alone. Says nothing where a table is only
    fetched or translated when the catalog is prepared."""
    known: list[str] = []
    for one in (catalog.catalogs.values() if catalog.mix else [catalog]) if names else []:
        check_catalog(one)
        if one.shards:
            continue
        with _few_rows(one) as few:
            columns = None if few is None else _headers(few)
        if columns is None:
            return
        known += columns
    for name in names:
        if name not in known:
            raise KeyError(_unknown(name, known))


def _headers(catalog: Catalog) -> list[str] | None:
    """The columns of the tables of products and of the tasks' queries; None where one of them is not there yet."""
    named = {f"data.tasks.{name}.queries": task.queries for name, task in catalog.tasks.items()}
    named |= {"data.products": catalog.products} if catalog.products else {"data.pairs": catalog.pairs}
    paths = {setting: path for setting, path in named.items() if path}
    if catalog.layout is not None or any(map(is_remote, paths.values())):
        return None
    root = Path(catalog.root or ".").expanduser().absolute()
    tables = [open_table(paths[name], root=root, setting=name, reading=Reading.of(catalog)) for name in paths]
    return [column for table in tables for column in table.columns]


def _read_catalog(
    catalog: Catalog, folder: str | Path, names: Sequence[str], prefix: str, columns: Columns
) -> list[str]:
    """Reads what this catalog's tables have of `names` into `columns`; returns the names of all their columns."""
    if catalog.shards:
        return []
    catalog, root, folder = opened_catalog(catalog, folder)
    sources = open_sources(catalog, root, copies=folder / "tables")
    tables = [(sources.documents, sources.document_id, columns.documents)]
    tables += [(task.queries, task.spec.query_id, columns.queries) for task in sources.tasks.values()]
    for table, identifier, values in tables:
        if identifier is not None:
            _read(table, identifier, [name for name in names if name in table.columns], prefix, values)
    return [name for table, _, _ in tables for name in table.columns]


def _unknown(name: str, known: Sequence[str]) -> str:
    if not known:
        return f"evaluate.slices: {name!r} is not a field, and ready shards have no tables to read it from."
    near = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"evaluate.slices: there is no column {name!r}.{hint} There are {', '.join(known)}."


def _read(table: Table, identifier: str, names: Sequence[str], prefix: str, values: Values) -> None:
    """The first value of an id counts."""
    for block in table.blocks([identifier, *names]) if names else ():
        ids = block.columns[identifier]
        for name in names:
            for key, value in zip(ids, block.columns[name], strict=True):
                if isinstance(key, str) and isinstance(value, str):
                    values[name].setdefault(prefix + canonical_id(key), value.strip())
