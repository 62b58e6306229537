"""Preparing in n pieces, on one machine after another or on several at once over one folder.

A piece reads, downloads, decodes and shrinks the pictures of its share of the rows (of products, and of queries that
have pictures) and keeps the records it made; that is where the time of a large catalog goes. `prepare` afterwards takes
these instead of looking again; it reads the tables, and writes shards, pairs and tasks, alone. A share is chosen by a
hash of the row's cells, so pieces never overlap, whatever order or machine they run in. A row of no piece is checked by
`prepare` itself: pieces that were never run, or were cut short, cost time and nothing else.
"""

from __future__ import annotations

import json
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from gcl.data.catalog import Catalog
from gcl.data.prepare.distinct import Checked, check_record, raw_key
from gcl.data.prepare.sources import Sources, column
from gcl.data.store.key_table import KEY_BYTES, KeyTable
from gcl.data.store.records import Record
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.data.tables.download import NOT_DOWNLOADED, Downloads
from gcl.data.tables.images import is_url, own_pixel_limit
from gcl.data.tables.quarantine import Bad
from gcl.data.tables.table import Table
from gcl.files.atomic import write_text
from gcl.files.lock import locked
from gcl.files.progress import counted
from gcl.schema import Field, Modality

_DONE = "refused.json"  # written last


class Part(NamedTuple):
    """The number-th of `count` pieces, from 1."""

    number: int
    count: int

    def holds(self, raw: bytes) -> bool:
        return int.from_bytes(raw[:8], "big") % self.count == self.number - 1


def parse_part(text: str) -> Part:
    """
    >>> parse_part("2/8")
    Part(number=2, count=8)
    """
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise ValueError(f"part={text}: write part=1/8 … part=8/8, each once.")
    return Part(int(number), int(count))


def write_part(
    catalog: Catalog, sources: Sources, folder: Path, part: Part, *, downloads: Path, progress: bool
) -> Path:
    """Checks the pictures of one piece, below `folder`; does nothing when that is done. Returns the piece's folder."""
    target = folder / f"{part.number}-of-{part.count}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{target.name}.lock", waiting_for=f"{target} to be checked"):
        if (target / _DONE).exists():
            return target
        shutil.rmtree(target, ignore_errors=True)  # a piece that was cut short
        target.mkdir()
        cache = Downloads(catalog.download, downloads)
        urls = (cell for *_, cells in _rows(catalog, sources, part) for cell in cells.values() if _is_url(cell))
        for _ in counted(cache.fetch_all(urls), f"{catalog.name}: downloads, part {part.number}", shown=progress):
            pass
        refused = {}
        with own_pixel_limit(), ThreadPoolExecutor(catalog.store.workers) as pool:
            for name, side in _sides(catalog).items():
                with ShardWriter(target, name, side=side, shard_bytes=catalog.store.shard_bytes) as writer:
                    check = partial(_checked, catalog, side, cache)
                    rows = counted(
                        (row for row in _rows(catalog, sources, part) if row[0] == name),
                        f"{catalog.name}: {name}, part {part.number}",
                        shown=progress,
                    )
                    ahead = 16 * catalog.store.workers
                    while block := list(islice(rows, ahead)):
                        for raw, found in pool.map(check, block):
                            if isinstance(found, Bad):
                                if found.reason != NOT_DOWNLOADED:  # worth another try
                                    refused[raw.hex()] = found
                            else:
                                writer.write(raw.hex() + found.key.hex(), found.record)
        finish_piece(target, refused)
    return target


def finish_piece(folder: Path, refused: Mapping[str, Bad]) -> None:
    """Marks a piece as whole. refused: rows that cannot be used, by raw key in hex."""
    write_text(folder / _DONE, json.dumps(refused))


def _checked(catalog: Catalog, side: dict[str, Field], cache: Downloads, row: tuple) -> tuple[bytes, Checked | Bad]:
    _, raw, folder, cells = row
    limits = {"max_pixels": catalog.max_image_pixels, "image_side": catalog.store.image_side}
    return raw, check_record(cells, side=side, folder=folder, download=cache.read, **limits)


def _sides(catalog: Catalog) -> dict[str, dict[str, Field]]:
    """Sides that have pictures."""
    sides = {"documents": catalog.document, "queries": catalog.query}
    return {
        name: side for name, side in sides.items() if any(spec.modality is Modality.image for spec in side.values())
    }


def _rows(catalog: Catalog, sources: Sources, part: Part) -> Iterator[tuple[str, bytes, Path, Record]]:
    """(side, raw key, folder of the pictures, cells) of each different row of the piece."""
    tables = {"documents": [sources.documents], "queries": [sources.pairs] if sources.pairs else []}
    tables["queries"] += [task.queries for task in sources.tasks.values()]
    for name, side in _sides(catalog).items():
        seen = KeyTable()
        for table in tables[name]:
            for folder, cells in _cells(table, side, sources.image_root):
                raw = raw_key(cells, folder)
                if part.holds(raw) and seen.get(raw) is None and any(cells.values()):
                    seen.add(raw, 0)
                    yield name, raw, folder, cells


def _cells(table: Table, side: dict[str, Field], image_root: Path | None) -> Iterator[tuple[Path, Record]]:
    columns = {name: column(name, spec) for name, spec in side.items()}
    images = [columns[name] for name, spec in side.items() if spec.modality is Modality.image]
    texts = [columns[name] for name, spec in side.items() if spec.modality is Modality.text]
    for block in table.blocks(texts, images):
        folder = image_root or block.file.parent
        for values in zip(*(block.columns[name] for name in columns.values()), strict=True):
            yield folder, dict(zip(columns, values, strict=True))


def _is_url(cell: str | bytes | None) -> bool:
    return isinstance(cell, str) and is_url(cell)


class CheckedParts:
    """What finished pieces know of one side's rows."""

    def __init__(self, folder: Path, name: str, side: dict[str, Field]) -> None:
        self._stores: list[RecordStore] = []
        self._start = [0]  # rows of all stores count through
        self._row = KeyTable()
        self._refused: dict[bytes, Bad] = {}
        for done in sorted(folder.glob(f"*/{_DONE}")):
            if not (done.parent / f"{name}.parquet").exists():
                continue
            store = RecordStore(done.parent, name, side)
            for row, identifier in enumerate(store.ids, self._start[-1]):
                self._row.add(bytes.fromhex(identifier)[:KEY_BYTES], row)
            self._stores.append(store)
            self._start.append(self._start[-1] + len(store))
            refused = json.loads(done.read_text(encoding="utf-8"))
            self._refused |= {bytes.fromhex(raw): Bad(*why) for raw, why in refused.items()}

    def __call__(self, raw: bytes) -> Checked | Bad | None:
        row = self._row.get(raw)
        if row is None:
            return self._refused.get(raw)
        number = bisect_right(self._start, row) - 1
        store, own = self._stores[number], row - self._start[number]
        return Checked(store[own], bytes.fromhex(store.ids[own])[KEY_BYTES:])
