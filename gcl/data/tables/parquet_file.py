"""Parquet: columns of any type that has a text; images as bytes, paths, lists of them, or the hub's structs."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as parquet

from gcl.data.tables import block as limits
from gcl.data.tables.block import Block, Reading, check_once
from gcl.data.tables.cells import Cell
from gcl.data.tables.source import PIECE, is_zipped

BLOCK_ROWS_WITH_BYTES = 64  # of a file with images in a column
_WHOLE_AS_FLOAT = float(1 << 63)


class ParquetFile:
    """A Parquet file. A text column may also hold lists of texts (joined with commas)."""

    def __init__(self, file: Path, reading: Reading):
        self.file, self.reading = file, reading

    def columns(self) -> list[str]:
        with self._open() as table:
            return table.schema_arrow.names

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        columns = list(dict.fromkeys(text + image))
        with self._open() as table:
            check_once(self.file, table.schema_arrow.names, columns)
            kinds = {name: table.schema_arrow.field(name).type for name in columns}
            heavy = any(not _is_text(kinds[name]) for name in image)
            number = 1
            for batch in table.iter_batches(BLOCK_ROWS_WITH_BYTES if heavy else limits.BLOCK_ROWS, columns=columns):
                block = Block.typed(self.file, list(range(number, number + len(batch))), self.reading)
                for name in columns:
                    self._add(block, name, batch.column(name), is_image=name in image)
                number += len(batch)
                block.place = self._size() * (number - 1) // table.metadata.num_rows
                yield block

    def is_bytes(self, name: str) -> bool:
        """Whether no cell of a column can be a path or a URL."""
        with self._open() as table:
            kind = table.schema_arrow.field(name).type if name in table.schema_arrow.names else pa.string()
        return not _is_text(kind) and not pa.types.is_nested(kind)

    def _size(self) -> int:
        """In bytes."""
        return self.file.stat().st_size

    def _add(self, block: Block, name: str, values: pa.Array, *, is_image: bool) -> None:
        if isinstance(values, pa.DictionaryArray):
            values = values.dictionary_decode()
        if is_image and not _is_text(values.type):
            block.add_images(name, [_image(value) for value in self._parts(name, values)], self.reading)
        else:
            block.add_texts(name, self._texts(name, values), self.reading)

    @contextmanager
    def _open(self) -> Iterator[parquet.ParquetFile]:
        if not is_zipped(self.file):
            about = _metadata(_footer(self.file))
            with parquet.ParquetFile(self.file, metadata=about, memory_map=True, pre_buffer=False) as table:
                yield table
            return
        with unpacked(self.file) as whole, parquet.ParquetFile(whole, memory_map=True, pre_buffer=False) as table:
            yield table

    def _texts(self, name: str, values: pa.Array) -> pa.Array:
        if _is_list(values.type) and not pa.types.is_nested(values.type.value_type):
            flat = pa.array(self._texts(name, values.flatten()).to_pylist(), pa.string())
            lengths = compute.fill_null(compute.list_value_length(values), 0).to_pylist()
            parts, place = flat.to_pylist(), 0
            joined: list[str | None] = []
            for length in lengths:
                joined.append(", ".join(filter(None, parts[place : place + length])) or None)
                place += length
            return pa.array(joined, pa.string())
        if pa.types.is_nested(values.type):
            raise ValueError(
                f"{self.file}: the column {name!r} holds {values.type}; a text is one value or a list of texts: write "
                "the parts into columns of their own."
            )
        if pa.types.is_floating(values.type):
            return _of_floats(values.cast(pa.float32()) if pa.types.is_float16(values.type) else values)
        with suppress(pa.ArrowException, UnicodeDecodeError):
            if not pa.types.is_fixed_size_binary(values.type):  # UUIDs and digests
                return values.cast(pa.string())
        raise ValueError(
            f"{self.file}: the column {name!r} holds {values.type} that is no text (UTF-8): write it as text."
        )

    def _parts(self, name: str, values: pa.Array) -> list[Any]:
        """The cells of a column with bytes, structs or lists."""
        kind = values.type.value_type if _is_list(values.type) else values.type
        if pa.types.is_struct(kind) and "bytes" not in [part.name for part in kind]:
            raise ValueError(
                f"{self.file}: the column {name!r} holds {kind}; expected a struct with 'bytes' and 'path'."
            )
        return values.to_pylist()


@contextmanager
def unpacked(file: Path) -> Iterator[Path]:
    """A gzipped file's content as a file of its own, for formats that are not read from their beginning."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / file.stem
        with gzip.open(file) as source, open(whole, "wb") as target:
            shutil.copyfileobj(source, target, PIECE)
        yield whole


def _footer(file: Path) -> bytes:
    """How a file ends: with its metadata, and the 8 bytes that tell their length."""
    with open(file, "rb") as source:
        size = source.seek(0, os.SEEK_END)
        source.seek(max(size - 8, 0))
        end = source.read()
        length = int.from_bytes(end[:4], "little") if end.endswith(b"PAR1") else 0
        source.seek(max(size - 8 - length, 0))
        return source.read()


@lru_cache(maxsize=16)
def _metadata(footer: bytes) -> parquet.FileMetaData:
    """A table is opened several times, and of many columns this takes seconds. A file's time of change would not do as
    a key: a file that is written twice may keep it."""
    return parquet.read_metadata(pa.BufferReader(footer))


def _image(value: Any) -> Cell:
    """A struct is how Hugging Face datasets store an image: bytes, or else a path."""
    if isinstance(value, dict):
        return value["bytes"] or value.get("path")
    if isinstance(value, list):
        return [part for part in map(_image, value) if isinstance(part, str | bytes)]
    return value if isinstance(value, str | bytes | None) else str(value)


def _of_floats(values: pa.Array) -> pa.Array:
    """Whole numbers without a fraction or an exponent: they are ids as often as not. NaN is null."""
    values = compute.if_else(compute.is_nan(values), None, values)
    texts = values.cast(pa.string())
    whole = compute.and_(
        compute.equal(compute.floor(values), values), compute.less(compute.abs(values), _WHOLE_AS_FLOAT)
    )
    integers = compute.if_else(whole, values, None).cast(pa.int64()).cast(pa.string())
    texts = compute.coalesce(integers, texts)
    if compute.any(compute.greater_equal(compute.abs(values), _WHOLE_AS_FLOAT)).as_py():
        texts = pa.array([_large(text) for text in texts.to_pylist()], pa.string())
    return texts


def _large(text: str | None) -> str | None:
    return f"{int(float(text))}" if text and "e+" in text and abs(float(text)) < float("inf") else text


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    """Whether every cell of the type is a path or URL."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    has_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return not (has_bytes or pa.types.is_fixed_size_binary(kind) or pa.types.is_nested(kind))
