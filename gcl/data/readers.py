"""One file of a table -> blocks of rows: a reader each for CSV (and TSV), JSON Lines and Parquet, plain or gzipped."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.csv as csv
import pyarrow.parquet as parquet

BLOCK_BYTES = 8 << 20  # of a CSV; also the longest row it may have
BLOCK_ROWS = 4096
BLOCK_ROWS_WITH_BYTES = 64  # images in a Parquet column: a block holds that many of them
FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet"}

Cell = str | bytes | None


@dataclass
class Block:
    """Some rows of one file. `number` is the 1-based data row; `bad` holds rows that could not be read at all."""

    file: Path
    number: list[int]
    columns: dict[str, list[Cell]]
    bad: list[tuple[int, str, str]] = field(default_factory=list)  # (row number, reason, detail)


def suffix_of(file: Path) -> str:
    return Path(file.name[:-3] if file.name.lower().endswith(".gz") else file.name).suffix.lower()


def zipped(file: Path) -> bool:
    return file.name.lower().endswith(".gz")


def open_file(file: Path) -> CsvFile | JsonLinesFile | ParquetFile:
    return {"csv": CsvFile, "json": JsonLinesFile, "parquet": ParquetFile}[FORMATS[suffix_of(file)]](file)


class CsvFile:
    def __init__(self, file: Path):
        self.file = file
        self.parse = {"delimiter": "\t" if suffix_of(file) == ".tsv" else ",", "newlines_in_values": True}

    def columns(self) -> list[str]:
        with pa.input_stream(str(self.file), compression="gzip" if zipped(self.file) else None) as stream:
            start = stream.read(4)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(_not_utf8(self.file, "it begins with a UTF-16 mark"))
        if not start:
            raise ValueError(f"{self.file} is empty: a table needs a header and rows.")
        with self._open({}) as reader:
            names = reader.schema.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"{self.file} has the column {', '.join(map(repr, twice))} more than once: rename one of them."
            )
        return names

    def _open(self, convert: dict[str, Any], on_bad=lambda row: "skip") -> csv.CSVStreamingReader:
        return csv.open_csv(
            pa.input_stream(str(self.file), compression="gzip" if zipped(self.file) else None),
            # threads would lose the row numbers
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
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
                for start in range(0, max(len(batch), 1), BLOCK_ROWS):
                    piece = batch.slice(start, BLOCK_ROWS)
                    cells = {name: _present(piece.column(name)).to_pylist() for name in columns}
                    yield Block(self.file, numbers[start : start + BLOCK_ROWS], cells, reported if start == 0 else [])
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
            if len(block.number) + len(block.bad) == BLOCK_ROWS:
                yield _cleaned(block)
                block = Block(self.file, [], {name: [] for name in columns})
        if block.number or block.bad:
            yield _cleaned(block)


class ParquetFile:
    def __init__(self, file: Path):
        self.file = file

    def _open(self, place: str) -> parquet.ParquetFile:
        if not zipped(self.file):
            return parquet.ParquetFile(self.file, memory_map=True, pre_buffer=False)
        whole = Path(place) / "table.parquet"  # Parquet is read from its end: a gzipped one is unpacked first
        with gzip.open(self.file) as source, open(whole, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return parquet.ParquetFile(whole, memory_map=True, pre_buffer=False)

    def columns(self) -> list[str]:
        with tempfile.TemporaryDirectory() as place, self._open(place) as table:
            return table.schema_arrow.names

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        columns = list(dict.fromkeys(text + image))
        with tempfile.TemporaryDirectory() as place, self._open(place) as table:
            kinds = {name: table.schema_arrow.field(name).type for name in columns}
            heavy = any(_is_bytes(kinds[name]) or pa.types.is_struct(kinds[name]) for name in image)
            number = 1
            for batch in table.iter_batches(BLOCK_ROWS_WITH_BYTES if heavy else BLOCK_ROWS, columns=columns):
                cells = {name: self._texts(name, batch.column(name)) for name in text}
                cells |= {name: self._images(name, batch.column(name)) for name in image}
                yield Block(self.file, list(range(number, number + len(batch))), cells)
                number += len(batch)

    def _texts(self, name: str, values: pa.Array) -> list[str | None]:
        if isinstance(values, pa.DictionaryArray):
            values = values.dictionary_decode()
        if pa.types.is_nested(values.type):
            raise ValueError(
                f"{self.file}: the column {name!r} holds {values.type}; a text is one value: join the parts first."
            )
        if pa.types.is_floating(values.type):
            values = compute.if_else(compute.is_nan(values), None, values)
        return _present(values.cast(pa.string())).to_pylist()

    def _images(self, name: str, values: pa.Array) -> list[Cell]:
        if pa.types.is_struct(values.type):  # the form Hugging Face datasets give an image: bytes, or else a path
            parts = {part.name: values.field(part.name) for part in values.type}
            if "bytes" not in parts:
                raise ValueError(
                    f"{self.file}: the column {name!r} holds {values.type}; expected a struct with 'bytes' and 'path'."
                )
            paths = self._texts(name, parts["path"]) if "path" in parts else [None] * len(values)
            present = values.is_valid().to_pylist()
            return [(data or path) if there else None
                    for data, path, there in zip(parts["bytes"].to_pylist(), paths, present, strict=True)]  # fmt: skip
        if _is_bytes(values.type):
            return [data or None for data in values.to_pylist()]
        return self._texts(name, values)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _present(values: pa.Array) -> pa.Array:
    """Strings with what counts as missing made null: nothing, white space only, or a NaN that was written as text."""
    bare = compute.utf8_trim_whitespace(values)
    return compute.if_else(compute.is_in(bare, pa.array(["", "nan", "NaN"])), None, values)


def _cleaned(block: Block) -> Block:
    block.columns = {name: _present(pa.array(cells, pa.string())).to_pylist() for name, cells in block.columns.items()}
    return block


def _number(digits: str) -> str:
    return digits.removesuffix(".0")  # as Parquet's 12.0 becomes "12": ids that became floats on the way join again


def _as_text(value: Any) -> str | None:
    return str(value).lower() if isinstance(value, bool) else value


def _not_utf8(file: Path, detail: str) -> str:
    return f"{file} is not UTF-8 ({detail}): write it again as UTF-8, for example with iconv -f latin1 -t utf-8."


@contextmanager
def errors_in_sentences(file: Path) -> Iterator[None]:
    """What the libraries below raise on files they cannot read, as ValueError that names the file."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError, EOFError) as error:
        detail = str(error)
        if "UTF8" in detail or isinstance(error, UnicodeDecodeError):
            message = _not_utf8(file, detail)
        elif "straddling" in detail:
            message = (
                f"{file} has a row longer than {BLOCK_BYTES >> 20} MiB: most likely a quotation mark is never closed."
            )
        else:
            message = f"{file} cannot be read as {FORMATS[suffix_of(file)]}: {detail}"
        raise ValueError(message) from error
