"""A table's file -> what can be seen in it: how it is written, and a bounded sample of each column."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from gcl.data.catalog import BACKSLASH
from gcl.data.importers.layouts.feed import root_of
from gcl.data.importers.layouts.layout import Layout
from gcl.data.importers.layouts.registry import LAYOUTS, layout_of
from gcl.data.masked import masked
from gcl.data.tables.block import Reading
from gcl.data.tables.cells import BLANK, HTML, Cell, canonical_id, parse_number
from gcl.data.tables.formats import SUFFIXES
from gcl.data.tables.image_paths import IMAGE_NAME
from gcl.data.tables.quoting import ESCAPED
from gcl.data.tables.remote import is_remote
from gcl.data.tables.signature import check_signature
from gcl.data.tables.source import guess_encoding, open_text, suffix_of
from gcl.data.tables.table import Table

ROWS = 2000  # looked at
_MOST_COLUMNS = 300
_MOST_BYTES = 64 << 20  # of images in the cells of the sample
_LINES = 60  # from which the delimiter is guessed
_URL = re.compile(r"(https?:)?//\S+", re.I)
_HTML = re.compile(HTML)
_SEPARATORS = (",", ";", "|", " ")


@dataclass
class Column:
    """A column's sample: its cells that are there, and how many rows were looked at."""

    name: str
    cells: list[Cell]
    rows: int

    @cached_property
    def texts(self) -> list[str]:
        return [cell.strip(BLANK) for cell in self.cells if isinstance(cell, str)]

    @property
    def filled(self) -> float:
        return len(self.cells) / max(self.rows, 1)

    @cached_property
    def distinct(self) -> float:
        """Share of different values among those that are there."""
        return len(set(self.texts)) / len(self.texts) if self.texts else 0.0

    @cached_property
    def words(self) -> float:
        return sum(len(text.split()) for text in self.texts) / max(len(self.texts), 1)

    def share(self, test: Callable[[str], object]) -> float:
        return sum(bool(test(text)) for text in self.texts) / max(len(self.texts), 1)

    @cached_property
    def html(self) -> float:
        return self.share(_HTML.search)

    @cached_property
    def decimal(self) -> str | None:
        """The sign with which most cells are numbers; None: they are no numbers."""
        numbers = {sign: sum(_number(text, sign) is not None for text in self.texts) for sign in (".", ",")}
        shares = {sign: count / max(len(self.texts), 1) for sign, count in numbers.items()}
        if max(shares.values(), default=0) < 0.9:
            return None
        return "," if shares[","] > shares["."] else "."

    @cached_property
    def images(self) -> float:
        """Share of cells that are images, or name them by their suffix."""
        named = sum(_names_image(cell) for cell in self.cells)
        return named / max(len(self.cells), 1)

    @cached_property
    def urls(self) -> float:
        """Share of cells that are URLs, or begin with one."""
        first = [cell[0] if isinstance(cell, list) and cell else cell for cell in self.cells]
        return sum(isinstance(cell, str) and bool(_URL.match(cell.lstrip(BLANK + '["'))) for cell in first) / max(
            len(first), 1
        )

    @cached_property
    def several(self) -> float:
        """Share of cells with several images: lists, JSON lists, or separated ones."""
        sign = self.separator
        count = sum(
            len(cell) > 1 if isinstance(cell, list) else
            isinstance(cell, str) and ((cell.lstrip().startswith("[") and cell.count(",") > 0)
                                       or bool(sign and len(_split(cell, sign)) > 1))
            for cell in self.cells
        )  # fmt: skip
        return count / max(len(self.cells), 1)

    @cached_property
    def separator(self) -> str | None:
        """What separates the images of a cell."""
        for sign in _SEPARATORS:
            several = [parts for text in self.texts if len(parts := _split(text, sign)) > 1]
            if several and all(
                IMAGE_NAME.search(_path(part)) or _URL.fullmatch(part) for parts in several for part in parts
            ):
                return sign
        return None


def _split(text: str, sign: str) -> list[str]:
    return [part.strip() for part in text.split(sign) if part.strip()]


def _path(text: str) -> str:
    return text.split("?")[0].split("#")[0]


def _names_image(cell: Cell) -> bool:
    if isinstance(cell, list):
        return bool(cell) and all(map(_names_image, cell))
    if isinstance(cell, bytes):
        return True
    return cell is not None and bool(IMAGE_NAME.search(_path(cell.strip(BLANK).rstrip("\"'] ").rstrip())))


def _number(text: str, sign: str) -> float | None:
    return parse_number(re.sub(r"\s*([€$£%]|[A-Z]{3})\s*$|^\s*([€$£]|[A-Z]{3})\s*", "", text), sign)


@dataclass
class Looked:
    """A table that was looked at. path: as a YAML names it. whole: the sample is all of it."""

    path: str
    table: Table
    columns: dict[str, Column]
    rows: int
    whole: bool
    layout: Layout | None = None
    folder: Path | None = None
    """Where an export lies; None: where the path says."""
    notes: list[str] = field(default_factory=list)
    _keys: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return name_of(self.path)

    def keys(self, column: str) -> np.ndarray:
        """A number for each id in the column, of all rows; equal for equal ids."""
        if column not in self._keys:
            found = [_hashes(block.columns[column]) for block in self.table.blocks([column])]
            self._keys[column] = np.concatenate(found) if found else np.zeros(0, np.int64)
        return self._keys[column]

    def is_unique(self, column: str) -> bool:
        return len(np.unique(self.keys(column))) == len(self.keys(column)) > 0

    def holds(self, column: str, values: Sequence[str]) -> float:
        """Share of the values that are ids of the column."""
        wanted = _hashes(values)
        return float(np.isin(wanted, self.keys(column)).mean()) if len(wanted) else 0.0

    def contradicts(self, column: str, others: Sequence[str]) -> bool:
        """Whether an id of the column is repeated with other values in `others`."""
        seen: dict[str, int] = {}
        for block in self.table.blocks([column, *others]):
            for identifier, *cells in zip(*(block.columns[name] for name in (column, *others)), strict=True):
                if isinstance(identifier, str):
                    content = hash(tuple(str(cell) for cell in cells))
                    if seen.setdefault(canonical_id(identifier), content) != content:
                        return True
        return False


def name_of(path: str) -> str:
    """What messages call a file: of a URL, without what follows the name."""
    return Path((path.split("?")[0] if is_remote(path) else path).rstrip("/")).name


def _hashes(cells: Sequence[Cell]) -> np.ndarray:
    return np.fromiter((hash(canonical_id(cell)) for cell in cells if isinstance(cell, str)), np.int64)


def look(path: str, files: Sequence[Path], *, layout: Layout | None = None) -> Looked:
    """Raises ValueError, in a sentence, for files that are no table."""
    first = files[0]
    root = root_of(first)
    if of_root := next((known for known in LAYOUTS.values() if root in known.roots), None):
        return Looked(path, Table(path, files), {}, 0, False, layout or of_root)
    if root is not None and suffix_of(first) not in SUFFIXES:
        check_signature(first, None)
        raise ValueError(
            f"{first.name} begins with <{root}>: of XML, product feeds are read (<rss>, <feed>); export it as CSV."
        )
    reading = _reading(first)
    table = Table(masked(path), files, reading)
    names = table.columns
    layout = layout or layout_of(names)
    looked = _sample(path, table, layout)
    if reading.quote and suffix_of(first) in (".csv", ".tsv", ".txt"):
        looked = _quoted_otherwise(path, table, layout, looked)
    if len(names) > _MOST_COLUMNS:
        looked.notes.append(f"{looked.name} has {len(names):,} columns; the first {_MOST_COLUMNS} were looked at")
    return looked


def _quoted_otherwise(path: str, table: Table, layout: Layout | None, looked: Looked) -> Looked:
    """The table read with marks that backslashes escape, or without any, where that reads rows that are lost."""
    lost = Counter(
        reason for block in itertools.islice(table.blocks(table.columns[:1]), 4) for _, reason, _ in block.bad
    )
    if not lost.total():
        return looked
    escaped = Table(table.name, table.files, replace(table.reading, quote=BACKSLASH))
    if ESCAPED in lost and not any(block.bad for block in itertools.islice(escaped.blocks(escaped.columns[:1]), 4)):
        return _sample(path, escaped, layout)
    plain = Table(table.name, table.files, replace(table.reading, quote=None))
    enclosed = any(column.share(lambda text: len(text) > 1 and text[0] == text[-1] == '"') > 0.01
                   for column in _sample(path, plain, layout).columns.values())  # fmt: skip
    if enclosed or any(block.bad for block in itertools.islice(plain.blocks(plain.columns[:1]), 4)):
        return looked
    return _sample(path, plain, layout)


def _sample(path: str, table: Table, layout: Layout | None) -> Looked:
    names = list(dict.fromkeys(table.columns))[:_MOST_COLUMNS]
    while True:
        try:
            return _sampled(path, table, names, layout)
        except _Unreadable as error:
            names = [name for name in names if name not in error.names]


class _Unreadable(Exception):
    def __init__(self, names: list[str]) -> None:
        self.names = names


def _sampled(path: str, table: Table, names: list[str], layout: Layout | None) -> Looked:
    cells: dict[str, list[Cell]] = {name: [] for name in names}
    rows, size, whole = 0, 0, True
    try:
        for block in table.blocks([], names):
            nested = {
                name for _, reason, detail in block.bad if "list or object" in reason for name in detail.split(", ")
            }
            if nested & set(names):
                raise _Unreadable(list(nested))
            if rows >= ROWS or size > _MOST_BYTES:
                whole = False
                break
            for name in names:
                found = [cell for cell in block.columns[name] if cell is not None]
                cells[name] += found
                size += sum(len(cell) for cell in found if isinstance(cell, bytes))
            rows += len(block.number)
    except ValueError as error:
        refused = re.search(r"the column '([^']+)' holds", str(error))
        if refused is None or refused[1] not in names:
            raise
        raise _Unreadable([refused[1]]) from None
    return Looked(path, table, {name: Column(name, cells[name], rows) for name in names}, rows, whole, layout)


def _reading(file: Path) -> Reading:
    suffix = suffix_of(file)
    if suffix not in (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson"):
        return Reading()
    reading = Reading(encoding=guess_encoding(file))
    check_signature(file, reading.encoding)
    if suffix in (".csv", ".txt"):
        with open_text(file, reading.encoding) as source:
            lines = list(itertools.islice(source, _LINES))
        if not (lines and re.match('"?sep=.', lines[0])):  # which says it itself
            reading = replace(reading, delimiter=_delimiter(lines, "," if suffix == ".csv" else None))
    return reading


def _delimiter(lines: list[str], usual: str | None) -> str | None:
    """None: the usual one, or what a reader finds by itself."""
    fits: dict[str, float] = {}
    for sign in (",", ";", "\t", "|"):
        try:
            rows = [row for row in csv.reader(lines[:-1] or lines, delimiter=sign) if row]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width > 1:
            fits[sign] = sum(abs(len(row) - width) <= 1 for row in rows) / len(rows) + min(width, 50) / 100
    best = max(fits, key=fits.__getitem__, default=None)
    return None if best == usual or usual is None else best
