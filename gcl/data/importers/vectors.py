"""Vectors computed elsewhere, in Parquet files: an id and a vector per row, perhaps a text and a side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.data.tables.cells import canonical_id
from gcl.files.atomic import replacing

_NAMES = {
    "id": ("id", "_id", "document_id", "product_id", "item_ID", "item_id", "query_id"),
    "vector": ("vector", "embedding", "embeddings"),
    "text": ("text", "query"),
    "side": ("side",),
}


@dataclass(frozen=True)
class Vectors:
    """N rows: ids, vector[N, D] float32 as in the files, texts and sides ("query" or "document") if there."""

    ids: list[str]
    vector: np.ndarray
    texts: list[str | None] | None = None
    sides: list[str | None] | None = None


def read_vectors(paths: Sequence[str | Path]) -> Vectors:
    """The rows of all files together.

    Raises FileNotFoundError, or ValueError in a sentence for a file that is not such a table, rows without id or
    vector, vectors of different widths, and values that are not finite.
    """
    parts = [_read(Path(path)) for path in paths]
    widths = {part.vector.shape[1]: path for part, path in zip(parts, paths, strict=True)}
    if len(widths) > 1:
        named = ", ".join(f"{width} in {path}" for width, path in widths.items())
        raise ValueError(f"The vectors have different widths ({named}): queries and documents come from one model.")
    return Vectors(
        [name for part in parts for name in part.ids],
        np.concatenate([part.vector for part in parts]),
        _joined([part.texts for part in parts], parts),
        _joined([part.sides for part in parts], parts),
    )


def check_vectors(files: str) -> None:
    """Raises FileNotFoundError or ValueError for a file that is not Parquet, or lacks a column. files: with + between.
    No vector is read."""
    for file in files.split("+"):
        _columns(Path(file))


def _columns(path: Path) -> dict[str, str | None]:
    """{what is read: its column, or None}."""
    if not path.is_file():
        raise FileNotFoundError(f"embeddings:{path}: there is no such file.")
    try:
        columns = parquet.ParquetFile(path).schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"embeddings:{path} is not a Parquet file ({error}).") from error
    present = {key: next((name for name in names if name in columns), None) for key, names in _NAMES.items()}
    for key in ("id", "vector"):
        if present[key] is None:
            raise ValueError(
                f"embeddings:{path} has no column {_NAMES[key][0]!r} (or {', '.join(_NAMES[key][1:])}); its columns: "
                f"{', '.join(columns)}."
            )
    return present


def _read(path: Path) -> Vectors:
    present = _columns(path)
    table = parquet.read_table(path, columns=[name for name in present.values() if name])
    values = table[present["id"]].to_pylist()
    if None in values:
        raise ValueError(f"embeddings:{path}: row {values.index(None)} has no id.")
    ids = [canonical_id(str(value)) for value in values]
    return Vectors(
        ids,
        _matrix(table[present["vector"]].combine_chunks(), path, ids),
        _texts(table, present["text"]),
        _texts(table, present["side"]),
    )


def _matrix(column: pa.Array, path: Path, ids: list[str]) -> np.ndarray:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise ValueError(f"embeddings:{path}: the vectors are {column.type}, expected lists of numbers.")
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise ValueError(f"embeddings:{path}: {column.null_count} rows have no vector; the first is {ids[row]!r}.")
    numbers = column.flatten()
    if not (pa.types.is_floating(numbers.type) or pa.types.is_integer(numbers.type)) or numbers.null_count:
        raise ValueError(f"embeddings:{path}: the vectors hold {numbers.type} or empty cells, expected numbers.")
    if not pa.types.is_fixed_size_list(column.type):
        lengths = column.value_lengths().to_numpy()
        odd = np.flatnonzero(lengths != lengths[:1])
        if len(odd):
            raise ValueError(
                f"embeddings:{path}: {len(odd)} vectors do not have the width {lengths[0]} of the first; "
                f"{ids[odd[0]]!r} has {lengths[odd[0]]} numbers."
            )
    if not ids:
        raise ValueError(f"embeddings:{path} has no rows.")
    matrix = numbers.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(len(ids), -1)
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1) | ~matrix.any(axis=1))
    if len(bad):
        raise ValueError(
            f"embeddings:{path}: {len(bad)} vectors hold NaN or infinity or are zero; the first is that of "
            f"{ids[bad[0]]!r}."
        )
    return matrix


def _texts(table: pa.Table, name: str | None) -> list[str | None] | None:
    return None if name is None else [None if value is None else str(value) for value in table[name].to_pylist()]


def _joined(columns: list[list | None], parts: list[Vectors]) -> list | None:
    if all(column is None for column in columns):
        return None
    return [v for column, part in zip(columns, parts, strict=True) for v in (column or [None] * len(part.ids))]


def write_columns(path: str | Path, columns: dict[str, Sequence | np.ndarray]) -> Path:
    """Writes a Parquet file of these columns; returns its path."""
    with replacing(path) as partial:
        parquet.write_table(pa.table(columns), partial, compression="zstd")
    return Path(path)
