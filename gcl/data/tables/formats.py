"""The kinds of files that hold a table. Each is one record of FORMATS; errors and documentation list those.

Every value of a text column arrives as a string, character for character ("007" stays "007"); a missing value (empty,
null, NaN, white space only, a word of data.missing) arrives as None. Nothing here holds more than one block of rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from gcl.data.tables.batch_file import ArrowFile, IcebergFile, LanceFile, iceberg_digest, lance_digest
from gcl.data.tables.block import Reading, TableFile
from gcl.data.tables.delimited_file import DelimitedFile
from gcl.data.tables.excel_file import ExcelFile
from gcl.data.tables.folder import kind_of
from gcl.data.tables.json_file import JsonFile
from gcl.data.tables.parquet_file import ParquetFile
from gcl.data.tables.source import not_decodable, suffix_of
from gcl.files.digest import file_sha256


class Format(NamedTuple):
    """A kind of file that holds a table, gzipped or not. has_header: False where any row may bring a new column.
    digest: of its content; of a folder, of what names the files that count."""

    name: str
    suffixes: tuple[str, ...]
    description: str
    open: Callable[[Path, Reading], TableFile]
    has_header: bool = True
    digest: Callable[[Path], str] = file_sha256


FORMATS = (
    Format(
        "csv",
        (".csv", ".tsv", ".txt"),
        "cells separated by commas (.csv), tabs (.tsv) or what the header says (.txt)",
        DelimitedFile,
    ),
    Format(
        "json",
        (".jsonl", ".ndjson", ".json"),
        "JSON: one object per line, or one array of objects",
        JsonFile,
        has_header=False,
    ),
    Format("parquet", (".parquet",), "Parquet: columns of any type, images as bytes or paths", ParquetFile),
    Format("excel", (".xlsx",), "Excel: the first sheet, below a header", ExcelFile),
    Format("arrow", (".arrow", ".feather"), "Arrow, a stream or a file, as Hugging Face datasets save it", ArrowFile),
    Format("lance", (), "Lance: the newest version of a data set, a folder", LanceFile, digest=lance_digest),
    Format("iceberg", (), "Iceberg: the current snapshot of a table, a folder", IcebergFile, digest=iceberg_digest),
)
SUFFIXES = {suffix: format for format in FORMATS for suffix in format.suffixes}


def format_of(file: Path) -> Format:
    """The format of a file, by its suffix, or of a folder. Raises KeyError."""
    kind = kind_of(file) if file.is_dir() else None
    return next(format for format in FORMATS if format.name == kind) if kind else SUFFIXES[suffix_of(file)]


@contextmanager
def errors_in_sentences(file: Path, reading: Reading) -> Iterator[None]:
    """What the libraries below raise on files they cannot read, as ValueError that names the file."""
    try:
        yield
    except (pa.ArrowException, UnicodeError, OSError, EOFError, zlib.error) as error:
        detail = str(error)
        if "UTF8" in detail or isinstance(error, UnicodeError):
            message = not_decodable(file, reading.encoding)
        else:
            message = f"{file} cannot be read as {format_of(file).name}: {detail}"
        raise ValueError(message) from error
