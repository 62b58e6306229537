"""A dictionary from 16-byte keys to row numbers in about 40 bytes per entry; Python's own takes 200."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np

KEY_BYTES = 16
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
        self._keys = bytearray()  # of entry i: [16 i, 16 (i + 1))
        self._values = array("q")
        self._bits = 10
        self._slots = self._empty()

    def __len__(self) -> int:
        return len(self._values)

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
        entry = self._find(key)[1]
        return None if entry < 0 else self._values[entry]

    def add(self, key: bytes, value: int) -> None:
        """Adds a key; one that is there keeps its value."""
        slot, entry = self._find(key)
        if entry >= 0:
            return
        self._slots[slot] = len(self._values)
        self._keys += key
        self._values.append(value)
        full = 3 * len(self._values) > 2 << self._bits
        if full or slot + 2 >= len(self._slots):
            self._bits += full
            self._place_again()

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

    def __len__(self) -> int:
        return len(self._table)

    def get(self, identifier: str) -> int | None:
        return self._table.get(text_key(identifier))

    def __contains__(self, identifier: str) -> bool:
        return self.get(identifier) is not None

    def __getitem__(self, identifier: str) -> int:
        row = self.get(identifier)
        if row is None:
            raise KeyError(identifier)
        return row

    def add(self, identifier: str, row: int) -> None:
        self._table.add(text_key(identifier), row)


class Keys:
    """Packed keys as a sequence of bytes."""

    def __init__(self, packed: bytearray) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed) // KEY_BYTES

    def __getitem__(self, row: int) -> bytes:
        return bytes(self._packed[KEY_BYTES * row : KEY_BYTES * row + KEY_BYTES])

    def __iter__(self) -> Iterator[bytes]:
        return (self[row] for row in range(len(self)))
