"""An export -> a table of products in gcl's own columns, written once, by content, next to the prepared catalogs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.data.catalog import Catalog
from gcl.data.importers.layouts.feed import read_items, root_of
from gcl.data.importers.layouts.layout import COLUMNS, Export, Layout, Product, Row
from gcl.data.importers.layouts.registry import LAYOUTS
from gcl.data.store.verify import is_whole, write_about
from gcl.data.tables.block import Reading
from gcl.data.tables.quarantine import Bad, Quarantine
from gcl.data.tables.table import Table, locate_table, readable
from gcl.files.digest import add_file
from gcl.files.lock import locked

logger = logging.getLogger(__name__)
_RULES = 1  # raised when the same export would be translated into something else
_ROWS = 10_000  # of a piece that is written at once


def catalog_of_export(catalog: Catalog, root: Path, folder: Path) -> Catalog:
    """The catalog whose products are made of the export that data.products names: written once below `folder`.

    Raises ValueError for an export of another layout, and when more rows than data.max_bad cannot be used.
    """
    assert catalog.products is not None and catalog.layout is not None  # check_catalog
    layout = LAYOUTS[catalog.layout]
    files = locate_table(catalog.products, root=root, setting="data.products", copies=folder / "tables")
    reading = [catalog.encoding, catalog.delimiter, catalog.quote, catalog.missing]
    settings = [_RULES, layout.name, *reading, catalog.max_bad]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for file in files:
        with open(file, "rb") as source:
            add_file(digest, source)
    target = folder / f"{catalog.name}-{layout.name}-{digest.hexdigest()[:12]}"
    products = target / "products.parquet"
    if not is_whole(products):
        with locked(folder / f".{target.name}.lock", waiting_for=f"{target} to be translated"):
            if not is_whole(products):
                shutil.rmtree(target, ignore_errors=True)
                _translate(catalog, layout, files, target)
    _say_what_it_became(target)
    images = root / Path(catalog.image_root).expanduser() if catalog.image_root else files[0].parent
    return replace(catalog, products=str(products), layout=None, image_root=str(images))


def _translate(catalog: Catalog, layout: Layout, files: list[Path], target: Path) -> None:
    report_at = target.parent / f"{target.name}.quarantine.csv"
    for left in target.parent.glob(f".{target.name}.*.partial"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    unfinished = target.parent / f".{target.name}.{os.getpid()}.partial"
    unfinished.mkdir()
    name = str(catalog.products)
    try:
        listed = Quarantine(unfinished / "quarantine.csv", max_bad=catalog.max_bad, report_at=report_at)
        with listed as quarantine:
            export = open_export(catalog, layout, files, quarantine)
            count = _write(layout, export, unfinished / "products.parquet")
            quarantine.check(name)
        if not count:
            raise ValueError(f"{name} has no product that the layout {layout.name} finds: {layout.description}.")
        rows = quarantine.rows[name]
        lines = [f"{name}: {rows:,} rows of {layout.description} are {count:,} products."]
        if bad := quarantine.bad(name):
            reasons = ", ".join(f"{reason} {number:,}" for reason, number in quarantine.reasons[name].most_common(5))
            lines.append(f"  left out {bad:,}: {reasons}; see {target / 'quarantine.csv'}.")
        lines += [f"  {note}." for note in export.notes]
        about = {"rows": rows, "products": count, "bad_rows": bad, "lines": lines}
        write_about(unfinished / "products.parquet", about)
        os.rename(unfinished, target)
    except BaseException:
        if (unfinished / "quarantine.csv").exists():
            os.replace(unfinished / "quarantine.csv", report_at)
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    report_at.unlink(missing_ok=True)


@cache  # a command may open its catalog more than once
def _say_what_it_became(target: Path) -> None:
    for line in json.loads((target / "about.json").read_text(encoding="utf-8")).get("lines", []):
        logger.info(line)


def open_export(catalog: Catalog, layout: Layout, files: list[Path], quarantine: Quarantine) -> Export:
    """Raises ValueError, in a sentence, for files that are no such export."""
    name = str(catalog.products)
    roots = {root_of(file) for file in files} - {None}
    if roots and not layout.roots:
        raise ValueError(f"data.layout is {layout.name}, but {name} is XML: expected {layout.description}.")
    if roots:
        rows = partial(_feed_rows, name, layout, files, quarantine)
    else:
        reading = replace(Reading.of(catalog), html=frozenset())  # which names columns of what is made of it
        table = Table(name, readable(files, "data.products"), reading)
        if not layout.knows(table.columns):
            lacking = min((known - set(layout.columns(table.columns).values()) for known in layout.known_by), key=len)
            raise ValueError(
                f"data.layout is {layout.name}, but {name} is not {layout.description}: it has no column "
                f"{', '.join(sorted(lacking))}. Its columns: {', '.join(table.columns[:40])}."
            )
        rows = partial(_table_rows, table, layout, quarantine)

    def refuse(row: Row, identifier: str, reason: str, detail: str) -> None:
        quarantine.add(name, row.file, row.number, identifier, Bad(reason, detail))

    return Export(rows, refuse)


def _table_rows(table: Table, layout: Layout, quarantine: Quarantine) -> Iterator[Row]:
    names = {column: name for column, name in layout.columns(table.columns).items() if name in layout.reads}
    count = 0
    for block in table.blocks(names):
        count += len(block.number) + len(block.bad)
        quarantine.rows[table.name] = max(count, quarantine.rows[table.name])
        for number, reason, detail in block.bad:
            quarantine.add(table.name, block.file, number, None, Bad(reason, detail))
        columns = [block.columns[name] for name in names]
        for number, *cells in zip(block.number, *columns, strict=True):
            texts = {
                name: text
                for name, cell in zip(names.values(), cells, strict=True)
                if isinstance(cell, str) and (text := cell.strip())
            }
            yield Row(texts, block.file, number)


def _feed_rows(name: str, layout: Layout, files: list[Path], quarantine: Quarantine) -> Iterator[Row]:
    count = 0
    for file in files:
        for number, cells in read_items(file):
            count += 1
            quarantine.rows[name] = max(count, quarantine.rows[name])
            yield Row({to: cells[column] for column, to in layout.columns(cells).items()}, file, number)


def _write(layout: Layout, export: Export, path: Path) -> int:
    """Returns the number of products."""
    columns = [*COLUMNS, *layout.more(export)]
    kinds = {name: pa.list_(pa.string()) if name == "image" else pa.string() for name in columns}
    schema = pa.schema(list(kinds.items()))
    count, rows = 0, []
    with parquet.ParquetWriter(path, schema, compression="zstd") as target:
        for product, _ in layout.translate(export):
            rows.append(product)
            count += 1
            if len(rows) == _ROWS:
                target.write_table(_table(rows, schema))
                rows = []
        if rows:
            target.write_table(_table(rows, schema))
    return count


def _table(rows: list[Product], schema: pa.Schema) -> pa.Table:
    """Empty texts and lists are null."""
    return pa.table({name: pa.array([row.get(name) or None for row in rows], schema.field(name).type)
                     for name in schema.names}, schema=schema)  # fmt: skip
