"""What every reader of tables is given and gives: how cells are written, and blocks of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute

from gcl.data.catalog import MISSING_WORDS, Catalog
from gcl.data.tables.cells import HTML, Cell, strip_html
from gcl.schema import TextForm
from gcl.table import cut

BLOCK_ROWS = 4096
BLOCK_BYTES = 8 << 20  # of a CSV; also the longest row it may have
_LONGEST_WORD = 64  # bytes, of data.missing
_MOST_NAMES = 20


@dataclass(frozen=True)
class Reading:
    """How a catalog's tables are written (data.encoding, .delimiter, .quote, .decimal, .missing). html: columns that a
    field reads as HTML; all who read the column get its text. envelopes: JSON of Debezium, {before, after, op}, is read
    as the row that it is about."""

    encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = '"'
    decimal: str = "."
    missing: tuple[str, ...] = MISSING_WORDS
    html: frozenset[str] = frozenset()
    envelopes: bool = False

    @classmethod
    def of(cls, catalog: Catalog) -> Reading:
        """As the catalog says."""
        fields = [item for side in (catalog.query, catalog.document) for item in side.items()]
        html = frozenset(spec.column or name for name, spec in fields if spec.text == TextForm.html)
        delimiter = "\t" if catalog.delimiter == "\\t" else catalog.delimiter  # as a shell or single quotes leave it
        return cls(catalog.encoding, delimiter, catalog.quote, catalog.decimal, tuple(catalog.missing), html)


@dataclass
class Block:
    """Some rows of one file. `number` is the 1-based data row; `bad` holds rows that could not be read at all.

    missing: of rows with a word for "no value" (data.missing), by place in the block: the word of each such column,
    whose cell is None. decimal: the sign that numbers in these texts are written with, see `parse_number`. html: how
    many cells of a column look like HTML and are read as plain text. place: how far in the file its reader is, in
    bytes; None: it does not say.
    """

    file: Path
    number: list[int]
    columns: dict[str, Sequence[Cell]]
    bad: list[tuple[int, str, str]] = field(default_factory=list)  # (row number, reason, detail)
    missing: dict[int, dict[str, str]] = field(default_factory=dict)
    decimal: str = "."
    html: dict[str, int] = field(default_factory=dict)
    place: int | None = None

    @classmethod
    def typed(
        cls, file: Path, number: list[int], reading: Reading, bad: list[tuple[int, str, str]] | None = None
    ) -> Block:
        """Of a format that has numbers of its own: those are written with ".", texts as `reading` says."""
        return cls(file, number, {}, bad or [], decimal="." if reading.decimal == "." else ".,")

    def only(self, places: Sequence[int]) -> Block:
        """The rows at these places, in their order, and all bad ones."""
        if len(places) == len(self.number):
            return self
        missing = {new: self.missing[old] for new, old in enumerate(places) if old in self.missing}
        columns: dict[str, Sequence[Cell]] = {
            name: [cells[place] for place in places] for name, cells in self.columns.items()
        }
        return replace(self, number=[self.number[place] for place in places], columns=columns, missing=missing)

    def add_images(self, name: str, cells: Sequence[Cell], reading: Reading) -> None:
        """A column of paths, URLs, bytes, and lists of these; what counts as missing is left out of a list."""
        words = {*reading.missing, ""}
        column: list[Cell] = []
        for place, cell in enumerate(cells):
            if isinstance(cell, list):
                cell = [part for part in cell if part and not (isinstance(part, str) and part.strip() in words)]
            elif isinstance(cell, str) and cell.strip() in words:
                if cell.strip():
                    self.missing.setdefault(place, {})[name] = cell.strip()
                cell = None
            column.append(cell or None)
        self.columns[name] = column

    def add_texts(self, name: str, values: pa.Array, reading: Reading) -> None:
        """A column of strings: HTML becomes text, and what counts as missing None."""
        if name in reading.html:
            values = pa.array([None if text is None else strip_html(text) for text in values.to_pylist()], pa.string())
        places, words = _absent(values, reading.missing)
        if len(places):
            for place, word in zip(places.tolist(), words, strict=True):
                if word:
                    self.missing.setdefault(place, {})[name] = word
            absent = np.zeros(len(values), bool)
            absent[places] = True
            values = compute.if_else(pa.array(absent), None, values)
        if name not in reading.html and (count := _html_cells(values)) > 0:
            self.html[name] = count
        self.columns[name] = values.to_pylist()


def _absent(values: pa.Array, missing: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Places of the cells that are blank or a word of `missing`, and what each of them says."""
    size = compute.binary_length(compute.ascii_trim_whitespace(values))
    longest = max(_LONGEST_WORD, *(len(word.encode()) for word in missing), 0)
    places = compute.indices_nonzero(compute.less_equal(size, longest))  # the others are not looked at closely
    bare = compute.utf8_trim_whitespace(values.take(places))
    absent = compute.is_in(bare, pa.array([*missing, ""], pa.string()))
    return places.filter(absent).to_numpy(), bare.filter(absent).to_pylist()


def _html_cells(values: pa.Array) -> int:
    """How many texts have a tag or an entity."""
    _, offsets, data = values.buffers()
    if data is None:
        return 0
    starts = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    signs = np.frombuffer(data, np.uint8)[starts[0] : starts[-1]]
    places = np.flatnonzero((signs == ord("<")) | (signs == ord("&")))
    rows = np.unique(np.searchsorted(starts, places + starts[0], side="right") - 1)
    return int(compute.sum(compute.match_substring_regex(values.take(pa.array(rows)), HTML)).as_py() or 0)


class TableFile(Protocol):
    """One opened file. Both methods raise ValueError, or what the libraries below raise (see errors_in_sentences)."""

    def columns(self) -> list[str]:
        """Names of the columns, in order."""

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        """The rows, in order, with the columns `text` (str or None) and `image` (see Cell)."""


def listed(names: Sequence[str]) -> str:
    """Names of columns for a message, the first of many."""
    more = len(names) - _MOST_NAMES
    return ", ".join([cut(name, 60) for name in names[:_MOST_NAMES]]) + (f", … and {more:,} more" if more > 0 else "")


def check_once(file: Path | str, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises ValueError for a wanted column whose name several columns have."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1 and name in set(wanted))
    if twice:
        raise ValueError(f"{file} has the column {listed(list(map(repr, twice)))} more than once: rename one of them.")
