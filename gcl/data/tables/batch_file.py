"""Tables that other libraries write, read where they lie, a batch of rows at a time by the rules of Parquet: Arrow
files (as Hugging Face datasets save them), Lance data sets and Iceberg tables. The last two are folders.

Only what their newest version holds is read. `digest` of a folder is that of what names this version: its data files
never change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from gcl.data.tables.parquet_file import ParquetFile, unpacked
from gcl.data.tables.source import is_zipped
from gcl.errors import install
from gcl.files.digest import file_sha256

_IPC_FILE = b"ARROW1"
_NUMBER = re.compile(r"v?(\d+)")


@dataclass
class _Opened:
    """As an opened Parquet file."""

    schema_arrow: pa.Schema
    num_rows: int
    batches: Callable[[int, list[str]], Iterator[pa.RecordBatch]]

    @property
    def metadata(self) -> _Opened:
        return self

    def iter_batches(self, size: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in self.batches(size, columns):
            for start in range(0, len(batch), size):
                yield batch.slice(start, size).select(columns)


class ArrowFile(ParquetFile):
    """Arrow's own format, a stream or a file of batches, through a memory map."""

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with unpacked(self.file) if is_zipped(self.file) else nullcontext(self.file) as file:
            about = file.stat()
            rows = _arrow_rows(file, about.st_size, about.st_mtime_ns)
            with pa.memory_map(str(file)) as source:
                schema, batches = _arrow(source)
                yield _Opened(schema, rows, lambda *_: batches)


def _arrow(source: pa.MemoryMappedFile) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    is_file = source.read(len(_IPC_FILE)) == _IPC_FILE
    source.seek(0)
    if not is_file:
        stream = pa.ipc.open_stream(source)
        return stream.schema, iter(stream)
    file = pa.ipc.open_file(source)
    return file.schema, map(file.get_batch, range(file.num_record_batches))


@lru_cache(maxsize=256)
def _arrow_rows(file: Path, size: int, changed: int) -> int:
    """size, changed: of the file, which may be written again; changed: time of its last change."""
    del size, changed
    with pa.memory_map(str(file)) as source:
        return sum(map(len, _arrow(source)[1]))


class LanceFile(ParquetFile):
    """A Lance data set: the rows of its newest version, in their order."""

    @contextmanager
    def _open(self) -> Iterator[Any]:
        data = _library("lance", "lance", self.file).dataset(str(self.file))

        def batches(size: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
            return data.scanner(columns=columns, batch_size=size, scan_in_order=True).to_batches()

        yield _Opened(data.schema, data.count_rows(), batches)


def lance_digest(folder: Path) -> str:
    """Of the newest version. Lance numbers them upwards, or downwards from 2^64 so that the newest comes first."""
    versions = sorted((folder / "_versions").glob("*.manifest"), key=lambda file: int(file.stem))
    return file_sha256(versions[0 if len(versions[0].stem) == 20 else -1])


class IcebergFile(ParquetFile):
    """An Iceberg table that lies in a folder: the rows of its current snapshot; deleted and replaced ones are not."""

    @contextmanager
    def _open(self) -> Iterator[Any]:
        static = _library("pyiceberg.table", "iceberg", self.file).StaticTable
        scan = static.from_metadata(str(iceberg_metadata(self.file))).scan()
        tasks = list(scan.plan_files())

        def batches(_: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
            chosen = scan.select(*columns)
            arrow = import_module("pyiceberg.io.pyarrow")
            reading = arrow.ArrowScan(chosen.table_metadata, chosen.io, chosen.projection(), chosen.row_filter)
            for task in tasks:  # one by one: given all of them it reads them all at once
                yield from reading.to_record_batches([task])

        yield _Opened(scan.projection().as_arrow(), sum(task.file.record_count for task in tasks), batches)


def iceberg_metadata(folder: Path) -> Path:
    """The file that describes the current version: the one that version-hint.text names, else that of the highest
    number."""
    files = list((folder / "metadata").glob("*.metadata.json"))
    hint = folder / "metadata" / "version-hint.text"
    if hint.is_file():
        named = [folder / "metadata" / f"{form}{hint.read_text().strip()}.metadata.json" for form in ("v", "")]
        files = [file for file in named if file.is_file()] or files
    return max(files, key=lambda file: (int(number[1]) if (number := _NUMBER.match(file.name)) else -1, file.name))


def iceberg_digest(folder: Path) -> str:
    return file_sha256(iceberg_metadata(folder))


def _library(module: str, extra: str, table: Path) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f"{table} needs another package ({error}): {install(extra)}.") from None
