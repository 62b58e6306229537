"""Records -> ordinary WebDataset tars and an index table that says where each value lies.

A record is stored once, as adjacent members `{row:09d}.{field}.{extension}` and `{row:09d}.json` = {"id": ...}. The
index table `<prefix>.parquet` has one row per record: id, shard, and per field `offset`, `length` (-1: absent) and
`hash` (first 16 bytes of the value's SHA-256); its metadata lists the shards with size, SHA-256 and count. Any
WebDataset reader can read the tars; our own (`store.py`) needs no walk over them. Same records, same bytes.

The further images of a set are the members `{row:09d}.{field}.1.{extension}`, `.2`, …; its `offset`, `length` and
`hashes` are lists, and its `hash` is its only image's, or that of all their hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as pq

from gcl.data.store.records import Record
from gcl.data.store.tar import pack_header
from gcl.files.atomic import Replacement
from gcl.schema import Field, Modality

BLOCK = 512
_BUFFER = 1 << 18  # bytes that are written at once
RECORD = 20 * BLOCK  # what a tar's length is a multiple of (POSIX ustar)
FORMAT_VERSION = 1
METADATA_KEY = b"gcl"
_quoted = json.JSONEncoder(ensure_ascii=False).encode
_MAGIC = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif"),
          (b"BM", "bmp"), (b"II*\0", "tif"), (b"MM\0*", "tif"), (b"\0\0\0\x0cjP  ", "jp2"))  # fmt: skip


def image_extension(data: bytes) -> str:
    """The usual file extension of an image, from its first bytes; "bin" for anything unknown.

    >>> image_extension(b"RIFF....WEBPVP8 "), image_extension(b"<html>")
    ('webp', 'bin')
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif"
    return next((extension for magic, extension in _MAGIC if data.startswith(magic)), "bin")


def content_hash(value: bytes) -> bytes:
    """The 16 bytes by which equal values are recognised: the front half of SHA-256."""
    return hashlib.sha256(value).digest()[:16]


def set_hash(hashes: Sequence[bytes]) -> bytes:
    """That of a set, by those of its images."""
    return hashes[0] if len(hashes) == 1 else content_hash(b"".join(hashes))


def index_columns(fields: Mapping[str, Field]) -> pa.Schema:
    """Columns of an index table whose side has these fields."""
    columns = [pa.field("id", pa.string(), nullable=False), pa.field("shard", pa.int32(), nullable=False)]
    for name, spec in fields.items():
        place = pa.list_(pa.int64()) if spec.is_set else pa.int64()
        columns += [
            pa.field(f"{name}.offset", place, nullable=False),
            pa.field(f"{name}.length", place, nullable=False),
            pa.field(f"{name}.hash", pa.binary(16)),
        ]
        if spec.is_set:
            columns.append(pa.field(f"{name}.hashes", pa.list_(pa.binary(16)), nullable=False))
    return pa.schema(columns)


Place = tuple[int, int, bytes]
"""Offset, length and content hash of a value in its shard."""


class _Places:
    """The index columns of a field, for some rows."""

    def __init__(self) -> None:
        self.offset, self.length = array("q"), array("q")
        self.hash: list[bytes | None] = []

    def append(self, place: Any) -> None:
        """place: a Place, or None."""
        offset, length, digest = place or (0, -1, None)
        self.offset.append(offset)
        self.length.append(length)
        self.hash.append(digest)

    def columns(self) -> list[pa.Array]:
        return [
            pa.array(self.offset, pa.int64()),
            pa.array(self.length, pa.int64()),
            pa.array(self.hash, pa.binary(16)),
        ]


class _SetPlaces(_Places):
    """Those of a set: of all images of all rows, with the number at which each row's begin."""

    def __init__(self) -> None:
        super().__init__()
        self.hashes: list[bytes] = []
        self.first = array("i", [0])

    def append(self, place: Any) -> None:
        """place: those of the images, or None."""
        images: Sequence[Place] = place or ()
        self.offset.extend(offset for offset, _, _ in images)
        self.length.extend(length for _, length, _ in images)
        self.hashes += [digest for _, _, digest in images]
        self.hash.append(set_hash(self.hashes[-len(images) :]) if images else None)
        self.first.append(len(self.hashes))

    def columns(self) -> list[pa.Array]:
        first = pa.array(self.first, pa.int32())
        offset, length, hash = super().columns()
        hashes = pa.array(self.hashes, pa.binary(16))
        offset, length, hashes = (pa.ListArray.from_arrays(first, flat) for flat in (offset, length, hashes))
        return [offset, length, hash, hashes]


class IndexWriter:
    """Writes one index table in blocks of rows, so that millions of records never lie in memory at once."""

    def __init__(self, path: str | Path, side: Mapping[str, Field]) -> None:
        self._side, self._target = dict(side), Replacement(path)
        self._columns = index_columns(self._side)
        self._file = pq.ParquetWriter(self._target.temporary, self._columns, compression="zstd")
        self._rows = 0
        self._clear()

    def _clear(self) -> None:
        self._id: list[str] = []
        self._shard = array("i")
        self._places = {name: _SetPlaces() if spec.is_set else _Places() for name, spec in self._side.items()}

    def append(self, identifier: str, shard: int, places: Mapping[str, Place | Sequence[Place]]) -> int:
        """One record: the place of each field it has, of a set those of its images. Returns its row."""
        self._id.append(identifier)
        self._shard.append(shard)
        for name, column in self._places.items():
            column.append(places.get(name))
        self._rows += 1
        if len(self._id) >= 1 << 16:
            self._flush()
        return self._rows - 1

    def _flush(self) -> None:
        columns: list[Any] = [pa.array(self._id, pa.string()), pa.array(self._shard, pa.int32())]
        for places in self._places.values():
            columns += places.columns()
        self._file.write_table(pa.table(columns, schema=self._columns))
        self._clear()

    def close(self, shards: list[dict[str, Any]], json_keys: Mapping[str, str] | None = None) -> None:
        """Commits the table. `json_keys`: fields whose place is a JSON member's, with the key that holds the value."""
        if self._id or not self._rows:
            self._flush()
        about = {
            "version": FORMAT_VERSION,
            "rows": self._rows,
            "fields": {name: spec.kind for name, spec in self._side.items()},
            "json_keys": dict(json_keys or {}),
            "shards": shards,
        }
        self._file.add_key_value_metadata({METADATA_KEY: json.dumps(about, sort_keys=True).encode()})
        self._file.close()
        self._target.commit()

    def abandon(self) -> None:
        self._file.close()
        self._target.discard()


def make_absent(path: Path, absent: Mapping[str, Collection[int]]) -> None:
    """Rewrites an index table, a row group at a time, so that fields are absent in some rows: {field: rows}. The bytes
    stay in the shards, where nothing points to them."""
    file = pq.ParquetFile(path)
    target, start = Replacement(path), 0
    nothing: dict[str, Any] = {"offset": 0, "length": -1, "hash": None, "hashes": []}
    rows = {name: np.sort(np.fromiter(several, np.int64)) for name, several in absent.items()}
    with pq.ParquetWriter(target.temporary, file.schema_arrow.remove_metadata(), compression="zstd") as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            for name, several in rows.items():
                here = np.zeros(len(table), bool)
                here[several[(several >= start) & (several < start + len(table))] - start] = True
                for part, value in nothing.items():
                    if (column := f"{name}.{part}") in table.column_names:
                        kind = table.schema.field(column)
                        empty = pa.scalar([] if pa.types.is_list(kind.type) else value, kind.type)
                        kept = compute.if_else(pa.array(here), empty, table[column])
                        table = table.set_column(table.column_names.index(column), kind, kept)
            writer.write_table(table.replace_schema_metadata(None))
            start += len(table)
        writer.add_key_value_metadata({METADATA_KEY: (file.metadata.metadata or {})[METADATA_KEY]})
    target.commit()


class ShardWriter:
    """Writes the records of one side into `<folder>/<prefix>-00000.tar`, ... and `<folder>/<prefix>.parquet`.

    A context manager: the index table, without which nothing reads the shards, appears only when the block ends
    without an exception. Identifiers must be distinct.
    """

    def __init__(
        self, folder: str | Path, prefix: str, *, side: Mapping[str, Field], shard_bytes: int = 256 << 20
    ) -> None:
        if shard_bytes <= 0:
            raise ValueError(f"shard_bytes is {shard_bytes}: a shard needs a positive number of bytes.")
        if len({name.lower() for name in side}) < len(side):
            raise ValueError(
                f"The fields {', '.join(side)} differ only in upper and lower case, which WebDataset readers do not "
                "tell apart: rename one and give the table's column as <field>.column."
            )
        self.folder, self.prefix, self.side, self.shard_bytes = Path(folder), prefix, dict(side), shard_bytes
        self._sets = {name for name, spec in self.side.items() if spec.is_set}
        self.shards: list[dict[str, Any]] = []
        self.folder.mkdir(parents=True, exist_ok=True)
        self._index = IndexWriter(self.folder / f"{prefix}.parquet", self.side)
        self._file: BinaryIO | None = None
        self._size, self._records, self._row = 0, 0, 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Removes what was written."""
        if self._file is not None:
            self._file.close()
        self._index.abandon()
        for number in range(len(self.shards) + 1):
            self._path(number).unlink(missing_ok=True)

    def write(self, identifier: str, record: Record, hashes: Mapping[str, Sequence[bytes]] = {}) -> int:
        """Stores one record and returns its row. None, "", b"" and () are absent values. hashes: content hashes of a
        field's values, where they are known.

        Raises ValueError for a record without any value, and for values the schema does not allow."""
        if unknown := record.keys() - self.side.keys():
            known = ", ".join(self.side)
            raise ValueError(f"Record {identifier!r} has a field {min(unknown)!r} the schema lacks; fields: {known}.")
        values = [
            (name, *member)
            for name in self.side
            if record.get(name)
            for member in self._encoded(name, identifier, record[name])
        ]
        if not values:
            raise ValueError(f"Record {identifier!r} has no value in any of its fields ({', '.join(self.side)}).")
        key = f"{self._row:09d}"
        about = _utf8(f'{{"id": {_quoted(identifier)}}}', "id", identifier)
        members = [(f"{key}.{name}.{extension}", data) for name, extension, data in values] + [(f"{key}.json", about)]
        parts: list[bytes] = []
        starts, needed = [], 0
        for label, data in members:
            size = len(data)
            parts += (pack_header(label, size), data, bytes(-size % BLOCK))
            starts.append(needed + BLOCK)
            needed += BLOCK + size + -size % BLOCK
        if self._file is not None and self._size + needed + 2 * BLOCK > self.shard_bytes:
            self._finish()
        if self._file is None:
            self._file, self._hash = self._path(len(self.shards)).open("wb", _BUFFER), hashlib.sha256()
        begin = self._size
        self._put(self._file, b"".join(parts))
        places: dict[str, Any] = {}
        for (name, _, data), start in zip(values, starts, strict=False):  # the last start is the id's
            several = places.setdefault(name, [])
            digest = hashes[name][len(several)] if name in hashes else content_hash(data)
            several.append((begin + start, len(data), digest))
        for name in places.keys() - self._sets:
            (places[name],) = places[name]
        self._index.append(identifier, len(self.shards), places)
        self._records += 1
        self._row += 1
        return self._row - 1

    def close(self) -> None:
        self._finish()
        self._index.close(self.shards)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.prefix}-{number:05d}.tar"

    def _encoded(self, name: str, identifier: str, value: object) -> list[tuple[str, bytes]]:
        """(end of the member's name, its bytes) of a field: of a set one for each image, else one."""
        if self.side[name].modality is Modality.text:
            if not isinstance(value, str):
                raise ValueError(f"Record {identifier!r}, field {name}: a text is str, not {type(value).__name__}.")
            return [("txt", _utf8(value, name, identifier))]
        if isinstance(value, tuple) is not (name in self._sets):
            expected = "a tuple of images" if name in self._sets else "one image"
            raise ValueError(f"Record {identifier!r}, field {name}: expected {expected}, not {type(value).__name__}.")
        images = value if isinstance(value, tuple) else (value,)
        for image in images:
            if not isinstance(image, bytes):
                raise ValueError(f"Record {identifier!r}, field {name}: an image is bytes, not {type(image).__name__}.")
        return [(("" if not n else f"{n}.") + image_extension(image), image) for n, image in enumerate(images)]

    def _put(self, file: BinaryIO, data: bytes) -> None:
        file.write(data)
        self._hash.update(data)
        self._size += len(data)

    def _finish(self) -> None:
        if (file := self._file) is None:
            return
        self._put(file, bytes(2 * BLOCK))  # the end-of-archive mark, then up to a whole number of records
        self._put(file, bytes(-self._size % RECORD))
        file.flush()
        os.fsync(file.fileno())
        file.close()
        self.shards.append(
            {
                "name": self._path(len(self.shards)).name,
                "size": self._size,
                "sha256": self._hash.hexdigest(),
                "records": self._records,
            }
        )
        self._file, self._size, self._records = None, 0, 0


def _utf8(text: str, name: str, identifier: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"Record {identifier!r}, {name}: the text is not valid Unicode ({error}).") from None
