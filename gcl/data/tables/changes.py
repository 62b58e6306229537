"""A table with a change feed applied to it (data.changes): rows that say of an id that it is new, changed or deleted.

Of an id that the feed names, its last change counts: where that is a deletion there is no row, else the feed's row is
the whole row. So these are the rows, streamed, in this order:

1. those of the table whose ids the feed does not name
2. those of the feed that count

The feed is read once before, for its ids, ops and order; memory holds about 60 bytes for each id that it names, and 180
more where data.changes_order is set. Rows of it that cannot be read are the table's bad rows.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from pathlib import Path

from gcl.data.catalog import Catalog
from gcl.data.store.key_table import RowOf
from gcl.data.tables.block import Block, Reading, listed
from gcl.data.tables.cells import canonical_id
from gcl.data.tables.table import Table, open_table

_ROW, _UPDATE, _DELETE, _BEFORE = range(4)  # the row as it is now, of an id that must be there, no row, as it was
_MEANS = {
    _ROW: ("c", "create", "created", "i", "insert", "inserted", "+i", "r", "read", "snapshot", "upsert", "upserted",
           "false"),
    _UPDATE: ("u", "update", "updated", "update_postimage", "update_after", "+u"),
    _DELETE: ("d", "delete", "deleted", "remove", "removed", "-d", "true"),
    _BEFORE: ("update_preimage", "update_before", "-u"),
}  # fmt: skip
_OF_DELETED = ("false", "true")  # in a column that says whether a row is deleted, and in no other
_OPS = {word: kind for kind, words in _MEANS.items() for word in words}
_COLUMNS = ("op", "__op", "_op", "operation", "_operation", "_change_type", "change_type", "row_kind", "__deleted",
            "_deleted", "_fivetran_deleted")  # fmt: skip
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(\.\d+)? ?(Z|UTC|[+-]\d\d:?\d\d)?")
_FILE = 1 << 40  # rows of a file are numbered below this


class ChangedTable(Table):
    """`table` with the changes of `feed`. identifier: the column of the id, in both. op, order: columns of the feed, as
    data.changes_op and data.changes_order have them.

    Raises ValueError or KeyError, in sentences, for a feed whose ops or order cannot be understood.
    """

    def __init__(self, table: Table, feed: Table, *, identifier: str, op: str | None, order: str | None) -> None:
        super().__init__(table.name, [*table.files, *feed.files], table.reading)
        self._table, self._feed, self._identifier = table, feed, identifier
        feed.check_columns([(identifier, "data.document_id")])
        self._op = op or _column_of_ops(feed)
        feed.check_columns([(self._op, "data.changes_op"), *([(order, "data.changes_order")] if order else [])])
        self._order = order
        self._entry = RowOf()  # of each id of the feed
        self._last = array("q")  # by entry: file and row of the change that counts
        self._kind = bytearray()  # what that is
        self._had_row = bytearray()  # whether the feed has a row of it at all
        self._in_table = bytearray()  # whether the table has, once it was read
        self._without_id: set[int] = set()
        self._unread = False  # whether the feed has rows that cannot be read
        self._decide = [identifier, self._op, *([order] if order else [])]
        self._look()

    @property
    def feed_files(self) -> dict[Path, str]:
        return dict.fromkeys(self._feed.files, self._feed.name)

    @property
    def columns(self) -> list[str]:
        """Those of the table."""
        return self._table.columns

    def expected_rows(self) -> int | None:
        return self._table.expected_rows()

    def check_columns(self, wanted: Iterable[tuple[str, str]]) -> None:
        """The feed has to have them as well, unless all that it does is to delete."""
        wanted = list(wanted)
        self._table.check_columns(wanted)
        if self._adds:
            self._feed.check_columns(wanted)

    def blocks(self, text: Iterable[str], image: Iterable[str] = ()) -> Iterator[Block]:
        text, image = list(dict.fromkeys(text)), list(dict.fromkeys(image))
        for block in self._table.blocks(dict.fromkeys([*text, self._identifier]), image):
            yield _of_columns(block.only(self._kept(block)), text, image)
        if self._adds:  # with what decides about a row: where that cannot be read, it is a bad row here as well
            for number, block in self._feed_blocks(dict.fromkeys([*text, *self._decide]), image):
                yield _of_columns(block.only(self._counting(number, block)), text, image)
        elif self._unread:
            for _, block in self._feed_blocks(self._decide, []):
                yield replace(block.only([]), columns=dict.fromkeys([*text, *image], ()), html={})

    @property
    def _adds(self) -> bool:
        return bool(self._without_id) or any(kind != _DELETE for kind in self._kind)

    def _kept(self, block: Block) -> list[int]:
        """Places of the rows whose ids the feed does not name."""
        kept = []
        for place, cell in enumerate(block.columns[self._identifier]):
            entry = self._entry.get(canonical_id(cell)) if isinstance(cell, str) else None
            if entry is None:
                kept.append(place)
            else:
                self._in_table[entry] = 1
        return kept

    def _counting(self, number: int, block: Block) -> list[int]:
        """Places of the rows that count in a block of the feed's file `number`. Those without an id become bad rows."""
        counting = []
        for place, (row, cell) in enumerate(zip(block.number, block.columns[self._identifier], strict=True)):
            code = number * _FILE + row
            if not isinstance(cell, str):
                if code in self._without_id:
                    block.bad.append((row, "no product id", f"{self._identifier}: a change without it says nothing"))
                continue
            entry = self._entry.get(canonical_id(cell))  # none: only a row as it was
            if entry is not None and self._last[entry] == code and self._kind[entry] != _DELETE:
                counting.append(place)
        return counting

    def _feed_blocks(self, text: Iterable[str], image: list[str]) -> Iterator[tuple[int, Block]]:
        """With the number of the file."""
        number = {file: place for place, file in enumerate(self._feed.files)}
        for block in self._feed.blocks(text, image):
            yield number[block.file], block

    def _look(self) -> None:
        """Finds the last change of each id."""
        unknown, times = Counter[str](), _Times(self._feed, self._order)
        for number, block in self._feed_blocks(self._decide, []):
            self._unread |= bool(block.bad)
            for row, *cells in zip(block.number, *(block.columns[name] for name in self._decide), strict=True):
                cell, op = cells[:2]
                kind = self._kind_of(op if isinstance(op, str) else "")
                if kind is None:
                    unknown[str(op or "")] += 1
                elif kind == _BEFORE:
                    continue
                elif not isinstance(cell, str):
                    self._without_id.add(number * _FILE + row)
                else:
                    entry = self._entry_of(canonical_id(cell))
                    self._had_row[entry] |= kind == _ROW
                    if times.is_last(entry, cells[2] if self._order else None, block, row):
                        self._last[entry], self._kind[entry] = number * _FILE + row, kind
        if unknown:
            raise ValueError(self._not_understood(unknown))

    def _kind_of(self, op: str) -> int | None:
        word = op.strip().lower()
        return None if word in _OF_DELETED and "deleted" not in self._op.lower() else _OPS.get(word)

    def _entry_of(self, identifier: str) -> int:
        entry = self._entry.get(identifier)
        if entry is None:
            entry = len(self._last)
            self._entry.add(identifier, entry)
            self._last.append(-1)
            for flags in (self._kind, self._had_row, self._in_table):
                flags.append(0)
        return entry

    def _not_understood(self, unknown: Counter[str]) -> str:
        said = listed(
            [f"{repr(word) if word else 'nothing'} (rows: {count:,})" for word, count in unknown.most_common()]
        )
        words = [", ".join(word for word in _MEANS[kind] if word not in _OF_DELETED) for kind in _MEANS]
        return (
            f"data.changes: the column {self._op!r} of {self._feed.name} says {said}, which is no change that gcl "
            f"knows. It knows, in any case, a row as it is now ({words[_ROW]}, {words[_UPDATE]}), a deletion "
            f"({words[_DELETE]}) and a row as it was, which is passed over ({words[_BEFORE]}). Name another column "
            "with data.changes_op, or write these words."
        )

    def deletes(self, identifier: str) -> bool:
        entry = self._entry.get(identifier)
        return entry is not None and self._kind[entry] == _DELETE

    def said(self) -> list[str]:
        """How many products are new, changed and deleted, and what the table should have had; after it was read."""
        rows, gone, strange = Counter[str](), set[int](), set[int]()
        for entry, (kind, there) in enumerate(zip(self._kind, self._in_table, strict=True)):
            if kind == _DELETE:
                rows["deleted"] += there
                if not there and not self._had_row[entry]:
                    gone.add(entry)
            else:
                rows["changed" if there else "new"] += 1
                if kind == _UPDATE and not there and not self._had_row[entry]:
                    strange.add(entry)
        counts = ", ".join(f"{rows[name]:,} {name}" for name in ("new", "changed", "deleted"))
        lines = [f"changes of {self._feed.name}: {counts}"]
        for what, so, entries in (("deletions", "", gone), ("updates", ", which count as new", strange)):
            if entries:
                lines.append(
                    f"{what} in {self._feed.name} of ids that {self.name} does not have{so}: {len(entries):,}, for "
                    f"example {self._example(entries)!r}"
                )
        return lines

    def _example(self, entries: set[int]) -> str:
        for block in self._feed.blocks([self._identifier]):
            for cell in block.columns[self._identifier]:
                if isinstance(cell, str) and self._entry.get(canonical_id(cell)) in entries:
                    return canonical_id(cell)
        return ""


def _of_columns(block: Block, text: list[str], image: list[str]) -> Block:
    """Without the columns that were read to decide about its rows."""
    for name in block.columns.keys() - {*text, *image}:
        del block.columns[name]
        block.html.pop(name, None)
    return block


class _Times:
    """Which change of an id is the later one: of the larger value in the column of the order, of equal ones the later
    row; without such a column the later row."""

    def __init__(self, feed: Table, column: str | None) -> None:
        self._feed, self._column = feed, column
        self._of: dict[int, Decimal] = {}
        self._is_time: bool | None = None

    def is_last(self, entry: int, cell: object, block: Block, row: int) -> bool:
        """Whether the change is the last one of its id so far. block, row: where it is."""
        if self._column is None:
            return True
        value, is_time = _moment(cell.strip()) if isinstance(cell, str) else (None, False)
        if value is None or (self._is_time is not None and is_time != self._is_time):
            was = {None: "", True: ", and before it times", False: ", and before it numbers"}[self._is_time]
            raise ValueError(
                f"data.changes_order: the column {self._column!r} of {self._feed.name} holds {cell or ''!r} in row "
                f"{row:,} of {block.file.name}{was}. Changes are ordered by numbers, or by times like "
                "2024-01-31T10:00:00Z; without data.changes_order the later row counts."
            )
        self._is_time = is_time
        if entry in self._of and value < self._of[entry]:
            return False
        self._of[entry] = value
        return True


def _moment(text: str) -> tuple[Decimal | None, bool]:
    """A number, or a time in seconds (UTC where it names no zone), and whether it is a time. None: neither.

    >>> _moment("12.5")[0], _moment("1970-01-01 01:00:00.5+01:00"), _moment("soon")
    (Decimal('12.5'), (Decimal('0.5'), True), (None, False))
    """
    if found := _TIME.fullmatch(text):
        day, clock, fraction, zone = found.groups()
        zone = "+00:00" if zone in (None, "Z", "UTC") else f"{zone[:3]}:{zone[-2:]}"
        try:
            seconds = datetime.fromisoformat(f"{day}T{clock}{zone}").astimezone(timezone.utc).timestamp()
        except ValueError:
            return None, False
        return int(seconds) + Decimal(f"0{fraction or '.0'}"), True
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None, False
    return (value, False) if value.is_finite() else (None, False)


def _column_of_ops(feed: Table) -> str:
    """The column that says what became of a row, by the names that tools give it."""
    known = [name for name in feed.columns if name.lower() in _COLUMNS]
    if len(known) == 1:
        return known[0]
    there = f"the columns {listed(known)}, any of which may" if known else "no column that is known to"
    others = "" if known else f" Its columns: {listed(feed.columns)}. Known are {listed(_COLUMNS)}."
    raise ValueError(
        f"data.changes: {feed.name} has {there} say whether a row is new, changed or deleted: name it with "
        f"data.changes_op.{others}"
    )


def open_products(catalog: Catalog, root: Path, copies: Path | None) -> Table | None:
    """The table data.products, with data.changes applied; None where the catalog names none."""
    if catalog.products is None:
        return None
    reading = Reading.of(catalog)
    table = open_table(catalog.products, root=root, setting="data.products", copies=copies, reading=reading)
    if catalog.changes is None:
        return table
    reading = replace(reading, envelopes=True)
    feed = open_table(catalog.changes, root=root, setting="data.changes", copies=copies, reading=reading)
    table.check_columns([(catalog.document_id, "data.document_id")])
    return ChangedTable(table, feed, identifier=catalog.document_id, op=catalog.changes_op, order=catalog.changes_order)
