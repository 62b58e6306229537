"""Tables of vectors in Parquet, written as they are made and read back in pieces: an id and some vectors per row."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.files.atomic import PARTIAL, Replacement, replacing

READS_NULLS = int(pa.__version__.split(".")[0]) >= 26
"""Whether pyarrow reads vectors from Parquet where some rows have none."""

_METADATA = b"gcl"


class VectorWriter:
    """One Parquet file of `id`, perhaps `text`, and vectors of a fixed width. A context manager.

    The file gets its name when everything is in it and on the disk; an error leaves nothing.
    columns: names of the vector columns. dtype: "float32" or "float16". about: goes into the schema's metadata.
    keys: whether there is a column `key`, 16 bytes for each row.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str],
        width: int,
        *,
        dtype: str = "float32",
        texts: bool = False,
        keys: bool = False,
        about: Mapping[str, Any],
    ) -> None:
        self._target = Replacement(path)
        self._columns, self._dtype, self._texts, self._keys = list(columns), np.dtype(dtype), texts, keys
        # A row may have no vector, but no vector lacks a number: saying so lets it be read in .7 of the time.
        self._vector = pa.list_(pa.field("element", pa.from_numpy_dtype(self._dtype), nullable=False), width)
        fields = [pa.field("id", pa.string(), nullable=False)]
        fields += [pa.field("text", pa.string())] if texts else []
        fields += [pa.field("key", pa.binary(16), nullable=False)] if keys else []
        fields += [pa.field(name, self._vector) for name in self._columns]
        self._schema = pa.schema(fields, metadata={_METADATA: json.dumps(about, sort_keys=True).encode()})

    def __enter__(self) -> VectorWriter:
        # zstd would save 7 % of the vectors, and take half of the time in which they are read
        compression = dict.fromkeys(("id", "text", "key"), "zstd")
        self._file = parquet.ParquetWriter(
            self._target.temporary, self._schema, compression=compression, use_dictionary=["id"]
        )
        return self

    def write(
        self,
        ids: Sequence[str],
        vectors: Mapping[str, np.ndarray],
        *,
        present: Mapping[str, np.ndarray] | None = None,
        texts: Sequence[str | None] | None = None,
        keys: Sequence[bytes] | None = None,
    ) -> None:
        """Some rows, as a row group of their own. vectors: {column: [n, D]}; present[n] False: no vector there."""
        arrays: list[pa.Array] = [pa.array([str(name) for name in ids], pa.string())]
        if self._texts:
            arrays.append(pa.array(texts, pa.string()))
        if self._keys:
            arrays.append(pa.array(keys, pa.binary(16)))
        for name in self._columns:
            values = np.ascontiguousarray(vectors[name], dtype=self._dtype)
            absent = None if present is None else pa.array(~np.asarray(present[name], dtype=bool))
            arrays.append(
                pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=self._vector, mask=absent)
            )
        self._file.write_batch(pa.record_batch(arrays, schema=self._schema))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._file.close()
            if kind is None:
                self._target.commit()
        finally:
            self._target.discard()


def about_vectors(path: str | Path) -> dict[str, Any] | None:
    """What the file's writer noted about it; None where there is no such file, or it is not one of ours."""
    try:
        metadata = parquet.read_schema(path).metadata or {}
        return json.loads(metadata[_METADATA])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def vector_rows(path: str | Path) -> int:
    """Number of rows, of the metadata alone."""
    return parquet.read_metadata(path).num_rows


def vector_keys(path: str | Path) -> Iterator[tuple[str, bytes]]:
    """Each row's id and key, of a file that has keys."""
    table = parquet.read_table(path, columns=["id", "key"])
    return zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True)


def vectors_at(path: str | Path, columns: Sequence[str], rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{column: (vectors [n, D] as they are stored, present [n] bool)} of some rows; 0 where there is no vector. Reads
    the row groups that have them."""
    file = parquet.ParquetFile(path)
    count = np.array([file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)])
    group = np.searchsorted(np.cumsum(count), rows, side="right")
    read = np.unique(group)
    skipped = np.cumsum(np.where(np.isin(np.arange(len(count)), read), 0, count))
    table = file.read_row_groups(read.tolist(), columns=list(columns)).take(pa.array(rows - skipped[group]))
    found = {}
    for name in columns:
        vectors = table[name].combine_chunks()
        present = vectors.is_valid().to_numpy(zero_copy_only=False)
        numbers = vectors.flatten().to_numpy(zero_copy_only=False)
        whole = np.zeros((len(rows), vectors.type.list_size), numbers.dtype)
        whole[present] = numbers.reshape(-1, vectors.type.list_size)
        found[name] = whole, present
    return found


def write_lance(files: Sequence[Path], target: Path) -> None:
    """All rows of some files as one Lance data set, a folder that has its name when it is whole."""
    import lance

    unfinished = target.with_name(f".{target.name}{PARTIAL}")
    shutil.rmtree(unfinished, ignore_errors=True)
    # Files of earlier versions say that a vector may lack numbers. Lance stores it so in any case.
    schema = pa.schema([
        field.with_type(pa.list_(field.type.value_type, field.type.list_size))
        if pa.types.is_fixed_size_list(field.type) else field
        for field in parquet.read_schema(files[0])
    ])  # fmt: skip
    batches = (batch.cast(schema) for file in files for batch in parquet.ParquetFile(file).iter_batches())
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), unfinished)
    os.replace(unfinished, target)


def vector_batches(path: str | Path, column: str, rows: int = 16_384) -> Iterator[tuple[list[str], np.ndarray]]:
    """(ids, vectors float32 [n, D]) of the rows that have one, at most `rows` at a time."""
    file = parquet.ParquetFile(path)
    for group in range(file.num_row_groups):  # one after the other: all at once are read ahead, the whole file
        yield from _group_batches(file.iter_batches(rows, row_groups=[group], columns=["id", column]), column)


def _group_batches(batches: Iterator[pa.RecordBatch], column: str) -> Iterator[tuple[list[str], np.ndarray]]:
    for batch in batches:
        vectors = batch.column(column)
        kept = np.flatnonzero(vectors.is_valid().to_numpy(zero_copy_only=False))
        ids = batch.column("id").take(pa.array(kept)).to_pylist()
        numbers = vectors.flatten().to_numpy(zero_copy_only=False)  # flatten leaves out what is null
        yield ids, numbers.astype(np.float32).reshape(len(ids), vectors.type.list_size)


def write_row_ids(path: str | Path, ids: Iterator[Sequence[str]]) -> None:
    """A Parquet file `row`, `id`: the id of each row of an index."""
    schema = pa.schema([pa.field("row", pa.int64(), nullable=False), pa.field("id", pa.string(), nullable=False)])
    start = 0
    with replacing(path) as partial, parquet.ParquetWriter(partial, schema, compression="zstd") as file:
        for part in ids:
            rows = np.arange(start, start + len(part))
            file.write_batch(pa.record_batch([pa.array(rows), pa.array(list(part), pa.string())], schema=schema))
            start += len(part)


def read_row_ids(path: str | Path) -> list[str]:
    """What `write_row_ids` wrote."""
    return parquet.read_table(path, columns=["id"])["id"].to_pylist()


def write_rows(
    path: str | Path, columns: Mapping[str, type], pieces: Iterable[tuple[Sequence[str], Mapping[str, Sequence[Any]]]]
) -> None:
    """A Parquet file of `id` and columns of str or float, which may be None: what goes beside vectors. pieces: ids and
    the columns' values."""
    types = {name: pa.string() if kind is str else pa.float64() for name, kind in columns.items()}
    schema = pa.schema([("id", pa.string()), *types.items()])
    with replacing(path) as partial, parquet.ParquetWriter(partial, schema, compression="zstd") as file:
        for ids, values in pieces:
            arrays = [pa.array(ids, pa.string()), *(pa.array(values[name], kind) for name, kind in types.items())]
            file.write_batch(pa.record_batch(arrays, schema=schema))


def read_rows(path: str | Path, columns: Sequence[str], rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(row of the first, some columns of at most `rows` rows)"""
    start = 0
    for batch in parquet.ParquetFile(path).iter_batches(rows, columns=list(columns)):
        yield start, batch
        start += len(batch)


def vectors_beside(files: Sequence[Path], beside: Path, *, rows: int, start: int = 0) -> Iterator[tuple[int, pa.Table]]:
    """(row of the first, `id`, `vector` as float32 and the columns of `beside`, which has the rows of all files in
    their order), from the row `start` on, `rows` at a time. The parts of a table are those of the files: nothing is
    copied."""
    pieces, at = _Pieces(_beside(files, beside, start)), start
    while parts := [*pieces.take(rows)]:
        table = pa.Table.from_batches(parts)
        yield at, table
        at += len(table)


def _beside(files: Sequence[Path], beside: Path, start: int) -> Iterator[pa.RecordBatch]:
    further, schema = _Pieces(_groups(beside, None, start)), parquet.read_schema(beside)
    for path in files:
        rows = vector_rows(path)
        for piece in _groups(path, ["id", "vector"], start) if start < rows else ():
            others = pa.Table.from_batches(further.take(len(piece)), schema).combine_chunks()
            if others.column("id").combine_chunks() != piece.column("id"):
                raise ValueError(f"{beside} does not have the documents of {path.name} in their order: remove it.")
            vector = piece.column("vector")
            numbers = vector.flatten().cast(pa.float32())
            columns = [piece.column("id"), pa.FixedSizeListArray.from_arrays(numbers, vector.type.list_size)]
            names = [name for name in others.column_names if name != "id"]
            columns += [others.column(name).combine_chunks() for name in names]
            yield pa.record_batch(columns, names=["id", "vector", *names])
        start = max(0, start - rows)


def _groups(path: Path, columns: Sequence[str] | None, start: int) -> Iterator[pa.RecordBatch]:
    """A file's rows from `start` on, a row group at a time."""
    file = parquet.ParquetFile(path)
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if start < rows:
            yield from file.read_row_group(group, columns=columns).slice(start).combine_chunks().to_batches()
        start = max(0, start - rows)


class _Pieces:
    """Batches, taken in pieces of any size."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches, self._rest = batches, pa.record_batch({})

    def take(self, rows: int) -> Iterator[pa.RecordBatch]:
        """The next rows, in one or more batches; fewer at the end."""
        while rows and (piece := self._rest if len(self._rest) else next(self._batches, None)) is not None:
            self._rest = piece.slice(rows)
            yield piece.slice(0, rows)
            rows -= min(rows, len(piece))
