"""Tables of vectors in Parquet, written as they are made and read back in pieces: an id and some vectors per row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.files.atomic import Replacement, replacing

_METADATA = b"gcl"


class VectorWriter:
    """One Parquet file of `id`, perhaps `text`, and vectors of a fixed width. A context manager.

    The file gets its name when everything is in it and on the disk; an error leaves nothing.
    columns: names of the vector columns. dtype: "float32" or "float16". about: goes into the schema's metadata.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str],
        width: int,
        *,
        dtype: str = "float32",
        texts: bool = False,
        about: Mapping[str, Any],
    ) -> None:
        self._target = Replacement(path)
        self._columns, self._dtype, self._texts = list(columns), np.dtype(dtype), texts
        self._vector = pa.list_(pa.from_numpy_dtype(self._dtype), width)
        fields = [pa.field("id", pa.string(), nullable=False)]
        fields += [pa.field("text", pa.string())] if texts else []
        fields += [pa.field(name, self._vector) for name in self._columns]
        self._schema = pa.schema(fields, metadata={_METADATA: json.dumps(about, sort_keys=True).encode()})

    def __enter__(self) -> VectorWriter:
        target = self._target.temporary
        self._file = parquet.ParquetWriter(target, self._schema, compression="zstd", use_dictionary=["id"])
        return self

    def write(
        self,
        ids: Sequence[str],
        vectors: Mapping[str, np.ndarray],
        *,
        present: Mapping[str, np.ndarray] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """Some rows, as a row group of their own. vectors: {column: [n, D]}; present[n] False: no vector there."""
        arrays: list[pa.Array] = [pa.array([str(name) for name in ids], pa.string())]
        if self._texts:
            arrays.append(pa.array(texts, pa.string()))
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
