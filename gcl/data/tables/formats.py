"""One file of a table -> blocks of rows. Each format is one record of FORMATS; errors and documentation list those.

Every value of a text column arrives as a string, character for character ("007" stays "007"); a missing value (empty,
null, NaN, white space only) arrives as None. Nothing here holds more than one block of rows.
"""

from __future__ import annotations

import codecs
import gzip
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ijson
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.csv as csv
import pyarrow.parquet as parquet

BLOCK_BYTES = 8 << 20  # of a CSV; also the longest row it may have
BLOCK_ROWS = 4096
BLOCK_ROWS_WITH_BYTES = 64  # of a Parquet file with images in a column
_PIECE = 1 << 20  # bytes read at a time

Cell = str | bytes | None


@dataclass
class Block:
    """Some rows of one file. `number` is the 1-based data row; `bad` holds rows that could not be read at all."""

    file: Path
    number: list[int]
    columns: dict[str, Sequence[Cell]]
    bad: list[tuple[int, str, str]] = field(default_factory=list)  # (row number, reason, detail)


class TableFile(Protocol):
    """One opened file. Both methods raise ValueError, or what the libraries below raise (see errors_in_sentences)."""

    def columns(self) -> list[str]:
        """Names of the columns, in order."""

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        """The rows, in order, with the columns `text` (str or None) and `image` (a path as str, bytes, or None)."""


class Format(NamedTuple):
    """A kind of file that holds a table, gzipped or not. has_header: False where any row may bring a new column."""

    name: str
    suffixes: tuple[str, ...]
    description: str
    open: Callable[[Path], TableFile]
    has_header: bool = True


class CsvFile:
    """Cells separated by commas (.csv) or tabs (.tsv), below a header."""

    def __init__(self, file: Path):
        self.file = file
        self.delimiter = "\t" if suffix_of(file) == ".tsv" else ","

    def columns(self) -> list[str]:
        with self._stream() as stream:
            start = stream.read(4)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(_not_utf8(self.file, "it begins with a UTF-16 mark"))
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

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        columns = list(dict.fromkeys(text + image))
        bad: list[tuple[int, str, str]] = []  # of the batch that is being read
        skipped: set[int] = set()  # numbers of all bad rows so far

        def on_bad(row: csv.InvalidRow) -> str:
            number = row.number - 1  # pyarrow counts the header
            skipped.add(number)
            detail = f"{row.actual_columns} cells, the header has {row.expected_columns}"
            bad.append((number, "wrong number of cells", detail))
            return "skip"

        next_number = 1
        convert = {"column_types": dict.fromkeys(columns, pa.string()), "include_columns": columns}
        with self._open(convert, on_bad) as reader:
            for batch in reader:
                numbers: list[int] = []  # of the batch's rows: the reader leaves bad ones out
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

    def _check_delimiter(self, names: list[str]) -> None:
        """A single column whose name holds another delimiter: the whole header was taken for one name."""
        if len(names) != 1:
            return
        for other, spelled in (("\t", "tabs"), (";", "';'"), ("|", "'|'"), (",", "commas")):
            parts = names[0].split(other)
            if len(parts) > 1 and all(name.strip() for name in parts):
                here = "tabs in a .tsv" if self.delimiter == "\t" else "commas in a .csv"
                fix = {"\t": "rename it to .tsv", ",": "rename it to .csv"}.get(other, "save it with commas")
                raise ValueError(
                    f"{self.file} is separated by {spelled} (columns {', '.join(parts)}); gcl expects {here}: {fix}."
                )

    def _stream(self) -> pa.NativeFile:
        return pa.input_stream(str(self.file), compression="gzip" if _zipped(self.file) else None)

    def _open(
        self, convert: dict[str, Any], on_bad: Callable[[csv.InvalidRow], str] = lambda _: "skip"
    ) -> csv.CSVStreamingReader:
        return csv.open_csv(
            self._stream(),
            # threads would lose the row numbers
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            parse_options=csv.ParseOptions(
                delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=on_bad
            ),
            convert_options=csv.ConvertOptions(**convert),
        )


class JsonLinesFile:
    """One JSON object per line. Numbers keep the digits they were written with."""

    def __init__(self, file: Path):
        self.file = file

    def columns(self) -> list[str]:
        """All keys of all rows."""
        names: dict[str, None] = {}
        for _, row in self._rows():
            if isinstance(row, dict):
                names.update(dict.fromkeys(row))
        if not names:
            raise ValueError(f"{self.file} holds no JSON object: JSON Lines have one object per line.")
        return list(names)

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        columns = list(dict.fromkeys(text + image))
        numbers: list[int] = []
        cells: dict[str, list[str | None]] = {name: [] for name in columns}
        bad: list[tuple[int, str, str]] = []
        for number, row in self._rows():
            if isinstance(row, str):
                bad.append((number, "not a JSON object", row))
            elif nested := [name for name in columns if isinstance(row.get(name), dict | list)]:
                bad.append((number, "a list or object where a text belongs", ", ".join(nested)))
            else:
                numbers.append(number)
                for name in columns:
                    value = row.get(name)
                    cells[name].append(str(value).lower() if isinstance(value, bool) else value)
            if len(numbers) + len(bad) == BLOCK_ROWS:
                yield self._block(numbers, cells, bad)
                numbers, cells, bad = [], {name: [] for name in columns}, []
        if numbers or bad:
            yield self._block(numbers, cells, bad)

    def _block(self, numbers: list[int], cells: dict[str, list[str | None]], bad: list[tuple[int, str, str]]) -> Block:
        present = {name: _present(pa.array(values, pa.string())).to_pylist() for name, values in cells.items()}
        return Block(self.file, numbers, present, bad)

    def _rows(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """(row number, object), or (row number, why it is not an object)."""
        opener = gzip.open if _zipped(self.file) else open
        number = 0
        with opener(self.file, "rt", encoding="utf-8-sig") as lines:
            for line in lines:
                if not line.strip():
                    continue
                number += 1
                if number == 1 and line.lstrip().startswith("["):
                    raise ValueError(
                        f"{self.file} is one JSON array; JSON Lines have one object per line (jq -c '.[]' makes them)."
                    )
                try:
                    row = json.loads(line, parse_float=_number, parse_int=str, parse_constant=lambda _: None)
                    if "\\u" in line:
                        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is not text
                except (ValueError, RecursionError) as error:
                    row = str(error)
                yield number, row if isinstance(row, dict | str) else f"{type(row).__name__}, not an object"


def _number(digits: str) -> str:
    return digits.removesuffix(".0")  # as Parquet's 12.0 becomes "12": ids that became floats on the way join again


class ParquetFile:
    """Columns of any type that has a text; images as bytes, paths, or the hub's struct of bytes and path."""

    def __init__(self, file: Path):
        self.file = file

    def columns(self) -> list[str]:
        with tempfile.TemporaryDirectory() as folder, self._open(folder) as table:
            return table.schema_arrow.names

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        columns = list(dict.fromkeys(text + image))
        with tempfile.TemporaryDirectory() as folder, self._open(folder) as table:
            kinds = {name: table.schema_arrow.field(name).type for name in columns}
            heavy = any(_is_bytes(kinds[name]) or pa.types.is_struct(kinds[name]) for name in image)
            number = 1
            for batch in table.iter_batches(BLOCK_ROWS_WITH_BYTES if heavy else BLOCK_ROWS, columns=columns):
                cells: dict[str, Sequence[Cell]] = {name: self._texts(name, batch.column(name)) for name in text}
                cells |= {name: self._images(name, batch.column(name)) for name in image}
                yield Block(self.file, list(range(number, number + len(batch))), cells)
                number += len(batch)

    def _open(self, folder: str) -> parquet.ParquetFile:
        if not _zipped(self.file):
            return parquet.ParquetFile(self.file, memory_map=True, pre_buffer=False)
        whole = Path(folder) / "table.parquet"  # Parquet is read from its end: a gzipped one is unpacked first
        with gzip.open(self.file) as source, open(whole, "wb") as target:
            shutil.copyfileobj(source, target, _PIECE)
        return parquet.ParquetFile(whole, memory_map=True, pre_buffer=False)

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

    def _images(self, name: str, values: pa.Array) -> Sequence[Cell]:
        if pa.types.is_struct(values.type):  # how Hugging Face datasets store an image: bytes, or else a path
            parts = {part.name: values.field(part.name) for part in values.type}
            if "bytes" not in parts:
                raise ValueError(
                    f"{self.file}: the column {name!r} holds {values.type}; expected a struct with 'bytes' and 'path'."
                )
            paths = self._texts(name, parts["path"]) if "path" in parts else [None] * len(values)
            valid = values.is_valid().to_pylist()
            return [(data or path) if is_valid else None
                    for data, path, is_valid in zip(parts["bytes"].to_pylist(), paths, valid, strict=True)]  # fmt: skip
        if _is_bytes(values.type):
            return [data or None for data in values.to_pylist()]
        return self._texts(name, values)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


FORMATS = (
    Format("csv", (".csv", ".tsv"), "cells separated by commas (.csv) or tabs (.tsv) below a header", CsvFile),
    Format("json", (".jsonl", ".ndjson", ".json"), "JSON Lines: one object per line", JsonLinesFile, has_header=False),
    Format("parquet", (".parquet",), "Parquet: columns of any type, images as bytes or paths", ParquetFile),
)
SUFFIXES = {suffix: format for format in FORMATS for suffix in format.suffixes}


def suffix_of(file: Path) -> str:
    """The suffix that says the format: of catalog.csv.gz, ".csv"."""
    return Path(file.name[:-3] if _zipped(file) else file.name).suffix.lower()


def _zipped(file: Path) -> bool:
    return file.name.lower().endswith(".gz")


def _present(values: pa.Array) -> pa.Array:
    """Strings with what counts as missing made null: nothing, white space only, or a NaN that was written as text."""
    bare = compute.utf8_trim_whitespace(values)
    return compute.if_else(compute.is_in(bare, pa.array(["", "nan", "NaN"])), None, values)


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
            message = f"{file} cannot be read as {SUFFIXES[suffix_of(file)].name}: {detail}"
        raise ValueError(message) from error


def _not_utf8(file: Path, detail: str) -> str:
    return f"{file} is not UTF-8 ({detail}): write it again as UTF-8, for example with iconv -f latin1 -t utf-8."


def json_entries(file: Path) -> Iterator[tuple[str, Any]]:
    """The (key, value) pairs of a file that is one JSON object, one at a time. Not a table by itself: importers make
    tables of such files. Raises ValueError for anything else, and for a file that is cut off."""
    with open(file, "rb") as source:
        start = source.read(1024)
        if start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] != b"{":
            raise ValueError(f"{file} is not one JSON object: it does not begin with '{{'.")
        source.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
        try:
            for key, value in ijson.kvitems(source, "", buf_size=_PIECE):
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
