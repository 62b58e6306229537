"""Table rows of one side -> distinct records, each checked and written once; every row learns its record's number."""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gcl.data.store.key_table import KEY_BYTES, Keys, KeyTable, RowOf
from gcl.data.store.records import MOST_TEXT, Record
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.tables.images import check_image, read_image
from gcl.data.tables.quarantine import Bad, too_long
from gcl.schema import Field, Modality

EMPTY = Bad("empty record")
_AHEAD = 16  # rows a thread may be ahead of the writer: bounds the image bytes in memory


class Row(NamedTuple):
    """One row of a table, seen from one side. `identifier` None: the content is the identity. `extra` rides along."""

    file: Path
    number: int
    identifier: str | None
    cells: Record
    extra: Any = None


class Checked(NamedTuple):
    record: Record
    key: bytes


_Found = Future | Checked | Bad | int  # a Future of Checked | Bad


def record_key(record: Mapping[str, str | bytes | None]) -> bytes:
    """16 bytes by which equal records are recognised, whatever order their fields are named in."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for name in sorted(record):
        value = record[name]
        if value is not None:
            data = value.encode() if isinstance(value, str) else value
            kind = "text" if isinstance(value, str) else "bytes"
            digest.update(f"{len(name)},{name},{kind},{len(data)},".encode())
            digest.update(data)
    return digest.digest()


def check_record(
    cells: Record,
    *,
    side: Mapping[str, Field],
    folder: Path,
    max_pixels: int,
    image_side: int | None,
    download: Callable[[str], bytes | Bad] | None = None,
) -> Checked | Bad:
    """The record to store with its key (of the images as they were before shrinking), or why there is none."""
    record, original = dict(cells), dict(cells)
    for name, spec in side.items():
        cell = cells.get(name)
        if spec.modality is Modality.text or cell is None:
            continue
        data = read_image(cell, folder, download)
        stored = data if isinstance(data, Bad) else check_image(data, max_pixels=max_pixels, side=image_side)
        if isinstance(stored, Bad):
            return Bad(stored.reason, stored.detail if len(side) == 1 else f"{name}: {stored.detail}")
        record[name], original[name] = stored, data
    return Checked(record, record_key(original))


def raw_key(cells: Record, folder: Path) -> bytes:
    """Equal for rows of which nothing has to be read twice: their cells, and where these point from."""
    return record_key(cells | {"": str(folder)})


class Collector:
    """The distinct records of one side, written as they come. Rows count from 0 in the order of first sight.

    Where a row brings an identifier, that is its identity: the same one again with equal content is merged and
    counted in `merged`, with other content it is a conflict (see `check_conflicts`). Without, equal content is.
    """

    def __init__(
        self,
        writer: ShardWriter,
        *,
        side: Mapping[str, Field],
        what: str,
        by_content: bool,
        max_pixels: int,
        image_side: int | None,
        image_root: Path | None = None,
        download: Callable[[str], bytes | Bad] | None = None,
        known: Callable[[bytes], Checked | Bad | None] | None = None,
        keep: Callable[[bytes, Checked], None] | None = None,
        pool: Executor,
        threads: int,
    ):
        """`image_root`: what relative image paths start from; None: the folder of the row's table. `by_content`:
        rows without identifier may come; what they are found by is kept in memory. `known`: what was found out about
        a row, by its raw key, before. `keep`: told what was found out now.

        In memory a record takes about 70 bytes with an identifier and 70 without (110 where images are read)."""
        self._writer, self.what, self._by_content = writer, what, by_content
        self._image_root, self._pool, self._ahead = image_root, pool, _AHEAD * threads
        self._known, self._keep = known or (lambda raw: None), keep or (lambda raw, checked: None)
        self._has_image = any(spec.modality is Modality.image for spec in side.values())
        self._check = partial(check_record, side=side, max_pixels=max_pixels, image_side=image_side, download=download)
        self.row_of = RowOf()  # of identifiers that rows brought
        self.merged = 0
        self.failed: set[str] = set()  # identifiers of which a row was bad
        self._key = bytearray()  # of row i: [16 i, 16 (i + 1))
        self._raw_key = bytearray() if self._has_image else self._key
        self._seen_at: list[Path] = []  # the files, and below which file and row a record was first seen at
        self._file, self._number = array("i"), array("q")
        self._by_key = KeyTable()
        self._by_raw = KeyTable() if self._has_image else self._by_key
        self._bad: dict[bytes, Bad] = {}  # by raw key
        self._conflicts: list[str] = []
        self._conflict_count = 0

    def __len__(self) -> int:
        return len(self._number)

    @property
    def keys(self) -> Keys:
        """What each record is recognised by."""
        return Keys(self._key)

    def find(self, cells: Record, file: Path) -> int | Bad | None:
        """The number of a record without identifier (or why it was refused), None for one never seen."""
        raw = self._raw(cells, file)
        return self._bad.get(raw) or self._by_raw.get(raw)

    def collect(self, rows: Iterable[Row], *, namespace: str = "") -> Iterator[tuple[Row, int | Bad]]:
        """Yields each row with its record's number or with why it is bad, in order.

        `namespace`: put before an identifier that an earlier table already gave to something else.
        """
        start = len(self)
        waiting: deque[tuple[Row, bytes, _Found]] = deque()
        for row in rows:
            raw = self._raw(row.cells, row.file)
            waiting.append((row, raw, self._look(row, raw)))
            while waiting and (len(waiting) > self._ahead or not isinstance(waiting[0][2], Future)):
                yield self._settle(*waiting.popleft(), start, namespace)
        while waiting:
            yield self._settle(*waiting.popleft(), start, namespace)

    def _folder(self, file: Path) -> Path:
        return self._image_root or file.parent

    def _raw(self, cells: Record, file: Path) -> bytes:
        return raw_key(cells, self._folder(file)) if self._has_image else record_key(cells)

    def _look(self, row: Row, raw: bytes) -> _Found:
        """What is known of a row at once; a Future where images have to be read."""
        if not any(row.cells.values()):
            return EMPTY
        for name, cell in row.cells.items():
            if isinstance(cell, str) and len(cell) > MOST_TEXT:
                return too_long(len(cell), name)
        if row.identifier is not None:
            known = self.row_of.get(row.identifier)
            if known is not None and self._raw_key[KEY_BYTES * known : KEY_BYTES * (known + 1)] == raw:
                return known
        if (bad := self._bad.get(raw)) is not None:
            return bad
        if row.identifier is None and (before := self._by_raw.get(raw)) is not None:
            return before
        if not self._has_image:
            return Checked(row.cells, raw)
        if (found := self._known(raw)) is not None:
            return found
        return self._pool.submit(self._check, row.cells, folder=self._folder(row.file))

    def _settle(self, row: Row, raw: bytes, found: _Found, start: int, namespace: str) -> tuple[Row, int | Bad]:
        if isinstance(found, Future):
            found = found.result()
            if isinstance(found, Checked):
                self._keep(raw, found)
        if isinstance(found, Bad):
            if found is not EMPTY:
                self._bad[raw] = found
            if row.identifier is not None:
                self.failed.add(row.identifier)
            return row, found
        if isinstance(found, int):
            self.merged += 1
            return row, found
        return row, self._place(row, raw, found, start, namespace)

    def _place(self, row: Row, raw: bytes, checked: Checked, start: int, namespace: str) -> int:
        identifier = row.identifier
        if identifier is None:
            known = self._by_key.get(checked.key)
        else:
            known = self.row_of.get(identifier)
            if known is not None and known < start and self.keys[known] != checked.key:
                identifier = f"{namespace}/{identifier}"
                known = self.row_of.get(identifier)
            if known is not None and self.keys[known] != checked.key:
                self._conflict(row, known)
        if known is None:
            known = self._writer.write(checked.key.hex() if identifier is None else identifier, checked.record)
            self._remember(row, raw, checked.key)
            if identifier is not None:
                self.row_of.add(identifier, known)
            if self._by_content:
                self._by_key.add(checked.key, known)
        else:
            self.merged += 1
        if row.identifier is None:
            self._by_raw.add(raw, known)
        return known

    def _remember(self, row: Row, raw: bytes, key: bytes) -> None:
        self._key += key
        if self._has_image:
            self._raw_key += raw
        if not self._seen_at or self._seen_at[-1] != row.file:
            self._seen_at.append(row.file)
        self._file.append(len(self._seen_at) - 1)
        self._number.append(row.number)

    def _conflict(self, row: Row, known: int) -> None:
        self._conflict_count += 1
        if len(self._conflicts) < 5:
            first = self._seen_at[self._file[known]]
            self._conflicts.append(
                f"{row.identifier!r} ({first.name} row {self._number[known]} and {row.file.name} row {row.number})"
            )

    def check_conflicts(self, setting: str) -> None:
        """Raises ValueError when one identifier stood for records of different content."""
        if self._conflicts:
            raise ValueError(
                f"A {self.what} id is repeated with other content, {self._conflict_count:,} times, for example "
                f"{', '.join(self._conflicts)}. An id ({setting}) must stand for one {self.what}: keep one row of "
                "each, or name a column that tells them apart."
            )
