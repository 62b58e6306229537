"""Reader of Parquet files: texts as they are written, images as bytes, paths or the hub's {bytes, path}."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as parquet

from gcl.data.tables import block as of
from gcl.data.tables.block import Block, Cell, present, zipped


class ParquetFile:
    def __init__(self, file: Path):
        self.file = file

    def _open(self, place: str) -> parquet.ParquetFile:
        if not zipped(self.file):
            return parquet.ParquetFile(self.file, memory_map=True, pre_buffer=False)
        whole = Path(place) / "table.parquet"  # Parquet is read from its end: a gzipped one is unpacked first
        with gzip.open(self.file) as source, open(whole, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return parquet.ParquetFile(whole, memory_map=True, pre_buffer=False)

    def columns(self) -> list[str]:
        with tempfile.TemporaryDirectory() as place, self._open(place) as table:
            return table.schema_arrow.names

    def blocks(self, text: list[str], image: list[str]) -> Iterator[Block]:
        columns = list(dict.fromkeys(text + image))
        with tempfile.TemporaryDirectory() as place, self._open(place) as table:
            kinds = {name: table.schema_arrow.field(name).type for name in columns}
            heavy = any(_is_bytes(kinds[name]) or pa.types.is_struct(kinds[name]) for name in image)
            number = 1
            for batch in table.iter_batches(of.BLOCK_ROWS_WITH_BYTES if heavy else of.BLOCK_ROWS, columns=columns):
                cells = {name: self._texts(name, batch.column(name)) for name in text}
                cells |= {name: self._images(name, batch.column(name)) for name in image}
                yield Block(self.file, list(range(number, number + len(batch))), cells)
                number += len(batch)

    def _texts(self, name: str, values: pa.Array) -> list[str | None]:
        if isinstance(values, pa.DictionaryArray):
            values = values.dictionary_decode()
        if pa.types.is_nested(values.type):
            raise ValueError(
                f"{self.file}: the column {name!r} holds {values.type}; a text is one value: join the parts first."
            )
        if pa.types.is_floating(values.type):
            values = compute.if_else(compute.is_nan(values), None, values)
        return present(values.cast(pa.string())).to_pylist()

    def _images(self, name: str, values: pa.Array) -> list[Cell]:
        if pa.types.is_struct(values.type):  # the form Hugging Face datasets give an image: bytes, or else a path
            parts = {part.name: values.field(part.name) for part in values.type}
            if "bytes" not in parts:
                raise ValueError(
                    f"{self.file}: the column {name!r} holds {values.type}; expected a struct with 'bytes' and 'path'."
                )
            paths = self._texts(name, parts["path"]) if "path" in parts else [None] * len(values)
            there = values.is_valid().to_pylist()
            return [(data or path) if valid else None
                    for data, path, valid in zip(parts["bytes"].to_pylist(), paths, there, strict=True)]  # fmt: skip
        if _is_bytes(values.type):
            return [data or None for data in values.to_pylist()]
        return self._texts(name, values)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
