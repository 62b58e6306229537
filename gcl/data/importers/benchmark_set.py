"""A published data set of Parquet files, read where it lies: its texts in one pass, its images in another, streamed.

root/<name>/data/*.parquet or root/<name>/*.parquet      a local copy
hf://datasets/<owner>/<name>/data/*.parquet              the hub, by range requests
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as parquet

from gcl.data.store.records import Column
from gcl.data.tables.remote import is_remote

_SAMPLED = 1 << 20  # bytes at both ends of a file that its digest is of


@dataclass(frozen=True)
class RowGroup:
    """Rows first … first + count of a set: the row group `group` of a file."""

    file: str
    group: int
    first: int
    count: int


@dataclass(frozen=True)
class Grouped:
    """Rows of one text: text number `code[row]` (-1: none) of `texts`, which are sorted as with `suffix` added."""

    texts: pa.Array
    code: np.ndarray


class PublishedSet:
    """The first `limit` rows (None: all) of the files. Raises FileNotFoundError or ValueError, in sentences, for files
    that are not there or lack a column."""

    def __init__(self, files: list[str], *, columns: list[str], limit: int | None = None) -> None:
        self.files = files
        self.groups: list[RowGroup] = []
        self.bytes, self.whole = 0, 0
        for file in files:
            with _opened(file) as source:
                about = source.metadata
                names = source.schema_arrow.names
                if missing := [name for name in columns if name not in names]:
                    raise ValueError(f"{file} has no column {missing[0]!r}; its columns: {', '.join(names)}.")
                for group in range(about.num_row_groups):
                    count = about.row_group(group).num_rows
                    left = count if limit is None else min(count, limit - self.whole)
                    if left > 0:
                        self.groups.append(RowGroup(file, group, self.whole, left))
                        self.bytes += about.row_group(group).total_byte_size * left // max(count, 1)
                    self.whole += count
        self.rows = sum(group.count for group in self.groups)
        if not self.rows:
            raise ValueError(f"There is no row in {', '.join(files[:3])}.")

    def digest(self) -> str:
        """SHA-256 over the size and the first and last megabyte of every file, its index of row groups included: all
        of it would mean reading everything once more."""
        digest = hashlib.sha256()
        for file in self.files:
            with _raw(file) as source:
                size = source.seek(0, os.SEEK_END)
                digest.update(str(size).encode())
                for start in sorted({0, max(0, size - _SAMPLED)}):
                    source.seek(start)
                    digest.update(source.read(_SAMPLED))
        return digest.hexdigest()

    def column(self, name: str) -> pa.Array:
        """A column of all rows as text."""
        parts = []
        for group in self.groups:
            with _opened(group.file) as source:
                values = source.read_row_group(group.group, columns=[name])[name].slice(0, group.count)
                parts += values.cast(pa.large_string()).chunks
        return pa.concat_arrays(parts) if parts else pa.array([], pa.large_string())

    def ids(self, name: str) -> Column:
        """The column of ids. Raises ValueError where one is missing."""
        values = self.column(name)
        if values.null_count:
            raise ValueError(f"{values.null_count} rows of {self.files[0]} … have no {name}.")
        return Column(values)

    def images(self, group: RowGroup, name: str) -> Iterator[tuple[int, bytes | None]]:
        """(row, bytes) of one row group; None where there are none."""
        with _opened(group.file) as source:
            values = source.read_row_group(group.group, columns=[name])[name].slice(0, group.count).to_pylist()
        for place, value in enumerate(values):
            yield group.first + place, value.get("bytes") if isinstance(value, dict) else value


def grouped(texts: pa.Array, suffix: str) -> Grouped:
    """Rows by their text; texts sorted by code points with `suffix` behind each, without it in the result."""
    encoded = texts.dictionary_encode()
    keys = encoded.dictionary
    end, nothing = (pa.scalar(text, pa.large_string()) for text in (suffix, ""))
    order = compute.sort_indices(compute.binary_join_element_wise(keys, end, nothing)).to_numpy()
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    code = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return Grouped(keys.take(pa.array(order)), np.where(code >= 0, place[code], -1) if len(order) else code)


def files_of(tables: str, root: str | None) -> list[str]:
    """The files of a set: a local copy in `root` by the set's name on the hub, or `tables` itself."""
    if root is not None:
        name = tables.rsplit("/data/", 1)[0].rsplit("/", 1)[-1]
        folder = Path(root).expanduser() / name
        copies = sorted([*folder.glob("data/*.parquet"), *folder.glob("*.parquet")])
        if not copies:
            raise FileNotFoundError(f"There is no *.parquet in {folder / 'data'} or {folder}: the copy of {tables}.")
        return [str(path) for path in copies]
    if not is_remote(tables):
        raise ValueError(f"{tables} is not the URL of a data set; a local copy is named by evaluate.benchmark.root.")
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(tables)
        files = sorted(system.glob(path))
    except Exception as error:  # the hub's client has a dozen kinds for "not reachable"
        raise OSError(
            f"{tables} cannot be reached ({type(error).__name__}). Download the data set and name the folder above it: "
            "evaluate.benchmark.root=…"
        ) from error
    if not files:
        raise FileNotFoundError(f"There is nothing at {tables}.")
    return [system.unstrip_protocol(name) for name in files]


@contextmanager
def _opened(file: str) -> Iterator[parquet.ParquetFile]:
    """A Parquet file, local or remote."""
    with _raw(file) if is_remote(file) else nullcontext(file) as source:
        try:
            table = parquet.ParquetFile(source)
        except pa.ArrowException as error:
            raise ValueError(f"{file} is not a Parquet file, or is cut off ({error}).") from error
        with table:
            yield table


def _raw(file: str) -> Any:
    """The bytes of a file, local or remote."""
    if not is_remote(file):
        return open(file, "rb")
    import fsspec

    return fsspec.open(file, "rb").open()
