"""Rows that a program holds in memory -> a table: a DataFrame of pandas or polars, an Arrow table, a list of dicts.

1. `arrow_table`: through Arrow where the object offers it (`__arrow_c_stream__`), else value by value: images of PIL
   become PNG files, paths texts
2. `FrameRows`: its rows in blocks, read by the rules of Parquet, so that a cell in memory means what it means in a file
3. `write_frame`: the table as a Parquet file that is called by its content, so that a run can be measured again later
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.data.tables.block import Reading
from gcl.data.tables.parquet_file import ParquetFile
from gcl.files.atomic import Replacement
from gcl.files.digest import file_sha256

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")
_OF_PANDAS = "__index_level_"  # an index without a name, which pandas hands over as a column


def collected(rows: Any) -> Any:
    """What is read: a LazyFrame of polars as its DataFrame, a Series or an array as the list of its values.

    >>> collected(pa.array(["red boots", None]))
    ['red boots', None]
    """
    if hasattr(rows, "collect_schema") and hasattr(rows, "lazy") and not hasattr(rows, "to_dicts"):
        return rows.collect()
    if hasattr(rows, "columns") or hasattr(rows, "column_names"):
        return rows
    for listed in ("to_list", "to_pylist", "tolist"):  # pandas and polars; Arrow; numpy
        if hasattr(rows, listed):
            return getattr(rows, listed)()
    return rows


def is_frame(rows: Any) -> bool:
    """Whether it is a table with columns: anything that speaks Arrow, or an older DataFrame."""
    return hasattr(rows, "__arrow_c_stream__") or (hasattr(rows, "columns") and hasattr(rows, "__getitem__"))


def arrow_table(rows: Any) -> pa.Table:
    """Rows as an Arrow table. Raises ValueError, in a sentence, for anything else, and for a value that no cell holds.

    >>> arrow_table([{"id": 1, "title": "shoe"}, {"id": 2}]).to_pylist()
    [{'id': 1, 'title': 'shoe'}, {'id': 2, 'title': None}]
    """
    rows = collected(rows)
    if isinstance(rows, pa.Table):
        return _plain(rows)
    if is_frame(rows):
        try:
            table = pa.table(rows)
        except (pa.ArrowException, TypeError, ValueError, AttributeError):  # cells of PIL, of several types …
            table = pa.table({str(name): _array(str(name), list(rows[name])) for name in rows.columns})
        return _plain(table.select([name for name in table.column_names if not name.startswith(_OF_PANDAS)]))
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes) and all(isinstance(r, Mapping) for r in rows):
        names = list(dict.fromkeys(name for row in rows for name in row))
        return pa.table({str(name): _array(str(name), [row.get(name) for row in rows]) for name in names})
    raise ValueError(
        f"A table is a DataFrame (pandas, polars), an Arrow table or a list of dicts, or the path of a file; given "
        f"{_what(rows)}."
    )


def _array(name: str, values: list[Any]) -> pa.Array:
    cells = [cell_of(value, name) for value in values]
    if any(isinstance(cell, bytes) for cell in cells) and any(isinstance(cell, str) for cell in cells):
        # images and paths of images: both forms of Hugging Face's struct
        cells = [{"bytes": c if isinstance(c, bytes) else None, "path": c if isinstance(c, str) else None}
                 if isinstance(c, bytes | str) else None for c in cells]  # fmt: skip
    try:
        return pa.array(cells)
    except (pa.ArrowException, TypeError):
        if any(isinstance(cell, list | dict) for cell in cells):
            kinds = ", ".join(sorted({type(cell).__name__ for cell in cells if cell is not None}))
            raise ValueError(f"The column {name!r} holds {kinds}: give all its values one kind.") from None
        return pa.array([None if cell is None else str(cell) for cell in cells], pa.string())


def cell_of(value: Any, name: str) -> Any:
    """A value as a cell: None for what is missing, the PNG of an image of PIL, the text of a path.

    >>> cell_of(float("nan"), "price"), cell_of(Path("a.jpg"), "image"), cell_of((1, 2), "sizes")
    (None, 'a.jpg', [1, 2])
    """
    if value is None or isinstance(value, str | bytes | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        return [cell_of(one, name) for one in value]
    if isinstance(value, Mapping):
        return {key: cell_of(one, name) for key, one in value.items()}
    if type(value).__name__ in ("NAType", "NaTType"):  # of pandas
        return None
    if hasattr(value, "getexif") and hasattr(value, "save"):
        return _png(value)
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # a number of numpy
        return cell_of(value.item(), name)
    if hasattr(value, "isoformat") or hasattr(value, "as_tuple"):  # dates and decimals, which Arrow knows
        return value
    raise ValueError(
        f"{name!r} holds {_what(value)}: a text, a number, or for an image a PIL image, the bytes of its file, a path "
        "or a URL."
    )


def _png(image: Any) -> bytes:
    """The pixels of a PIL image without loss, with the orientation that its file gave them."""
    out = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(out, "PNG", exif=image.getexif())
    return out.getvalue()


_PLAIN = {pa.large_string(): pa.string(), pa.string_view(): pa.string(), pa.large_binary(): pa.binary(),
          pa.binary_view(): pa.binary()}  # fmt: skip
_MOST_BYTES = 1 << 31  # of an array of the plain types


def _plain(table: pa.Table) -> pa.Table:
    """The same whatever library it came from: pandas, polars and Python call a column of texts differently."""
    columns = [pa.chunked_array([_plain_array(chunk) for chunk in column.chunks] or [pa.array([], pa.string())])
               for column in table.columns]  # fmt: skip
    return pa.table(columns, table.column_names)


def _plain_array(values: pa.Array) -> pa.Array:
    if isinstance(values, pa.DictionaryArray):
        return _plain_array(values.dictionary).take(values.indices)
    return values.cast(_PLAIN.get(values.type, values.type)) if values.nbytes < _MOST_BYTES else values


def _what(value: Any) -> str:
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"a value of the type {name}"


class FrameRows(ParquetFile):
    """An Arrow table in the place of a Parquet file. name: what messages call it."""

    def __init__(self, table: pa.Table, name: str, reading: Reading) -> None:
        super().__init__(Path(name), reading)
        self.schema_arrow, self.num_rows = table.schema, len(table)
        self._table = table

    @property
    def metadata(self) -> FrameRows:
        """As of a Parquet file."""
        return self

    def _size(self) -> int:
        return self._table.nbytes

    @contextmanager
    def _open(self) -> Iterator[Any]:
        yield self

    def iter_batches(self, size: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """As of a Parquet file."""
        yield from self._table.select(columns).to_batches(max_chunksize=size)


def write_frame(rows: Any, folder: Path, name: str) -> Path:
    """`<folder>/<name>-<digest of its content>.parquet`, written unless it is there; returns its path."""
    writing = Replacement(folder / f"{name}.parquet")
    try:
        parquet.write_table(arrow_table(rows), writing.temporary)
        writing.path = folder / f"{name}-{file_sha256(writing.temporary)[:12]}.parquet"
        writing.commit()
    finally:
        writing.discard()
    return writing.path.absolute()
