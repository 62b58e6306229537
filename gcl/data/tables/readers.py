"""One file of a table -> blocks of rows: which reader takes it, and what the libraries below say, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from gcl.data.tables.block import BLOCK_BYTES, not_utf8, suffix_of
from gcl.data.tables.csv_json import CsvFile, JsonLinesFile
from gcl.data.tables.parquet import ParquetFile

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet"}


def open_file(file: Path) -> CsvFile | JsonLinesFile | ParquetFile:
    return {"csv": CsvFile, "json": JsonLinesFile, "parquet": ParquetFile}[FORMATS[suffix_of(file)]](file)


@contextmanager
def errors_in_sentences(file: Path) -> Iterator[None]:
    """What the libraries below raise on files they cannot read, as ValueError that names the file."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError, EOFError) as error:
        detail = str(error)
        if "UTF8" in detail or isinstance(error, UnicodeDecodeError):
            message = not_utf8(file, detail)
        elif "straddling" in detail:
            message = (
                f"{file} has a row longer than {BLOCK_BYTES >> 20} MiB: most likely a quotation mark is never closed."
            )
        else:
            message = f"{file} cannot be read as {FORMATS[suffix_of(file)]}: {detail}"
        raise ValueError(message) from error
