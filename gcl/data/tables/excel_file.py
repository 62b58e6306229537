"""The first sheet of an Excel workbook, through calamine (the extra `excel`)."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from gcl.data.tables import block as limits
from gcl.data.tables.block import Block, Reading, check_once
from gcl.data.tables.cells import BLANK
from gcl.data.tables.source import open_raw


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
        numbers: list[int] = []
        cells: list[list[str | None]] = []
        for number, row in enumerate(rows, start=1):
            if any(row):
                numbers.append(number)
                cells.append([row[place] for place in places])
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
                rows = ([_text(cell) for cell in row] for row in book.get_sheet_by_index(0).to_python())
                header = next((row for row in rows if any(row)), None)
                if header is None:
                    raise ValueError(f"{self.file}: its first sheet is empty; a table needs a header and rows.")
                yield [(name or "").strip(BLANK) for name in header]
                yield from rows
        except (calamine.CalamineError, OSError) as error:
            raise ValueError(f"{self.file} cannot be read as an Excel file ({error}).") from error


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
