"""Shards + index -> records by row number, through memory maps: no walk over the tar, no copy but the value itself."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as pq

from gcl.data.store.records import Column, Record, Subset, Value, images_of
from gcl.data.store.remote_shards import RemoteShard, ShardCache, shards_of
from gcl.data.store.shard_writer import FORMAT_VERSION, METADATA_KEY, content_hash, set_hash
from gcl.files.digest import file_sha256, text_sha256
from gcl.schema import Field, Modality

_OPEN_MAPS = 256  # each holds a file descriptor; a process usually may have 1,024


class RecordStore:
    """The records of one side in a prepared folder. Shards must not change while a store is open.

    side: the fields to read, all or some of those that were written. cache: where shards of an object store are kept.
    Raises ValueError when the index is missing or not ours, lacks a field, or a shard's size is not the one it lists.
    A pickled store carries its paths only: a worker process opens its own maps and reads its own index.
    """

    def __init__(
        self, folder: str | Path, prefix: str, side: Mapping[str, Field], *, cache: ShardCache | None = None
    ) -> None:
        self.folder, self.prefix, self.side, self._cache = Path(folder), prefix, dict(side), cache
        self._open()

    def _open(self) -> None:
        self._index = self.folder / f"{self.prefix}.parquet"
        about = _index_metadata(self._index)
        self.shards: list[dict[str, Any]] = about["shards"]
        self._json_keys: dict[str, str] = about["json_keys"]
        for name, field in self.side.items():
            if about["fields"].get(name) != field.kind:
                stored = ", ".join(f"{key} ({kind})" for key, kind in about["fields"].items())
                raise ValueError(
                    f"{self._index} has no {field.kind} field {name!r}; it was written with {stored}. "
                    "Prepare the catalog again with this schema."
                )
        self._remote = shards_of(self.folder, self.shards, self._cache)
        for shard, remote in zip(self.shards, self._remote, strict=True):
            if remote is None:
                self._check_size(shard, self.folder / shard["name"])
        self._read_places(about["rows"])
        self._maps: dict[int, mmap.mmap] = {}
        self._columns: dict[str, Column] = {}

    def _read_places(self, rows: int) -> None:
        """Where each value lies, a block of the index at a time, in numbers that are as wide as the shards ask for:
        of many millions of rows, every process that reads them holds these."""
        size = np.array([shard["size"] for shard in self.shards], dtype=np.int64)
        narrow = np.int32 if size.max(initial=0) < 1 << 31 else np.int64
        parts = [f"{name}.{part}" for name in self.side for part in ("offset", "length")]
        columns: dict[str, list[np.ndarray]] = {name: [] for name in ("shard", *parts, *self.side)}
        for block in pq.ParquetFile(self._index).iter_batches(columns=["shard", *parts]):
            shard = block["shard"].to_numpy()
            columns["shard"].append(shard)
            for name, field in self.side.items():
                offset, length, of = block[f"{name}.offset"], block[f"{name}.length"], shard
                if field.is_set:
                    images = compute.list_value_length(length)
                    if images != compute.list_value_length(offset):
                        raise ValueError(f"{self._index} is damaged ({name}). Prepare the catalog again.")
                    columns[name].append(images.to_numpy())
                    offset, length, of = offset.flatten(), length.flatten(), np.repeat(shard, images.to_numpy())
                start, count = offset.to_numpy(), length.to_numpy()
                if len(shard) and (shard.min() < 0 or (start < 0).any() or (start + count > size[of]).any()):
                    raise ValueError(f"{self._index} points outside of its shards ({name}). Prepare the catalog again.")
                columns[f"{name}.offset"].append(start.astype(narrow))
                columns[f"{name}.length"].append(count.astype(narrow))
        whole = {
            name: np.concatenate(columns.pop(name)) if columns[name] else np.empty(0, narrow) for name in list(columns)
        }
        self._shard = whole["shard"].astype(np.int32, copy=False)
        self._offset = {name: whole[f"{name}.offset"] for name in self.side}  # [rows]; of a set [all of its images]
        self._length = {name: whole[f"{name}.length"] for name in self.side}
        self._first = {  # of a set, [rows + 1]: where each row's images begin in these
            name: np.concatenate([[0], np.cumsum(whole[name], dtype=np.int64)])
            for name, field in self.side.items()
            if field.is_set
        }
        if len(self) != rows:
            raise ValueError(f"{self._index} has {len(self):,} rows, {rows:,} were written. Prepare the catalog again.")

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("folder", "prefix", "side", "_cache")}
        return kept | {"digest": self._digest()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder, self.prefix, self.side, self._cache = (
            state[name] for name in ("folder", "prefix", "side", "_cache")
        )
        self._open()
        if self._digest() != state["digest"]:
            raise ValueError(f"{self._index} was written anew while it was in use: start the run again.")

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, row: int) -> Record:
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} of {self._index}, which has {len(self)}.")
        return {name: self._value(name, row) for name in self.side}

    @property
    def shards_here(self) -> list[dict[str, Any]]:
        """Those that lie on this machine for good."""
        return [shard for shard, remote in zip(self.shards, self._remote, strict=True) if remote is None]

    @property
    def ids(self) -> Column:
        return self._column("id")

    def each_id(self) -> Iterator[str]:
        """The ids in order, a block of them in memory at a time."""
        for block in pq.ParquetFile(self._index).iter_batches(columns=["id"]):
            yield from block["id"].to_pylist()

    def content_keys(self) -> Iterator[bytes]:
        """16 bytes for each record in order, equal for equal content of the fields of this store, whatever its id,
        its row and the folder that it lies in."""
        names = sorted(self.side)
        for block in pq.ParquetFile(self._index).iter_batches(columns=[f"{name}.hash" for name in names]):
            for row in zip(*(block[f"{name}.hash"].to_pylist() for name in names), strict=True):
                digest = hashlib.blake2b(digest_size=16)
                for name, value in zip(names, row, strict=True):
                    if value is not None:
                        digest.update(f"{len(name)},{name},".encode() + value)
                yield digest.digest()

    @property
    def rows(self) -> np.ndarray:
        """Own row numbers [len(self)]: a store is the subset of itself that has every row."""
        return np.arange(len(self))

    @property
    def shard(self) -> np.ndarray:
        """Number of the shard each row lies in, int32 [len(self)]: what a Plan orders its reading by."""
        return self._shard

    def hashes(self, field: str) -> Column:
        """Content hash (16 bytes) of each row's value, None where absent."""
        return self._column(f"{self._known(field)}.hash")

    def image_hashes(self, field: str) -> Column:
        """Lists of the content hashes of each row's images."""
        if self.side[self._known(field)].is_set:
            return self._column(f"{field}.hashes")
        present = np.concatenate([[0], np.cumsum(self._length[field] >= 0)]).astype(np.int32)
        return Column(pa.ListArray.from_arrays(pa.array(present), self.hashes(field).values.drop_null()))

    def _known(self, field: str) -> str:
        if field not in self.side:
            raise KeyError(f"{self.prefix} has no field {field!r}; fields: {', '.join(self.side)}.")
        return field

    def present(self, rows: np.ndarray) -> np.ndarray:
        """Which fields each row has, bool [n, F]."""
        return np.stack([self._has(name, rows) for name in self.side], axis=-1)

    def _has(self, name: str, rows: np.ndarray) -> np.ndarray:
        first = self._first.get(name)
        return self._length[name][rows] >= 0 if first is None else first[rows + 1] > first[rows]

    def column(self, field: str, rows: np.ndarray) -> list[Value]:
        """The values of one field, one per row."""
        rows = np.asarray(rows)
        if len(rows) and rows.min() < 0:
            raise IndexError(f"Row {rows.min()} of {self._index}: rows count from 0.")
        if field in self._first:
            return [self._set(field, row) for row in rows.tolist()]
        columns = (self._shard, self._offset[field], self._length[field])
        places = zip(*(column[rows].tolist() for column in columns), strict=True)
        values: list[bytes | None] = [None] * len(rows)
        for position, (shard, start, length) in enumerate(places):
            if length >= 0:
                values[position] = (self._maps.get(shard) or self._map(shard))[start : start + length]
        if self.side[field].modality is Modality.image:
            return list(values)
        return [
            None if value is None else self._text(field, value, int(row))
            for row, value in zip(rows, values, strict=True)
        ]

    def remote_shards(self, rows: np.ndarray) -> set[RemoteShard]:
        """Those shards of an object store that these rows lie in."""
        if not any(self._remote):
            return set()
        return {shard for number in np.unique(self._shard[rows]).tolist() if (shard := self._remote[number])}

    def release(self) -> None:
        """Lets go of the shards' pages that reading brought into memory; what is read later is mapped again."""
        self._maps.clear()

    def place(self, row: int) -> str:
        """Where a record lies, for messages: shard, row and id."""
        return f"shard {self.shards[self._shard[row]]['name']}, row {row}, id {self.ids[row]!r}"

    def subset(self, rows: np.ndarray) -> Subset:
        return Subset(self, rows)

    def verify(self, shards: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Reads every shard, or these. Raises ValueError naming the first one whose bytes are not those that were
        written, and the first record in it that differs."""
        for shard in self.shards if shards is None else shards:
            remote = self._remote[self.shards.index(dict(shard))]
            if remote is not None:
                remote.fetch()  # which compares it
                continue
            path = self.folder / shard["name"]
            self._check_size(shard, path)
            digest = file_sha256(path)
            if digest != shard["sha256"]:
                raise ValueError(
                    f"{path} has SHA-256 {digest[:16]}…, its index says {shard['sha256'][:16]}…: its bytes changed "
                    f"after it was written ({self._first_changed(shard['name'])}). Delete {self.folder} and prepare "
                    "the catalog again."
                )

    def _first_changed(self, name: str) -> str:
        number = [shard["name"] for shard in self.shards].index(name)
        for row in np.flatnonzero(self._shard == number).tolist():
            for field in self.side:
                try:
                    value = self._value(field, row)
                except ValueError as error:
                    return str(error)
                if value is not None:
                    data = (value.encode(),) if isinstance(value, str) else images_of(value)
                    if set_hash([content_hash(one) for one in data]) != self.hashes(field)[row]:
                        return f"row {row}, id {self.ids[row]!r}, field {field}"
        return "in no record's fields"

    def _digest(self) -> str:
        return text_sha256(json.dumps(self.shards, sort_keys=True))

    def _column(self, name: str) -> Column:
        if name not in self._columns:
            values = pq.ParquetFile(self._index).read(columns=[name])[name]
            if name == "id":
                values = values.cast(pa.large_string())  # all ids together may pass 2 GiB
            self._columns[name] = Column(values.combine_chunks())
        return self._columns[name]

    def _value(self, field: str, row: int) -> Value:
        if field in self._first:
            return self._set(field, row)
        length = int(self._length[field][row])
        if length < 0:
            return None
        shard, start = int(self._shard[row]), int(self._offset[field][row])
        data = (self._maps.get(shard) or self._map(shard))[start : start + length]
        return data if self.side[field].modality is Modality.image else self._text(field, data, row)

    def _set(self, field: str, row: int) -> tuple[bytes, ...] | None:
        images = slice(*self._first[field][row : row + 2].tolist())
        places = zip(self._offset[field][images].tolist(), self._length[field][images].tolist(), strict=True)
        shard = int(self._shard[row])
        data = self._maps.get(shard) or self._map(shard)
        return tuple(data[start : start + length] for start, length in places) or None

    def _text(self, field: str, data: bytes, row: int) -> str:
        try:
            if (key := self._json_keys.get(field)) is not None:
                return str(json.loads(data)[key])
            return data.decode()
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{self.place(row)}: field {field} cannot be read as text ({error}).") from None

    def _map(self, number: int) -> mmap.mmap:
        shard, remote = self.shards[number], self._remote[number]
        path = self.folder / shard["name"]
        if remote is None:
            self._check_size(shard, path)
        else:
            for one in list(self._maps):
                if (kept := self._remote[one]) is not None and not kept.path.exists():
                    self._maps.pop(one, None)  # dropped: its place on the disk is free once nobody maps it
        if len(self._maps) >= _OPEN_MAPS:
            self._maps.pop(next(iter(self._maps)))
        with path.open("rb") if remote is None else remote.open() as file:
            self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[number]

    def _check_size(self, shard: Mapping[str, Any], path: Path) -> None:
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise ValueError(f"Shard {path} is missing; {self._index.name} lists it. Prepare again.") from None
        if size != shard["size"]:
            raise ValueError(
                f"Shard {path} has {size:,} bytes, {self._index.name} says {shard['size']:,}: it was cut, or written "
                "by another run. Delete the folder and prepare the catalog again."
            )


def _index_metadata(path: Path) -> dict[str, Any]:
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: the folder holds no finished shards. Prepare again.") from None
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file ({error}). Prepare the catalog again.") from None
    about = json.loads(metadata.get(METADATA_KEY, b"{}"))
    if about.get("version") != FORMAT_VERSION:
        raise ValueError(f"{path} is not an index of format {FORMAT_VERSION} ({about.get('version')}). Prepare again.")
    return about
