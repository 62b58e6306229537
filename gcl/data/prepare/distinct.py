"""Table rows of one side -> distinct records, each checked and written once; every row learns its record's number."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import NamedTuple, cast

from gcl.data.images import check_image
from gcl.data.masked import masked
from gcl.data.prepare.bad_images import Checked, ImageList, Lost
from gcl.data.prepare.copies import text_number
from gcl.data.prepare.earlier import EarlierRecords
from gcl.data.prepare.rows import Row
from gcl.data.store.key_table import KEY_BYTES, KeyTable, Packed, RowOf
from gcl.data.store.records import MOST_IMAGES, MOST_TEXT, Record
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.tables.images import Cells, image_cells, read_image, taken
from gcl.data.tables.quarantine import Bad, too_long
from gcl.schema import Field, Modality, SideName, fields_of

EMPTY = "empty record"
"""The reason of a row without any value."""
_PLACE = Struct("<iq")  # of a file among those seen, and of the row in it
_AHEAD = 16  # rows a thread may be ahead of the writer: bounds the image bytes in memory


class Conflict(NamedTuple):
    """An identifier that two rows bring with different content: (file, row) of both."""

    identifier: str
    first: tuple[Path, int]
    second: tuple[Path, int]

    def __str__(self) -> str:
        (file, row), (other, again) = self.first, self.second
        return f"{self.identifier!r} ({file.name} row {row} and {other.name} row {again})"


_Known = Checked | Bad | int  # what is known of a row: its record, why it has none, or the number of its record


def record_key(record: Cells) -> bytes:
    """16 bytes by which equal records are recognised, whatever order their fields are named in. A set of one image is
    that image."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for name in sorted(record):
        value = record[name]
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None:
                data = one.encode() if isinstance(one, str) else one
                kind = "text" if isinstance(one, str) else "bytes"
                digest.update(f"{len(name)},{name},{kind},{len(data)},".encode())
                digest.update(data)
    return digest.digest()


@dataclass(frozen=True)
class RecordCheck:
    """Makes records of the cells of one side. max_pixels, image_side: of data.max_image_pixels and data.store.
    download: reads the image behind a URL. where: how messages call the side."""

    side: Mapping[str, Field]
    max_pixels: int
    image_side: int | None
    download: Callable[[str], bytes | Bad] | None = None
    where: str = "data.document"

    @property
    def has_image(self) -> bool:
        """Whether records of the side may have images."""
        return bool(fields_of(self.side, Modality.image))

    def __call__(self, cells: Cells, folder: Path) -> Checked:
        """The record to store with its key (of the images as they were before shrinking). `folder`: what relative
        paths start from."""
        record: Record = {}
        original, lost = dict(cells), []
        for name, spec in self.side.items():
            cell = cells.get(name)
            if spec.modality is Modality.text or cell is None or cell == ():
                record[name] = cast("str | None", cell or None)
                continue
            named = cell if isinstance(cell, tuple) else image_cells([cell], spec)
            images, bad = self._images(taken(named, spec), folder, f"{self.where}.{name}")
            lost += [Lost(name, one) for one in bad]
            record[name] = original[name] = None
            if images:
                stored, data = zip(*images, strict=True)
                record[name], original[name] = (stored, data) if spec.is_set else (stored[0], data[0])
        return Checked(record, record_key(original), tuple(lost))

    def _images(
        self, cells: Sequence[str | bytes], folder: Path, setting: str
    ) -> tuple[list[tuple[bytes, bytes]], list[Bad]]:
        """Of each usable image what is stored and what was read, and why there are no others."""
        images, bad = [], []
        for cell in cells[:MOST_IMAGES]:
            data = read_image(cell, folder, self.download, setting)
            stored = (
                data if isinstance(data, Bad) else check_image(data, max_pixels=self.max_pixels, side=self.image_side)
            )
            if isinstance(stored, Bad):
                bad.append(stored if stored is data else _named(stored, cell))
            else:
                images.append((stored, cast("bytes", data)))
        if len(cells) > MOST_IMAGES:
            bad.append(Bad("too many images", f"it has {len(cells)}; the first {MOST_IMAGES} are taken"))
        return images, bad


def _named(bad: Bad, cell: str | bytes) -> Bad:
    """With the path or URL of the image that was read."""
    return bad if isinstance(cell, bytes) else Bad(bad.reason, f"{masked(cell)}: {bad.detail}")


def raw_key(cells: Cells, folder: Path) -> bytes:
    """Equal for rows of which nothing has to be read twice: their cells, and where these point from."""
    return _from_folder(record_key(cells), folder)


def _from_folder(key: bytes, folder: Path) -> bytes:
    return hashlib.blake2b(key + str(folder).encode("utf-8", "surrogateescape"), digest_size=KEY_BYTES).digest()


class Earlier(NamedTuple):
    """What an earlier, interrupted or divided run found out about rows, by their raw keys; see parts.py."""

    known: Callable[[bytes], Checked | None] = lambda _: None
    """What was found out, if anything."""

    keep: Callable[[bytes, Checked], None] = lambda *_: None
    """Told what is found out now."""

    records: EarlierRecords | None = None
    """Those of an earlier prepared folder, where records have images."""


class _RowKeys(NamedTuple):
    """Of a row: see `raw_key` and `EarlierRecords.state`."""

    raw: bytes
    state: bytes = b""


class Workers(NamedTuple):
    """Threads that check images."""

    pool: Executor
    threads: int


class Collector:
    """The distinct records of one side, written as they come. Rows count from 0 in the order of first sight.

    Where a row brings an identifier, that is its identity: the same one again with equal content is merged and
    counted in `merged`, with other content it is a conflict (see `check_conflicts`). Without, equal content is.

    1. `collect` pulls rows from a table and looks each of them up: by identifier, and by raw key (its cells)
    2. a row that nothing is known of has its images read and checked by a thread, up to `_AHEAD` rows per thread ahead
    3. in the order of the rows, each is settled: refused, merged, or written and remembered; only then is it yielded
    """

    def __init__(
        self,
        writer: ShardWriter,
        check: RecordCheck,
        *,
        side: SideName,
        by_content: bool,
        image_root: Path | None,
        images: ImageList,
        earlier: Earlier,
        workers: Workers,
    ):
        """`image_root`: what relative image paths start from; None: the folder of the row's table. `by_content`:
        rows without identifier may come; what they are found by is kept in memory. `images`: says what becomes of
        records whose images cannot be used.

        What is kept of records for this lies in temporary files, see key_table.py."""
        self._writer, self._check, self.side, self._by_content = writer, check, side, by_content
        self.what = {"document": "product", "query": "query"}[side]  # as messages call it
        self._images, self._earlier = images, earlier
        self._folder = lru_cache(maxsize=16)(lambda file: image_root or file.parent)
        self._pool, self._ahead = workers.pool, _AHEAD * workers.threads
        self._has_image = check.has_image
        self.row_of = RowOf()  # of identifiers that rows brought
        self.merged = 0
        self.failed: set[str] = set()  # identifiers of which a row was bad
        self._text_fields = fields_of(check.side, Modality.text)
        self._texts = Packed(8)
        self._key = Packed()
        self._raw_key = Packed() if self._has_image else self._key
        self._seen_at: list[Path] = []  # the files, and below which file and row a record was first seen at
        self._place_of = Packed(_PLACE.size)
        self._by_key = KeyTable()
        self._by_raw = KeyTable() if self._has_image else self._by_key
        self._bad: dict[bytes, Bad] = {}  # by raw key
        self._conflicts: list[Conflict] = []
        self._conflict_count = 0

    def __len__(self) -> int:
        return len(self._place_of)

    @property
    def keys(self) -> Packed:
        """What each record is recognised by."""
        return self._key

    def find(self, cells: Cells, file: Path) -> int | Bad | None:
        """The number of a record without identifier (or why it was refused), None for one never seen."""
        raw = self._raw(cells, file)
        return self._bad.get(raw) or self._by_raw.get(raw)

    def forget_contents(self) -> None:
        """Frees what rows are recognised by, once no more of them come; `keys` that were taken before stay."""
        self._by_key = self._by_raw = KeyTable()
        self._key = self._raw_key = Packed()
        self._bad.clear()

    def collect(self, rows: Iterable[Row], *, namespace: str = "") -> Iterator[tuple[Row, int | Bad]]:
        """Yields each row with its record's number or with why it is bad, in order.

        `namespace`: put before an identifier that an earlier table already gave to something else.
        """
        start = len(self)
        waiting: deque[tuple[Row, _RowKeys, _Known | Future]] = deque()
        for row in rows:
            keys = self._keys_of(row)
            waiting.append((row, keys, self._look_up(row, keys)))
            while waiting and (len(waiting) > self._ahead or not isinstance(waiting[0][2], Future)):
                yield self._settle(*waiting.popleft(), start, namespace)
        while waiting:
            yield self._settle(*waiting.popleft(), start, namespace)

    def _raw(self, cells: Cells, file: Path) -> bytes:
        return raw_key(cells, self._folder(file)) if self._has_image else record_key(cells)

    def _keys_of(self, row: Row) -> _RowKeys:
        key = record_key(row.cells)
        if not self._has_image:
            return _RowKeys(key)
        folder, records = self._folder(row.file), self._earlier.records
        return _RowKeys(_from_folder(key, folder), records.state(key, row.cells, folder) if records else b"")

    def _look_up(self, row: Row, keys: _RowKeys) -> _Known | Future:
        """What is known of a row at once; a Future where images have to be read."""
        raw, records = keys.raw, self._earlier.records
        if not any(row.cells.values()):
            return Bad(EMPTY, f"no value in {', '.join(row.cells)}")
        for name, cell in row.cells.items():
            if isinstance(cell, str) and len(cell) > MOST_TEXT:
                return too_long(len(cell), name)
        if row.identifier is not None:
            known = self.row_of.get(row.identifier)
            if known is not None and self._raw_key[known] == raw:
                return known
        if (bad := self._bad.get(raw)) is not None:
            return bad
        if row.identifier is None and (same := self._by_raw.get(raw)) is not None:
            return same
        if not self._has_image:
            return Checked(cast("Record", row.cells), raw)
        if (earlier := self._earlier.known(raw)) is not None:
            return earlier
        if records is not None and (before := records.known(keys.state, row.cells)) is not None:
            return before
        return self._pool.submit(self._check, row.cells, self._folder(row.file))

    def _settle(
        self, row: Row, keys: _RowKeys, pending: _Known | Future, start: int, namespace: str
    ) -> tuple[Row, int | Bad]:
        raw = keys.raw
        known: _Known = pending.result() if isinstance(pending, Future) else pending
        if isinstance(pending, Future) and isinstance(known, Checked):
            self._earlier.keep(raw, known)
        if isinstance(known, Checked) and known.lost and (bad := self._images.judge(row, known)) is not None:
            if raw not in self._bad:
                self._images.note(self.side, self._check.side, row, known, None)
            known = bad
        if isinstance(known, Bad):
            if known.reason != EMPTY:
                self._bad[raw] = known
            if row.identifier is not None:
                self.failed.add(row.identifier)
            return row, known
        if isinstance(known, int):
            self.merged += 1
            return row, known
        return row, self._place(row, keys, known, start, namespace)

    def _place(self, row: Row, keys: _RowKeys, checked: Checked, start: int, namespace: str) -> int:
        identifier, raw = row.identifier, keys.raw
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
            name = checked.key.hex() if identifier is None else identifier
            known = self._writer.write(name, checked.record, checked.hashes)
            self._remember(row, raw, checked.key)
            if self._earlier.records is not None:
                self._earlier.records.note(keys.state, checked)
            if self._has_image:
                self._images.note(self.side, self._check.side, row, checked, known)
            if identifier is not None:
                self.row_of.add(identifier, known)
            if self._by_content:
                self._by_key.add(checked.key, known)
        else:
            self.merged += 1
        if row.identifier is None:
            self._by_raw.add(raw, known)
        return known

    def seen_at(self, number: int) -> tuple[Path, int]:
        """File and row in which a record was first seen."""
        file, row = _PLACE.unpack(self._place_of[number])
        return self._seen_at[file], row

    @property
    def texts(self) -> Packed:
        """8 bytes for all texts of each record, see `text_number`."""
        return self._texts

    def _remember(self, row: Row, raw: bytes, key: bytes) -> None:
        self._key.append(key)
        texts = cast("list[str | None]", [row.cells[name] for name in self._text_fields])
        self._texts.append(text_number(texts).to_bytes(8, "little"))
        if self._has_image:
            self._raw_key.append(raw)
        if not self._seen_at or self._seen_at[-1] is not row.file:
            self._seen_at.append(row.file)
        self._place_of.append(_PLACE.pack(len(self._seen_at) - 1, row.number))

    def _conflict(self, row: Row, known: int) -> None:
        self._conflict_count += 1
        if len(self._conflicts) < 5:
            self._conflicts.append(Conflict(row.identifier or "", self.seen_at(known), (row.file, row.number)))

    def check_conflicts(
        self, setting: str, *, differences: Callable[[list[Conflict]], list[str]] | None = None, advice: str = ""
    ) -> None:
        """Raises ValueError when records of different content had one identifier. differences: says of each conflict
        what differs. advice: a further way out."""
        if self._conflicts:
            said = differences(self._conflicts) if differences else []
            shown = [f"{one}: {said[place]}" if said else str(one) for place, one in enumerate(self._conflicts)]
            raise ValueError(
                f"A {self.what} id is repeated with other content, {self._conflict_count:,} times, for example "
                f"{', '.join(shown)}. An id ({setting}) must name one {self.what}: keep one row of "
                f"each, or name a column that tells them apart{advice}."
            )
