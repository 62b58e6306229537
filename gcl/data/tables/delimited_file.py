"""Cells separated by commas, tabs or another sign, below a header."""

from __future__ import annotations

import csv as plain_csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.csv as csv

from gcl.data.catalog import BACKSLASH
from gcl.data.tables import block as limits
from gcl.data.tables.block import Block, Reading, check_once, listed
from gcl.data.tables.cells import BLANK
from gcl.data.tables.quoting import Rows, Stray
from gcl.data.tables.source import PIECE, doubled_quotes, open_bytes, place_in, suffix_of

_SPELLED = {"\t": "tabs", ";": "';'", "|": "'|'", ",": "commas"}
_USUAL = {".csv": ",", ".tsv": "\t"}
_LINE_END = re.compile(r"\r\n|\r|\n")


class _Head(NamedTuple):
    """names: of the columns. cells: of a row. rest: what was read beyond the header."""

    names: list[str]
    cells: int
    delimiter: str
    rest: bytes


class DelimitedFile:
    """A .csv, .tsv or .txt file. Without data.delimiter, the header of a .txt file says what separates its cells."""

    def __init__(self, file: Path, reading: Reading):
        self.file, self._escaped = file, reading.quote == BACKSLASH
        self.reading = replace(reading, quote='"') if self._escaped else reading

    @contextmanager
    def _open(self) -> Iterator[io.BufferedReader]:
        with open_bytes(self.file, self.reading.encoding) as stream:
            yield doubled_quotes(stream, b'"') if self._escaped else stream

    def columns(self) -> list[str]:
        with self._open() as stream:
            return self._head(stream).names

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        wanted = list(dict.fromkeys(text + image))
        with self._open() as stream:
            head = self._head(stream)
            check_once(self.file, head.names, wanted)
            place = {name: number for number, name in reversed(list(enumerate(head.names)))}
            columns = {name: str(place[name]) for name in wanted}
            quote = self.reading.quote.encode() if self.reading.quote else None
            rows = Rows(head.delimiter.encode(), quote, head.cells, piece=limits.BLOCK_BYTES)
            number = 1
            for piece in rows.pieces(stream, head.rest):
                if isinstance(piece, Stray):
                    bad = [(number, piece.reason, piece.detail)]
                    yield self._block([], bad, {name: pa.array([], pa.string()) for name in wanted})
                    number += 1
                    continue
                for block in self._parsed(piece, head, columns, number):
                    block.place = place_in(stream)
                    yield block
                    number += len(block.number) + len(block.bad)

    def _parsed(self, piece: bytes, head: _Head, columns: dict[str, str], start: int) -> Iterator[Block]:
        """columns: names of the wanted columns, and what the parser calls them. start: number of the first row."""
        bad: list[tuple[int, str, str]] = []

        def on_bad(row: csv.InvalidRow) -> str:
            detail = f"{row.actual_columns} cells, the header has {row.expected_columns}"
            bad.append((start + row.number - 1, "wrong number of cells", detail))
            return "skip"

        table = csv.read_csv(
            pa.py_buffer(piece),
            # One block on this thread: several would lose the row numbers.
            read_options=csv.ReadOptions(
                use_threads=False, block_size=len(piece) + 1, column_names=[str(n) for n in range(head.cells)]
            ),
            parse_options=csv.ParseOptions(
                delimiter=head.delimiter,
                quote_char=self.reading.quote or False,
                newlines_in_values=True,
                invalid_row_handler=on_bad,
            ),
            convert_options=csv.ConvertOptions(
                include_columns=list(columns.values()), column_types=dict.fromkeys(columns.values(), pa.string())
            ),
        )
        skipped = {number for number, *_ in bad}
        numbers = [n for n in range(start, start + len(table) + len(bad)) if n not in skipped]
        if places := _repeats_of_header(table, columns):
            bad += [(numbers[place], "the header again", "") for place in places]
            kept = sorted(set(range(len(table))) - set(places))
            table, numbers = table.take(kept), [numbers[place] for place in kept]
        for first in range(0, max(len(table), 1), limits.BLOCK_ROWS):
            part = table.slice(first, limits.BLOCK_ROWS).combine_chunks()
            cells = {
                name: _without_formula(pa.concat_arrays(part.column(own).chunks or [pa.array([], pa.string())]))
                for name, own in columns.items()
            }
            yield self._block(numbers[first : first + limits.BLOCK_ROWS], bad if first == 0 else [], cells)

    def _block(self, numbers: list[int], bad: list[tuple[int, str, str]], cells: dict[str, pa.Array]) -> Block:
        block = Block(self.file, numbers, {}, bad, decimal=self.reading.decimal)
        for name, values in cells.items():
            block.add_texts(name, values, self.reading)
        return block

    def _head(self, stream: BinaryIO) -> _Head:
        start = b""
        while start.count(b"\n") + start.count(b"\r") < 4 and (data := stream.read(PIECE)):
            start += data
        lines = _Lines(start.decode(errors="surrogateescape"))
        if not lines.text.strip():
            raise ValueError(f"{self.file} is empty: a table needs a header and rows.")
        own = re.fullmatch('"?sep=(.)"?', lines.text.partition("\n")[0].strip())  # how Excel is told the delimiter
        if own:
            next(lines)
        delimiter = own[1] if own else self._delimiter(lines.copy())
        names, first = _rows(lines, delimiter, self.reading.quote)
        end = len(lines.text[: lines.header].encode(errors="surrogateescape"))
        start[:end].decode()  # UnicodeDecodeError says what is wrong with it
        quote = self.reading.quote
        if quote and lines.text[: lines.header].count(quote) % 2:
            raise ValueError(f"{self.file}: a quotation mark in the header is never closed: {lines.text[:60]!r}.")
        unnamed = len(first) == len(names) + 1 and not first[-1]  # every row ends with the delimiter
        return _Head([name.strip(BLANK) for name in names], len(names) + unnamed, delimiter, start[end:])

    def _delimiter(self, lines: _Lines) -> str:
        """What separates the cells of the header. Raises ValueError where another sign obviously does."""
        suffix, given = suffix_of(self.file), self.reading.delimiter
        names = {sign: _rows(lines.copy(), sign, self.reading.quote)[0] for sign in _SPELLED}
        usual = _USUAL.get(suffix) or max(names, key=lambda sign: len(names[sign]))
        if given is not None and suffix != ".tsv":
            several = len(_rows(lines.copy(), given, self.reading.quote)[0]) > 1
            return given if several or len(names[usual]) == 1 else usual  # tables of one catalog may differ
        if len(names[usual]) > 1:
            return usual
        for sign, parts in names.items():
            if len(parts) > 1 and all(name.strip() for name in parts):
                rename = {"\t": "rename it to .tsv", ",": "rename it to .csv"}.get(sign)
                setting = None if suffix == ".tsv" else f"set data.delimiter={sign!r}"
                fix = (
                    " or ".join(filter(None, (rename, setting))) or f"rename it to .csv and set data.delimiter={sign!r}"
                )
                raise ValueError(
                    f"{self.file} is separated by {_SPELLED[sign]} (columns {listed(parts)}); gcl expects "
                    f"{_SPELLED[usual]} in a {suffix}: {fix}."
                )
        return usual


def _repeats_of_header(table: pa.Table, columns: dict[str, str]) -> list[int]:
    """Rows in which every column that is read holds its own name: files with headers were put together."""
    again: list[int] | None = None
    for name, own in columns.items():
        cells = table.column(own) if again is None else table.column(own).take(again)
        found = compute.indices_nonzero(compute.equal(compute.utf8_trim(cells, BLANK), name)).to_pylist()
        again = found if again is None else [again[place] for place in found]
        if not again:
            return []
    return again or []


def _without_formula(cells: pa.Array) -> pa.Array:
    """The texts of cells that are written ="001", which keeps a spreadsheet from making numbers of them."""
    if not compute.any(compute.starts_with(cells, '="')).as_py():
        return cells
    return compute.replace_substring_regex(cells, r'^="([^"]*)"$', r"\1")


class _Lines:
    """The lines of a text, with their ends; `header`: the place after the first row that `_rows` found."""

    def __init__(self, text: str, place: int = 0) -> None:
        self.text, self.place, self.header = text, place, 0

    def copy(self) -> _Lines:
        return _Lines(self.text, self.place)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.place >= len(self.text):
            raise StopIteration
        end = _LINE_END.search(self.text, self.place)
        start, self.place = self.place, end.end() if end else len(self.text)
        return self.text[start : self.place]


def _rows(lines: _Lines, delimiter: str, quote: str | None) -> tuple[list[str], list[str]]:
    """The header's names and the cells of the first row, as far as it was read."""
    reader = (
        row
        for row in plain_csv.reader(
            lines,
            delimiter=delimiter,
            quotechar=quote or '"',
            quoting=plain_csv.QUOTE_MINIMAL if quote else plain_csv.QUOTE_NONE,
        )
        if row
    )
    try:
        names = next(reader, [])
        lines.header = lines.place
        return names, next(reader, [])
    except plain_csv.Error:  # a cell beyond csv's limit: a mark that is never closed
        lines.header = lines.header or lines.place
        return (names if lines.header < lines.place else []), []
