"""Where the rows of a delimited text end, and which quotation marks swallow rows.

A cell that begins with a quotation mark lasts to the next single one, over line ends if need be. In a file whose writer
does not quote, a title may begin with one by chance: every line up to the next such title would become part of it.

1. a piece without quotation marks: every line is a row, nothing to look at
2. a piece in which every mark opens a cell, closes one, or is doubled (found without a loop): it is taken as it is,
   unless a cell over several lines consists of lines that may be rows
3. any other piece is walked, one quoted cell at a time. A cell over several lines is a stray mark if it is never
   closed, if text follows where it is closed, or if its lines look like rows: as many cells as the header, of the
   kinds that the columns of ids and numbers have elsewhere. Its first line alone is refused, and so is one whose cell
   is only whole if a backslash escapes a mark
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Generator, Iterator
from itertools import islice
from typing import BinaryIO, NamedTuple

import numpy as np

from gcl.data.catalog import BACKSLASH
from gcl.table import cut

_ODD_LINES = 0.1  # share of a cell's lines that may not look like rows, if all of it shall be a run of rows
_ODD_CELLS = 1 / 3  # share of a line's cells, in columns of ids and numbers, that may be of an unusual kind
_USUAL = 0.01  # share of a column's cells from which a kind is usual
_LEARNED = 2000  # rows from which the kinds are learned
_TEXT = "text"
ESCAPED = "backslash before a quotation mark"


class Stray(NamedTuple):
    """A line that is refused: its cell beginning with `start` would swallow `lines` further lines (None: all), or has
    marks that a backslash escapes."""

    start: str
    lines: int | None
    escaped: bool = False

    @property
    def reason(self) -> str:
        """One of two."""
        return ESCAPED if self.escaped else "quotation mark that swallows rows"

    @property
    def detail(self) -> str:
        """What a person needs to find it and to fix it."""
        if self.escaped:
            return f"the cell {self.start}; if the file was written so (MySQL, Spark), set data.quote={BACKSLASH}"
        until = "is never closed" if self.lines is None else f"would take in {self.lines:,} following lines"
        return f"the cell {self.start!r} {until}; if no cell is quoted on purpose, set data.quote=null"


class Rows:
    """Cuts a stream into pieces of whole rows.

    delimiter, quote: one byte each; quote None: nothing is quoted. cells: of a row. piece: bytes read at a time, and
    the longest row there may be.
    """

    def __init__(self, delimiter: bytes, quote: bytes | None, cells: int, *, piece: int) -> None:
        self._delimiter, self._quote, self._cells, self._piece = delimiter, quote, cells, piece
        self._usual: list[set[str] | None] | None = None  # kinds by column; None: of free text
        if quote is not None:

            def pattern(text: bytes) -> re.Pattern[bytes]:
                return re.compile(text.replace(b"Q", re.escape(quote)).replace(b"D", re.escape(delimiter)))

            self._quoted_cell = pattern(rb"(?:(?<=[\r\nD])|\A)Q[^Q]*(?:QQ[^Q]*)*(?:Q|(\Z))")
            self._after = pattern(rb" *(?:[\r\nD]|\Z)")
            self._escaped_cell = pattern(rb"Q(?=[^Q]*\\Q)(?:[^Q\\]|\\[\s\S])*Q(?=[\r\nD]|\Z)")
            self._any_cell = pattern(rb"(Q[^Q]*(?:QQ[^Q]*)*Q(?=D|\Z)|[^D]*)(D|\Z)")

    def pieces(self, stream: BinaryIO, start: bytes = b"") -> Iterator[bytes | Stray]:
        """Whole rows, about `piece` bytes together, and lines that are refused, in order. start: bytes before the
        stream's."""
        rest, final = start, False
        while not final:
            data = stream.read(self._piece)
            whole, final = rest + data, not data
            if self._quote is None or self._quote not in whole:
                end = len(whole) if final else _after_last_line(whole, 0, len(whole))
            elif (plain := self._end_of_plain(whole, final=final)) is not None:
                end = plain
            else:
                end = yield from self._walk(whole, final=final)
                rest = whole[end:]
                continue
            if end:
                yield whole[:end]
            rest = whole[end:]

    def _end_of_plain(self, whole: bytes, *, final: bool) -> int | None:
        """Where the last whole row ends; None if the piece has to be walked."""
        assert self._quote is not None
        data = np.frombuffer(whole, np.uint8)
        marks = np.flatnonzero(data == self._quote[0])
        edge = np.zeros(256, bool)
        edge[[*b"\r\n", *self._delimiter, *self._quote]] = True
        opening, closing = marks[0::2], marks[1::2]
        before, after = opening[opening > 0] - 1, closing[closing < len(data) - 1] + 1
        if not (edge[data[before]].all() and edge[data[after]].all()) or (final and len(marks) % 2):
            return None
        ends = np.flatnonzero((data == 10) | (data == 13))
        inside = np.searchsorted(marks, ends) % 2 == 1
        if inside.any() and self._may_be_rows(data, ends, inside):
            return None
        if final:
            return len(whole)
        outside = ends[~inside & (ends < len(data) - 1)]
        if not len(outside):
            return None if len(whole) > self._piece else 0  # a row cannot be longer
        last = int(outside[-1])
        return last + (2 if whole[last : last + 2] == b"\r\n" else 1)

    def _may_be_rows(self, data: np.ndarray, ends: np.ndarray, inside: np.ndarray) -> bool:
        """Whether in any row over several lines nearly each line has enough delimiters to be a row."""
        signs = np.flatnonzero(data == self._delimiter[0])
        short = np.diff(np.searchsorted(signs, ends), prepend=0) < self._cells - 1
        first = np.concatenate(([0], np.flatnonzero(~inside) + 1))
        first = first[first < len(ends)]  # line of each row
        lines = np.diff(first, append=len(ends))
        several = np.add.reduceat(inside, first) > 0
        return bool((several & (np.add.reduceat(short, first) <= _ODD_LINES * lines)).any())

    def _walk(self, whole: bytes, *, final: bool) -> Generator[bytes | Stray, None, int]:
        """Gives out whole rows and stray lines; returns where what is left begins."""
        if self._usual is None:
            self._usual = self._learn(whole)
        begin = row = place = 0  # what was not given out, the current row, and what was not looked at
        limit = len(whole)
        while (cell := self._quoted_cell.search(whole, place)) is not None:
            row = max(row, _after_last_line(whole, place, cell.start()))
            unclosed = cell[1] is not None
            if not final and cell.end() == len(whole) and len(whole) - row <= self._piece:
                limit = cell.start()  # the following bytes may close it
                break
            if stray := self._stray(whole, row, cell, unclosed=unclosed):
                if row > begin:
                    yield whole[begin:row]
                yield stray
                line = re.compile(rb"\r?\n|\r").search(whole, cell.start())
                begin = row = place = line.end() if line else len(whole)
            else:
                place = cell.end()
        end = len(whole) if final else max(row, _after_last_line(whole, place, limit))
        if end > begin:
            yield whole[begin:end]
        return end

    def _stray(self, whole: bytes, row: int, cell: re.Match[bytes], *, unclosed: bool) -> Stray | None:
        """What is wrong with a cell; None: nothing."""
        swallows = unclosed or self._is_stray(whole, row, cell)
        if swallows or self._after.match(whole, cell.end()) is None:
            if escaped := self._escaped_cell.match(whole, cell.start()):
                return Stray(_start(escaped[0]), 0, escaped=True)
        if not swallows:
            return None
        lines = len(cell[0].decode(errors="replace").splitlines()) - 1
        return Stray(_start(cell[0]), None if unclosed else lines)

    def _is_stray(self, whole: bytes, row: int, cell: re.Match[bytes]) -> bool:
        inner = re.compile(rb"[\r\n]").search(cell[0])
        if inner is None:
            return False
        if self._after.match(whole, cell.end()) is None:
            return True
        start = cell.start() + inner.start()
        end = re.compile(rb"[\r\n]|\Z").search(whole, cell.end())
        assert end is not None and self._usual is not None
        lines = [whole[row:start], *re.split(rb"\r\n|[\r\n]", whole[start : end.start()])[1:]]
        odd = sum(not self._looks_like_row(line, self._usual if number else []) for number, line in enumerate(lines))
        return odd <= _ODD_LINES * len(lines)

    def _looks_like_row(self, line: bytes, usual: list[set[str] | None]) -> bool:
        cells = [match[1] for match in self._any_cell.finditer(line) if match[1] or match[2] or match.end() < len(line)]
        cells += [b""] if line.endswith(self._delimiter) else []
        if len(cells) != self._cells:
            return False
        known = [
            (_kind(cell.decode(errors="replace")), kinds) for cell, kinds in zip(cells, usual, strict=False) if kinds
        ]
        return sum(kind not in kinds for kind, kinds in known) <= _ODD_CELLS * len(known)

    def _learn(self, whole: bytes) -> list[set[str] | None]:
        """The kinds of cells that each column usually has, of rows that take one line; where none does, of all."""
        text = io.StringIO(whole.decode(errors="replace"), newline="")
        assert self._quote is not None
        reader = csv.reader(text, delimiter=self._delimiter.decode(), quotechar=self._quote.decode())
        short, long = ([Counter[str]() for _ in range(self._cells)] for _ in range(2))
        before = 0
        try:
            for row in islice(reader, _LEARNED):
                if len(row) == self._cells:
                    for count, cell in zip(short if reader.line_num == before + 1 else long, row, strict=True):
                        count[_kind(cell)] += 1
                before = reader.line_num
        except csv.Error:  # a mark that is never closed makes a cell beyond csv's limit
            pass
        counts = short if any(short) else long
        usual = [{kind for kind, n in count.items() if n >= _USUAL * count.total()} | {""} for count in counts]
        return [None if any(kind.isalpha() for kind in kinds) or len(kinds) == 1 else kinds for kinds in usual]


def _kind(cell: str) -> str:
    """What sorts of characters a cell has: of an id "p-17", "-9a"; of several words, _TEXT."""
    cell = cell.strip().strip('"')
    if len(cell.split()) > 1:
        return _TEXT
    kinds = {"9" if sign.isdigit() else "A" if sign.isupper() else "a" if sign.isalpha() else sign for sign in cell}
    return "".join(sorted(kinds))


def _after_last_line(whole: bytes, start: int, stop: int) -> int:
    """The place after the last line end there; 0 without one. A final CR may be half of one."""
    feed = whole.rfind(b"\n", start, stop)
    back = whole.rfind(b"\r", start, min(stop, len(whole) - 1))
    return max(feed, back) + 1


def _start(cell: bytes) -> str:
    """The beginning of a cell, as messages show it."""
    return cut(cell.decode(errors="replace").splitlines()[0], 40)
