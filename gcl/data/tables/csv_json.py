"""Readers of the two formats that are lines of text: CSV (and TSV) and JSON Lines, plain or gzipped."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv

from gcl.data.tables import block as of
from gcl.data.tables.block import Block, not_utf8, present, suffix_of, zipped


class CsvFile:
    def __init__(self, file: Path):
        self.file = file
        self.parse = {"delimiter": "\t" if suffix_of(file) == ".tsv" else ",", "newlines_in_values": True}

    def columns(self) -> list[str]:
        with pa.input_stream(str(self.file), compression="gzip" if zipped(self.file) else None) as stream:
            start = stream.read(4)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(not_utf8(self.file, "it begins with a UTF-16 mark"))
        if not start:
            raise ValueError(f"{self.file} is empty: a table needs a header and rows.")
        with self._open({}) as reader:
            names = reader.schema.names
        self._check_delimiter(names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"{self.file} has the column {', '.join(map(repr, twice))} more than once: rename one of them."
            )
        return names

    def _check_delimiter(self, names: list[str]) -> None:
        if len(names) != 1:
            return
        for other, words in (("\t", "tabs"), (";", "';'"), ("|", "'|'"), (",", "commas")):
            found = names[0].split(other)
            if len(found) > 1 and all(name.strip() for name in found):
                here = "tabs in a .tsv" if self.parse["delimiter"] == "\t" else "commas in a .csv"
                mend = {"\t": "rename it to .tsv", ",": "rename it to .csv"}.get(other, "save it with commas")
                raise ValueError(
                    f"{self.file} is separated by {words} (columns {', '.join(found)}); gcl expects {here}: {mend}."
                )

    def _open(self, convert: dict[str, Any], on_bad=lambda row: "skip") -> csv.CSVStreamingReader:
        return csv.open_csv(
            pa.input_stream(str(self.file), compression="gzip" if zipped(self.file) else None),
            # threads would lose the row numbers
            read_options=csv.ReadOptions(block_size=of.BLOCK_BYTES, use_threads=False),
            parse_options=csv.ParseOptions(**self.parse, invalid_row_handler=on_bad),
            convert_options=csv.ConvertOptions(**convert),
        )

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        columns = list(dict.fromkeys(text + image))
        bad: list[tuple[int, str, str]] = []
        skipped: set[int] = set()

        def on_bad(row: csv.InvalidRow) -> str:
            number = row.number - 1  # pyarrow counts the header
            detail = f"{row.actual_columns} cells, the header has {row.expected_columns}"
            skipped.add(number)
            bad.append((number, "wrong number of cells", detail))
            return "skip"

        next_number = 1
        convert = {"column_types": dict.fromkeys(columns, pa.string()), "include_columns": columns}
        with self._open(convert, on_bad) as reader:
            for batch in reader:
                numbers = []
                while len(numbers) < len(batch):
                    if next_number not in skipped:
                        numbers.append(next_number)
                    next_number += 1
                reported, bad[:] = list(bad), []
                for start in range(0, max(len(batch), 1), of.BLOCK_ROWS):
                    piece = batch.slice(start, of.BLOCK_ROWS)
                    cells = {name: present(piece.column(name)).to_pylist() for name in columns}
                    yield Block(
                        self.file, numbers[start : start + of.BLOCK_ROWS], cells, reported if start == 0 else []
                    )
        if bad:
            yield Block(self.file, [], {name: [] for name in columns}, bad)


class JsonLinesFile:
    def __init__(self, file: Path):
        self.file = file

    def _rows(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """(row number, object), or (row number, what is wrong). Numbers keep the digits they were written with."""
        opener = gzip.open if zipped(self.file) else open
        number = 0
        with opener(self.file, "rt", encoding="utf-8-sig") as lines:
            for line in lines:
                if not line.strip():
                    continue
                number += 1
                if number == 1 and line.lstrip().startswith("["):
                    raise ValueError(
                        f"{self.file} is one JSON array; JSON Lines have one object a line (jq -c '.[]' makes them)."
                    )
                try:
                    row = json.loads(line, parse_float=_number, parse_int=str, parse_constant=lambda name: None)
                    if "\\u" in line:
                        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
                except (ValueError, RecursionError) as error:
                    row = str(error)
                yield number, row if isinstance(row, dict | str) else f"{type(row).__name__}, not an object"

    def columns(self) -> list[str]:
        names: dict[str, None] = {}
        for _, row in self._rows():
            if isinstance(row, dict):
                names.update(dict.fromkeys(row))
        if not names:
            raise ValueError(f"{self.file} holds no JSON object: JSON Lines have one object a line.")
        return list(names)

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        columns = list(dict.fromkeys(text + image))
        block = Block(self.file, [], {name: [] for name in columns})
        for number, row in self._rows():
            nested = [name for name in columns if isinstance(row, dict) and isinstance(row.get(name), dict | list)]
            if isinstance(row, str):
                block.bad.append((number, "not a JSON object", row))
            elif nested:
                block.bad.append((number, "a list or object where a text belongs", ", ".join(nested)))
            else:
                block.number.append(number)
                for name in columns:
                    block.columns[name].append(_as_text(row.get(name)))
            if len(block.number) + len(block.bad) == of.BLOCK_ROWS:
                yield _cleaned(block)
                block = Block(self.file, [], {name: [] for name in columns})
        if block.number or block.bad:
            yield _cleaned(block)


def _cleaned(block: Block) -> Block:
    block.columns = {name: present(pa.array(cells, pa.string())).to_pylist() for name, cells in block.columns.items()}
    return block


def _number(digits: str) -> str:
    return digits.removesuffix(".0")  # as Parquet's 12.0 becomes "12": ids that became floats on the way join again


def _as_text(value: Any) -> str | None:
    return str(value).lower() if isinstance(value, bool) else value
