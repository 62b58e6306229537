"""JSON: one object per line, or one array of objects; and files that are one object, which importers make tables of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import ijson
import pyarrow as pa

from gcl.data.tables import block as limits
from gcl.data.tables.block import Block, Reading
from gcl.data.tables.cells import Cell, plain_number
from gcl.data.tables.source import PIECE, open_bytes, open_text
from gcl.table import cut

_Rows = Iterator[tuple[int, dict[str, Any] | str]]  # (row number, object), or (row number, why it is not an object)


class JsonFile:
    """One JSON object per line, or one array of objects. Numbers keep the digits they were written with, whole ones
    without a fraction: ids that became floats on the way join again. In a change feed a null is passed over: Debezium
    writes one after each deletion, for Kafka."""

    def __init__(self, file: Path, reading: Reading):
        self.file, self.reading = file, reading

    def columns(self) -> list[str]:
        """All keys of all rows."""
        names: dict[str, None] = {}
        number, last, refused = 0, None, ""
        for number, row in self._rows():
            last = row
            if isinstance(row, str):
                refused = refused or f" Row {number}: {row}."
            else:
                if number == 1 and (holder := _holder(row)):
                    raise ValueError(
                        f"{self.file} is one JSON object whose {holder!r} holds the rows: save that list by itself, "
                        f"for example with jq '.[\"{holder}\"]' {self.file.name}."
                    )
                names.update(dict.fromkeys(row))
        if not names:
            raise ValueError(
                f"{self.file} holds no JSON object: a table is one object per line, or one array of objects.{refused}"
            )
        if number == 1 and isinstance(last, dict) and all(isinstance(value, dict) for value in last.values()):
            raise ValueError(
                f"{self.file} is one JSON object of objects ({cut(', '.join(names), 60)}); a table is one object per "
                f"row, each with its id (pandas: frame.to_json({self.file.name!r}, orient='records', lines=True))."
            )
        return list(names)

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        numbers: list[int] = []
        rows: list[list[Cell]] = []
        bad: list[tuple[int, str, str]] = []
        texts = list(dict.fromkeys(text))
        images = [name for name in dict.fromkeys(image) if name not in texts]
        for number, row in self._rows():
            if isinstance(row, str):
                bad.append((number, "not a JSON object", row))
            else:
                cells = [_text(row.get(name)) for name in texts] + [_image(row.get(name)) for name in images]
                if nested := [name for name, cell in zip([*texts, *images], cells, strict=True) if cell is _NESTED]:
                    bad.append((number, "a list or object where a text belongs", ", ".join(nested)))
                else:
                    numbers.append(number)
                    rows.append(cells)
            if len(numbers) + len(bad) == limits.BLOCK_ROWS:
                yield self._block(texts, images, numbers, rows, bad)
                numbers, rows, bad = [], [], []
        if numbers or bad:
            yield self._block(texts, images, numbers, rows, bad)

    def _block(
        self, texts: list[str], images: list[str], numbers: list[int], rows: list[list[Cell]], bad: list
    ) -> Block:
        block = Block.typed(self.file, numbers, self.reading, bad)
        columns = list(zip(*rows, strict=True)) or [()] * (len(texts) + len(images))
        for name, cells in zip(texts, columns, strict=False):
            block.add_texts(name, pa.array(cells, pa.string()), self.reading)
        for name, cells in zip(images, columns[len(texts) :], strict=True):
            block.add_images(name, cells, self.reading)
        return block

    def _rows(self) -> _Rows:
        with open_text(self.file, self.reading.encoding) as lines:
            start = lines.read(1)
            while start.isspace():
                start = lines.read(1)
        rows = self._array() if start == "[" else self._lines()
        return ((number, _unwrapped(row)) for number, row in rows) if self.reading.envelopes else rows

    def _lines(self) -> _Rows:
        number = 0
        with open_text(self.file, self.reading.encoding) as lines:
            for line in lines:
                if not line.strip():
                    continue
                number += 1
                try:
                    row = json.loads(line, parse_float=plain_number, parse_int=str, parse_constant=lambda _: None)
                    if "\\u" in line:  # half a surrogate pair is not text: of a title cut within an emoji
                        row = _text_alone(row)
                except (ValueError, RecursionError) as error:
                    if number == 1 and line.strip() == "{":
                        raise ValueError(
                            f"{self.file} is one JSON object over several lines; a table is one object per line, or "
                            "one array of objects."
                        ) from None
                    row = str(error)
                if row is None and self.reading.envelopes:
                    continue
                yield number, row if isinstance(row, dict | str) else f"{type(row).__name__}, not an object"

    def _array(self) -> _Rows:
        number = 0
        with open_bytes(self.file, self.reading.encoding) as source:
            try:
                for number, item in enumerate(ijson.items(source, "item", buf_size=PIECE), start=1):
                    row = _digits(item)
                    if row is None and self.reading.envelopes:
                        continue
                    yield number, row if isinstance(row, dict) else f"{type(item).__name__}, not an object"
            except ijson.JSONError as error:
                detail = " ".join(str(error).split())
                raise ValueError(
                    f"{self.file} is not one JSON array, or is cut off after row {number:,} ({detail})."
                ) from error


def _text_alone(row: Any) -> Any:
    """A row with a question mark for each half of a surrogate pair, as it is in an array."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(text.encode(errors="replace"))
    return row


def _holder(row: dict[str, Any]) -> str | None:
    """The key whose list of objects is the table, in an object that is no product itself."""
    lists = [key for key, value in row.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return lists[0] if len(lists) == 1 and not {"id", "product_id", "title", "name"} & row.keys() else None


def _unwrapped(row: dict[str, Any] | str) -> dict[str, Any] | str:
    """Of an envelope the row as it is after the change (of a deletion, as it was), with `__op` and `__ts_ms`: as
    Debezium's own ExtractNewRecordState calls them.

    >>> _unwrapped({"payload": {"before": {"id": "7"}, "after": None, "op": "d", "ts_ms": "5"}})
    {'id': '7', '__op': 'd', '__ts_ms': '5'}
    """
    if not isinstance(row, dict):
        return row
    inner = row.get("payload")
    about = inner if isinstance(inner, dict) else row
    if "op" not in about or about.keys().isdisjoint(("before", "after")):
        return row
    of = about.get("after") or about.get("before")
    return {**(of if isinstance(of, dict) else {}), "__op": about["op"], "__ts_ms": about.get("ts_ms")}


_NESTED: Any = object()  # of a cell that holds more than a field may


def _text(value: Any) -> Any:
    """A list of texts is joined with commas."""
    if isinstance(value, list):
        parts = [_text(part) for part in value if not isinstance(part, list | dict)]
        if len(parts) < len(value):
            return _NESTED
        return ", ".join(part for part in parts if part) or None
    if isinstance(value, dict):
        return _NESTED
    return str(value).lower() if isinstance(value, bool) else value


def _image(value: Any) -> Any:
    if isinstance(value, list) and not any(isinstance(part, list | dict) for part in value):
        return [_text(part) for part in value]
    return _text(value)


def _digits(value: Any) -> Any:
    """Numbers of ijson as strings of their digits."""
    if isinstance(value, dict):
        return {key: _digits(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_digits(item) for item in value]
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return plain_number(str(value))
    return value


def json_entries(file: Path) -> Iterator[tuple[str, Any]]:
    """The (key, value) pairs of a file that is one JSON object, one at a time. Not a table by itself: importers make
    tables of such files. Raises ValueError for anything else, and for a file that is cut off."""
    with open_bytes(file, None) as source:
        if source.peek(PIECE).lstrip()[:1] != b"{":
            raise ValueError(f"{file} is not one JSON object: it does not begin with '{{'.")
        try:
            for key, value in ijson.kvitems(source, "", buf_size=PIECE):
                yield key, _plain(value)
        except ijson.JSONError as error:
            detail = " ".join(str(error).split())
            raise ValueError(f"{file} is not one JSON object, or is cut off ({detail}).") from error


def _plain(value: Any) -> Any:
    """Numbers as `json` reads them: int or float."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value
