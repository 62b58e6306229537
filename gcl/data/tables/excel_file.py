"""The first sheet of an Excel workbook, through calamine (the extra `excel`)."""

from __future__ import annotations

import datetime
import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from gcl.data.tables import block as limits
from gcl.data.tables.block import Block, Reading, check_once
from gcl.data.tables.cells import BLANK
from gcl.data.tables.source import open_raw

_FORMULA_ALONE = re.compile(  # a formula without a value; with t="str" its value is an empty text
    rb"""<c\b(?=[^>]*\br="([A-Z]+)(\d+)")(?![^>]*\bt="str")[^>]*><f\b(?:[^>]*/>|[^>]*>[^<]*</f>)"""
    rb"""(?:<v\s*/>|<v></v>)?</c>"""
)
_LONGEST_CELL = 1 << 16  # bytes of XML; a formula has at most 8,192 characters
_PIECE = 1 << 20


class ExcelFile:
    """An .xlsx. Its first row with a cell is the header; numbers and dates are written as a person would."""

    def __init__(self, file: Path, reading: Reading):
        self.file, self.reading = file, reading

    def columns(self) -> list[str]:
        return [name for name in next(self._rows(), []) if name]

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        wanted = list(dict.fromkeys(text + image))
        rows = self._rows()
        names = next(rows, [])
        check_once(self.file, names, wanted)
        places = [names.index(name) for name in wanted]
        checked = False
        numbers: list[int] = []
        cells: list[list[str | None]] = []
        for number, row in enumerate(rows, start=1):
            if any(row):
                numbers.append(number)
                cells.append([row[place] for place in places])
                if not checked and None in cells[-1]:
                    self._check_computed({self._left + place: name for name, place in zip(wanted, places, strict=True)})
                    checked = True
            if len(numbers) == limits.BLOCK_ROWS:
                yield self._block(wanted, numbers, cells)
                numbers, cells = [], []
        if numbers:
            yield self._block(wanted, numbers, cells)

    def _block(self, names: list[str], numbers: list[int], rows: list[list[str | None]]) -> Block:
        block = Block.typed(self.file, numbers, self.reading)
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            block.add_texts(name, pa.array(values, pa.string()), self.reading)
        return block

    def _check_computed(self, columns: dict[int, str]) -> None:
        """Raises ValueError for a cell in one of these columns, by number from 0, that is a formula without a value.
        Books whose parts have other names (KeyError) are not looked at."""
        with open_raw(self.file) as source, zipfile.ZipFile(io.BytesIO(source.read())) as book, suppress(KeyError):
            for letters, row in _formulas_alone(book):
                name = columns.get(_column_number(letters))
                if name is not None:
                    raise ValueError(
                        f"{self.file}: the cell {letters}{row} of the column {name!r} is a formula that no program has "
                        "computed yet. Open the file in Excel or LibreOffice and save it, or export the values as CSV."
                    )

    def _rows(self) -> Iterator[list[Any]]:
        """The header's names, then rows of as many cells."""
        try:
            import python_calamine as calamine
        except ImportError:
            raise ValueError(
                f"{self.file} is an Excel file: pip install 'gcl-trainer[excel]', or save it as CSV (UTF-8)."
            ) from None
        with open_raw(self.file) as source:
            data = io.BytesIO(source.read())
        try:
            with calamine.CalamineWorkbook.from_filelike(data) as book:
                sheet = book.get_sheet_by_index(0)
                self._left = sheet.start[1] if sheet.start else 0  # number of its first column
                rows = ([_text(cell) for cell in row] for row in sheet.to_python())
                header = next((row for row in rows if any(row)), None)
                if header is None:
                    others = ", ".join(book.sheet_names[1:])
                    more = f" Others are {others}: move the one with the table to the front." if others else ""
                    raise ValueError(f"{self.file}: its first sheet is empty; a table needs a header and rows.{more}")
                yield [(name or "").strip(BLANK) for name in header]
                yield from rows
        except (calamine.CalamineError, OSError) as error:
            raise ValueError(f"{self.file} cannot be read as an Excel file ({error}).") from error


def _formulas_alone(book: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Column and row of each formula of the first sheet that has no value."""
    first = re.search(rb'<(?:\w+:)?sheet\b[^>]*\b\w+:id="([^"]+)"', book.read("xl/workbook.xml"))
    for relation in re.findall(rb"<Relationship\b[^>]*>", book.read("xl/_rels/workbook.xml.rels")):
        target = re.search(rb'\bTarget="/?(?:xl/)?([^"]+)"', relation)
        if first is not None and target is not None and b'Id="%s"' % first[1] in relation:
            with book.open(f"xl/{target[1].decode()}") as sheet:
                rest = b""
                while piece := sheet.read(_PIECE):
                    rest = rest[-_LONGEST_CELL:] + piece
                    for match in _FORMULA_ALONE.finditer(rest):
                        yield match[1].decode(), match[2].decode()


def _column_number(letters: str) -> int:
    """From 0.

    >>> _column_number("A"), _column_number("AB")
    (0, 27)
    """
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - 64
    return number - 1


def _text(cell: Any) -> str | None:
    """Numbers without the fraction that every number of a sheet has, dates as ISO 8601."""
    match cell:
        case bool():
            return str(cell).lower()
        case float():
            return str(int(cell)) if cell.is_integer() and abs(cell) < 1 << 63 else repr(cell)
        case datetime.datetime() if cell.time() == datetime.time():
            return cell.date().isoformat()
        case datetime.datetime():
            return cell.isoformat(" ")
        case datetime.date() | datetime.time():
            return cell.isoformat()
    return str(cell) or None
