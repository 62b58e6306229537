"""A dictionary from 16-byte keys to row numbers, and rows of bytes by number, in memory that does not grow with them:
what is more than a piece of it lies in temporary files (in TMPDIR).

1. the newest entries are in a hash table of about 40 bytes per entry; Python's own dictionary takes 200
2. when that is full it is merged into one sorted file, of which memory holds the first key of each page; to look a key
   up takes one read of a page
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from hashlib import blake2b
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np

KEY_BYTES = 16
_IN_MEMORY = 1 << 20  # entries of a table
_TAIL = 1 << 22  # bytes of rows that are kept until they are written
_PAGE = 128  # entries that are read at once
_PIECE = 1 << 17  # entries that are merged at once
_ENTRY = np.dtype([("key", f"S{KEY_BYTES}"), ("value", "<i8")])  # NumPy sorts S by bytes, as Python does
_SPARE = 1024  # slots behind the last one, so that probing never wraps around


def text_key(text: str) -> bytes:
    """The 16 bytes that represent an identifier: equal for equal texts, and in practice for no others."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


class KeyTable:
    """Keys must be spread evenly, as digests are. Entries are never removed.

    >>> table = KeyTable()
    >>> table.add(text_key("sku-7"), 3)
    >>> table.get(text_key("sku-7")), table.get(text_key("sku-8"))
    (3, None)
    """

    def __init__(self) -> None:
        self._older: _SortedFile | None = None
        self._absent = b""  # the key that was asked for last and is not there: usually it is asked for again, and added
        self._clear()

    def _clear(self) -> None:
        self._keys = bytearray()  # of entry i: [16 i, 16 (i + 1))
        self._values = array("q")
        self._bits = 10
        self._slots = self._empty()

    def __len__(self) -> int:
        return len(self._values) + (len(self._older) if self._older else 0)

    def _empty(self, spare: int = _SPARE) -> array:
        return array("i", np.full((1 << self._bits) + spare, -1, np.int32).tobytes())

    def _find(self, key: bytes) -> tuple[int, int]:
        """(slot, entry) of a key; entry -1 where it has none, and the slot is free."""
        slots, keys, slot = self._slots, self._keys, int.from_bytes(key[:8], "big") >> (64 - self._bits)
        while (entry := slots[slot]) >= 0:
            if keys[KEY_BYTES * entry : KEY_BYTES * entry + KEY_BYTES] == key:
                break
            slot += 1
        return slot, entry

    def get(self, key: bytes) -> int | None:
        if key == self._absent:
            return None
        entry = self._find(key)[1]
        if entry >= 0:
            return self._values[entry]
        value = self._older.get(key) if self._older else None
        if value is None:
            self._absent = key
        return value

    def add(self, key: bytes, value: int) -> None:
        """Adds a key; one that is there keeps its value."""
        slot, entry = self._find(key)
        if entry >= 0 or (self._older and key != self._absent and self._older.get(key) is not None):
            return
        self._absent = b""
        self._slots[slot] = len(self._values)
        self._keys += key
        self._values.append(value)
        full = 3 * len(self._values) > 2 << self._bits
        if full or slot + 2 >= len(self._slots):
            self._bits += full
            self._place_again()
        if len(self._values) >= _IN_MEMORY:
            self._older = self._older or _SortedFile()
            self._older.merge(bytes(self._keys), self._values)
            self._clear()

    def _place_again(self) -> None:
        """Entries go to their slots in the order of their keys, each to the first that is free."""
        first = np.frombuffer(bytes(self._keys), dtype=">u8")[::2].astype(np.uint64)
        order = np.argsort(first, kind="stable")
        wanted, rank = (first[order] >> np.uint64(64 - self._bits)).astype(np.int64), np.arange(len(order))
        place = np.maximum.accumulate(wanted - rank) + rank
        self._slots = self._empty(max(_SPARE, int(place[-1]) - (1 << self._bits) + _SPARE))
        np.frombuffer(self._slots, dtype=np.int32)[place] = order


class RowOf:
    """Identifier -> row number, the identifiers themselves kept as keys only."""

    def __init__(self) -> None:
        self._table = KeyTable()
        self._last = "", text_key("")

    def __len__(self) -> int:
        return len(self._table)

    def _key(self, identifier: str) -> bytes:
        last = self._last
        if identifier != last[0]:  # most are asked for before they are added
            last = self._last = identifier, text_key(identifier)
        return last[1]

    def get(self, identifier: str) -> int | None:
        return self._table.get(self._key(identifier))

    def __contains__(self, identifier: str) -> bool:
        return self.get(identifier) is not None

    def __getitem__(self, identifier: str) -> int:
        row = self.get(identifier)
        if row is None:
            raise KeyError(identifier)
        return row

    def add(self, identifier: str, row: int) -> None:
        self._table.add(self._key(identifier), row)


class _SortedFile:
    """Entries in the order of their keys."""

    def __init__(self) -> None:
        self._file: BinaryIO = TemporaryFile()
        self._count, self._first = 0, list[bytes]()  # of each page

    def __len__(self) -> int:
        return self._count

    def __del__(self) -> None:
        self._file.close()

    def get(self, key: bytes) -> int | None:
        page = bisect_right(self._first, key) - 1
        if page < 0:
            return None
        size = _PAGE * _ENTRY.itemsize
        data = os.pread(self._file.fileno(), size, page * size)
        place = data.find(key)
        while place % _ENTRY.itemsize and place >= 0:  # across two entries
            place = data.find(key, place + 1)
        return None if place < 0 else int.from_bytes(data[place + KEY_BYTES : place + _ENTRY.itemsize], "little")

    def merge(self, keys: bytes, values: array) -> None:
        """Adds entries whose keys are not there."""
        new = np.empty(len(values), _ENTRY)
        new["key"], new["value"] = np.frombuffer(keys, f"S{KEY_BYTES}"), values
        new = new[np.argsort(new["key"], kind="stable")]
        old, self._file = self._file, TemporaryFile()
        self._count, self._first = 0, []
        old.seek(0)
        start = 0
        while len(piece := np.fromfile(old, _ENTRY, _PIECE)):
            stop = int(np.searchsorted(new["key"], piece["key"][-1]))
            self._append(np.insert(piece, np.searchsorted(piece["key"], new["key"][start:stop]), new[start:stop]))
            start = stop
        self._append(new[start:])
        self._file.flush()
        old.close()

    def _append(self, entries: np.ndarray) -> None:
        entries = np.ascontiguousarray(entries)
        firsts = np.ascontiguousarray(entries["key"][-self._count % _PAGE :: _PAGE]).tobytes()
        self._first += [firsts[at : at + KEY_BYTES] for at in range(0, len(firsts), KEY_BYTES)]
        self._file.write(entries.tobytes())
        self._count += len(entries)


class Packed:
    """Rows of so many bytes each, to which rows are added.

    >>> rows = Packed(2)
    >>> rows.append(b"ab"), rows.append(b"cd"), rows[1], list(rows)
    (None, None, b'cd', [b'ab', b'cd'])
    """

    def __init__(self, width: int = KEY_BYTES) -> None:
        self._width, self._tail, self._written = width, bytearray(), 0  # rows in the file
        self._file: BinaryIO | None = None

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, row: bytes) -> None:
        self._tail += row
        if len(self._tail) >= _TAIL and len(self._tail) % self._width == 0:
            self._file = self._file or TemporaryFile()
            self._file.seek(0, os.SEEK_END)
            self._file.write(self._tail)
            self._file.flush()
            self._written += len(self._tail) // self._width
            self._tail = bytearray()

    def __len__(self) -> int:
        return self._written + len(self._tail) // self._width

    def __getitem__(self, row: int) -> bytes:
        width, place = self._width, (row - self._written) * self._width
        if place >= 0 or self._file is None:
            return bytes(self._tail[place : place + width])
        return os.pread(self._file.fileno(), width, row * width)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces():
            yield from (piece[at : at + self._width] for at in range(0, len(piece), self._width))

    def pieces(self) -> Iterator[bytes]:
        """Many rows at a time."""
        size = self._width * _PIECE
        for start in range(0, self._written * self._width, size):
            assert self._file is not None
            yield os.pread(self._file.fileno(), min(size, self._written * self._width - start), start)
        yield bytes(self._tail)

    def array(self, kind: str) -> np.ndarray:
        """All rows as numbers [len(self)]."""
        values = np.empty(len(self), kind)
        start = 0
        for piece in self.pieces():
            values.view(np.uint8)[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
            start += len(piece)
        return values
