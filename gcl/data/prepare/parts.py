"""The heavy work of `prepare`, done in n pieces or kept from an interrupted run; `prepare` then takes it from there.

A piece reads, downloads, decodes and shrinks the images of its share of the rows (of products, and of queries that have
images) and keeps the records it made; that is where the time of a large catalog goes. `prepare` afterwards takes these
instead of looking again; it reads the tables, and writes shards, pairs and tasks, alone. A share is chosen by a hash of
the row's cells, so pieces never overlap, whatever order or machine they run in. A row of no piece is checked by
`prepare` itself: pieces that were never run, or were cut short, cost time and nothing else.

1. `write_part` does one piece; its folder counts when lost.json is in it, which is written last
2. `KeptWork`: `prepare` itself keeps what it shrinks in the form of such pieces, so that an interrupted run resumes
   with them. They are removed when the catalog is prepared; until then such images are on the disk twice
3. `CheckedParts`: what all finished pieces know, by a row's raw key
"""

from __future__ import annotations

import json
import shutil
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from gcl.data.catalog import Catalog
from gcl.data.prepare.bad_images import Checked, Lost
from gcl.data.prepare.distinct import RecordCheck, raw_key, record_key
from gcl.data.prepare.earlier import EarlierRecords
from gcl.data.prepare.rows import image_columns, plain_lines
from gcl.data.prepare.sources import Sources, open_sources
from gcl.data.store.key_table import KEY_BYTES, KeyTable
from gcl.data.store.prepared import PREFIX
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.data.tables.download import NOT_DOWNLOADED, Downloads
from gcl.data.tables.images import Cells, is_one_url, taken
from gcl.data.tables.quarantine import Bad
from gcl.data.tables.table import Table
from gcl.files.atomic import write_text
from gcl.files.lock import locked
from gcl.files.progress import counted
from gcl.schema import Field, Modality, SideName

_DONE = "lost.json"  # written last
_KEEP_SECONDS = 30.0  # of work that a kill may cost ...
_KEEP_SHARE = 0.05  # ... or this share of all work so far: days of it must not end in thousands of open files
_KEEP_SHARD_BYTES = 512 << 20


@dataclass(frozen=True)
class Part:
    """The number-th of `count` pieces, from 1."""

    number: int
    count: int

    def holds(self, raw: bytes) -> bool:
        """Whether the row with this raw key is one of the piece's."""
        return int.from_bytes(raw[:8], "big") % self.count == self.number - 1

    def folder(self, place: Path) -> Path:
        """Where it is kept."""
        return place / f"{self.number}-of-{self.count}"

    def is_done(self, place: Path) -> bool:
        return (self.folder(place) / _DONE).exists()


def parse_part(text: str) -> Part:
    """
    >>> parse_part("2/8")
    Part(number=2, count=8)
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"part={text}: write part=1/8 … part=8/8, each once.")
    return Part(int(number), int(count))


def write_part(
    catalog: Catalog,
    sources: Sources,
    folder: Path,
    part: Part,
    *,
    downloads: Path,
    progress: bool,
    earlier: Path | None = None,
) -> Path:
    """Checks the images of one piece, below `folder`; does nothing when that is done. Returns the piece's folder.
    earlier: a folder that was prepared of an earlier state of the tables: the rows that it has are passed over, since
    `prepare` takes them from there."""
    target = part.folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{target.name}.lock", waiting_for=f"{target} to be checked"):
        if part.is_done(folder):
            return target
        shutil.rmtree(target, ignore_errors=True)  # a piece that was cut short
        target.mkdir()
        cache = Downloads(catalog.download, downloads)
        label = f"{catalog.name}, part {part.number}"
        cache.fetch_shown(
            lambda: _urls(catalog, sources, part),
            f"{label}: downloading images",
            shown=progress,
        )
        lost = {}
        with ThreadPoolExecutor(catalog.store.workers) as pool:
            for name, side in _sides(catalog).items():
                check = RecordCheck(
                    side, catalog.max_image_pixels, catalog.store.image_side, cache.read, f"data.{name}"
                )
                before = EarlierRecords(catalog, name, downloads=cache, earlier=earlier, target=None)
                with ShardWriter(target, PREFIX[name], side=side, shard_bytes=catalog.store.shard_bytes) as writer:
                    rows = counted(
                        (row for row in _rows(catalog, sources, part, name) if not _knows(before, row)),
                        f"{label}: checking {PREFIX[name]}",
                        shown=progress,
                        total=partial(_expected_rows, catalog, sources, part, name),
                    )
                    while block := list(islice(rows, 16 * catalog.store.workers)):
                        results = pool.map(lambda row, check=check: check(row.cells, row.folder), block)
                        for row, result in zip(block, results, strict=True):
                            if any(bad.reason == NOT_DOWNLOADED for _, bad in result.lost):
                                continue  # that is worth another try
                            if any(result.record.values()):
                                writer.write(row.raw.hex() + result.key.hex(), result.record)
                            if result.lost:
                                lost[row.raw.hex()] = [(field, *bad) for field, bad in result.lost]
        finish_piece(target, lost)
    return target


def write_piece(catalog: Catalog, root: Path, folder: Path, place: Path, earlier: Path | None, part: Part) -> Path:
    """`write_part` in another process: the tables are opened there. catalog, root, folder: as `opened_catalog` gives
    them. place: where the pieces are."""
    sources = open_sources(catalog, root, copies=folder / "tables")
    return write_part(catalog, sources, place, part, downloads=folder / "downloads", earlier=earlier, progress=False)


def has_pieces(catalog: Catalog) -> bool:
    """Whether there is heavy work to divide: images in tables."""
    return not catalog.shards and bool(_sides(catalog))


def finish_piece(folder: Path, lost: Mapping[str, list[tuple[str, str, str]]]) -> None:
    """Marks a piece as whole. lost: (field, reason, detail) of images that cannot be used, by their row's raw key in
    hex."""
    write_text(folder / _DONE, json.dumps(lost))


def _sides(catalog: Catalog) -> dict[SideName, dict[str, Field]]:
    """Sides that have images."""
    sides: dict[SideName, dict[str, Field]] = {"document": catalog.document, "query": catalog.query}
    return {name: side for name, side in sides.items() if image_columns(side)}


class _PieceRow(NamedTuple):
    raw: bytes
    folder: Path  # what relative paths of its images start from
    cells: Cells


def _rows(catalog: Catalog, sources: Sources, part: Part, name: SideName) -> Iterator[_PieceRow]:
    """Each different row of the piece, of one side."""
    seen = KeyTable()
    for table, side in _tables(catalog, sources, name):
        for line in plain_lines(table, side):
            folder, cells = sources.image_root or line.file.parent, line.record(side)
            raw = raw_key(cells, folder)
            if part.holds(raw) and seen.get(raw) is None and any(cells.values()):
                seen.add(raw, 0)
                yield _PieceRow(raw, folder, cells)


def _knows(before: EarlierRecords, row: _PieceRow) -> bool:
    state = before.state(record_key(row.cells), row.cells, row.folder)
    return before.find(state, row.cells) is not None


def _tables(catalog: Catalog, sources: Sources, side: SideName) -> list[tuple[Table, Mapping[str, Field]]]:
    (documents, *queries) = sources.sides(catalog)
    return [documents] if side == "document" else queries


def _expected_rows(catalog: Catalog, sources: Sources, part: Part, side: SideName) -> int | None:
    """About how many rows the piece has of a side, once all of its tables have been begun."""
    rows = [table.expected_rows() for table, _ in _tables(catalog, sources, side)]
    return None if None in rows else sum(map(int, filter(None, rows))) // part.count


def _urls(catalog: Catalog, sources: Sources, part: Part) -> Iterator[str]:
    for name, side in _sides(catalog).items():
        for row in _rows(catalog, sources, part, name):
            for field, spec in side.items():
                if spec.modality is Modality.image and isinstance(images := row.cells[field], tuple):
                    yield from filter(is_one_url, taken(images, spec))


class CheckedParts:
    """What finished pieces know of one side's rows."""

    def __init__(self, folder: Path, name: str, side: dict[str, Field]) -> None:
        self._stores: list[RecordStore] = []
        self._start = [0]  # rows of all stores count through
        self._row = KeyTable()
        self._side = side
        self._lost: dict[bytes, tuple[Lost, ...]] = {}
        for done in sorted(folder.glob(f"*/{_DONE}")):
            if not (done.parent / f"{name}.parquet").exists():
                continue
            store = RecordStore(done.parent, name, side)
            for row, identifier in enumerate(store.ids, self._start[-1]):
                self._row.add(bytes.fromhex(identifier)[:KEY_BYTES], row)
            self._stores.append(store)
            self._start.append(self._start[-1] + len(store))
            for raw, images in json.loads(done.read_text(encoding="utf-8")).items():
                self._lost[bytes.fromhex(raw)] = tuple(Lost(field, Bad(*why)) for field, *why in images)

    def __call__(self, raw: bytes) -> Checked | None:
        row, lost = self._row.get(raw), self._lost.get(raw, ())
        if row is None:  # never seen, or without a value that could be stored
            return Checked(dict.fromkeys(self._side), b"", lost) if lost else None
        number = bisect_right(self._start, row) - 1
        store, own = self._stores[number], row - self._start[number]
        return Checked(store[own], bytes.fromhex(store.ids[own])[KEY_BYTES:], lost)


class KeptWork:
    """A context manager; called with a row's raw key and its checked record, it keeps them."""

    def __init__(self, folder: Path, prefix: str, side: Mapping[str, Field]) -> None:
        self.folder, self.prefix, self.side = folder, prefix, side
        self._writer: ShardWriter | None = None
        self._seen: set[bytes] = set()
        self._start = time.monotonic()

    def __enter__(self) -> KeptWork:
        return self

    def __call__(self, raw: bytes, checked: Checked) -> None:
        if checked.lost:
            return  # an image may be there when the run goes on
        if self._writer is None:
            self._place = self.folder / f"kept-{self.prefix}-{time.time_ns()}"
            self._place.mkdir(parents=True)
            self._writer = ShardWriter(
                self._place, self.prefix, side=self.side, shard_bytes=_KEEP_SHARD_BYTES
            ).__enter__()
            self._begun = time.monotonic()
            self._seen.clear()
        if raw not in self._seen:
            self._seen.add(raw)
            self._writer.write(raw.hex() + checked.key.hex(), checked.record)
        now = time.monotonic()
        if now - self._begun >= max(_KEEP_SECONDS, _KEEP_SHARE * (now - self._start)):
            self._finish()

    def _finish(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.__exit__(None, None, None)
            finish_piece(self._place, {})

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        else:
            with suppress(OSError):  # the disk is full, say: what interrupts is told, and older pieces are whole
                self._finish()
