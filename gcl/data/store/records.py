"""Records: one, a sequence of them, and some rows of a sequence. Training, evaluation and search read these."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute

from gcl.data.store.remote_shards import RemoteShard
from gcl.schema import Field, Images, Modality, fields_of

Value = str | bytes | tuple[bytes, ...] | None
"""A text, an image's file, the files of a set of images in their order (at least one), or None for an absent value."""

Record = dict[str, Value]
"""One side of one sample by field name."""

LONGEST_TITLE = 160
_TITLES = ("title", "name", "product_title", "product_name")

MOST_TEXT = 1_000_000
"""Characters (of a shard's member: bytes) of the longest text: a whole file in a cell is not a description."""

MOST_IMAGES = 16
"""Images of a set: each costs as much as the image of a field that has one."""


def images_of(value: Value) -> tuple[bytes, ...]:
    """The images of a field's value, whether it is one, a set, or none.

    >>> images_of((b"front", b"back")), images_of(b"front"), images_of(None)
    ((b'front', b'back'), (b'front',), ())
    """
    if isinstance(value, tuple):
        return value
    return (value,) if isinstance(value, bytes) and value else ()


class Records(Protocol):
    """A store, a part of one, or a list in memory."""

    side: dict[str, Field]

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> Record: ...
    @property
    def ids(self) -> Sequence[str]:
        """Identifier of each row."""

    @property
    def rows(self) -> np.ndarray:
        """Row of each record in the store that it comes from, int64 [len(self)]."""

    def hashes(self, field: str) -> Sequence[bytes | None]:
        """16 bytes for each row, equal for equal values of the field (sets: in the same order); None where it is
        absent. A set of one image has that image's."""

    def image_hashes(self, field: str) -> Sequence[Sequence[bytes]]:
        """For each row those of its images, one by one."""

    def present(self, rows: np.ndarray) -> np.ndarray:
        """Which fields these rows have, bool [n, F]."""

    def column(self, field: str, rows: np.ndarray) -> list[Value]:
        """The field's values in these rows."""

    def place(self, row: int) -> str:
        """Where a record lies, for messages."""

    def subset(self, rows: np.ndarray) -> Records:
        """These rows, in this order."""


class Stored(Records, Protocol):
    """Records whose ids and hashes lie packed in columns, so that any rows of them can be taken at once."""

    @property
    def ids(self) -> Column: ...
    @property
    def shard(self) -> np.ndarray: ...
    def remote_shards(self, rows: np.ndarray) -> set[RemoteShard]: ...
    def hashes(self, field: str) -> Column: ...
    def image_hashes(self, field: str) -> Column: ...
    def subset(self, rows: np.ndarray) -> Subset: ...


class Column(Sequence):
    """A column of an index table as a sequence of str (ids), bytes (hashes) or lists of these; the values stay packed
    in Arrow."""

    def __init__(self, values: pa.Array) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, item: Any) -> Any:
        """One value for an int; a Column for a slice or an array of positions."""
        if isinstance(item, slice):
            return Column(self.values[item])
        if isinstance(item, np.ndarray):
            return Column(self.values.take(pa.array(item)))
        return self.values[int(item)].as_py()

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self.values), 1 << 14):
            yield from self.values.slice(start, 1 << 14).to_pylist()

    def codes(self) -> np.ndarray:
        """int64[n]: numbers from 0, equal for equal values; -1 where there is none."""
        indices = compute.dictionary_encode(self.values).indices
        return compute.fill_null(indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)


class Subset:
    """Some rows of a store, in the given order, behind the same interface; rows count from 0 again."""

    def __init__(self, store: Stored, rows: np.ndarray) -> None:
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(store):
            raise IndexError(f"Rows {rows.min()} to {rows.max()} of {len(store)} records.")
        self.store, self.side = store, store.side
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Record:
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} of a subset that has {len(self)}.")
        return self.store[int(self.rows[row])]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "ids"}

    @cached_property
    def ids(self) -> Column:
        return self.store.ids[self.rows]

    def hashes(self, field: str) -> Column:
        return self.store.hashes(field)[self.rows]

    def image_hashes(self, field: str) -> Column:
        return self.store.image_hashes(field)[self.rows]

    def present(self, rows: np.ndarray) -> np.ndarray:
        return self.store.present(self.rows[rows])

    def column(self, field: str, rows: np.ndarray) -> list[Value]:
        return self.store.column(field, self.rows[rows])

    def remote_shards(self, rows: np.ndarray) -> set[RemoteShard]:
        return self.store.remote_shards(self.rows[rows])

    def place(self, row: int) -> str:
        return self.store.place(int(self.rows[row]))

    def subset(self, rows: np.ndarray) -> Subset:
        return Subset(self.store, self.rows[rows])


class EachImage:
    """Every image of one field as a record of its own, the images of a set one after another.

    row[len(self)]: the record that each is of; place_in_set[len(self)]: its place there, from 0.
    """

    def __init__(self, records: Records, field: str) -> None:
        first = first_images(records, field)
        self.records, self.field = records, field
        self.side = {field: replace(records.side[field], images=Images.first)}
        self.row = np.repeat(np.arange(len(records)), np.diff(first))
        self.rows = np.arange(len(self.row))
        self.place_in_set = self.rows - first[self.row]
        hashes = records.image_hashes(field)
        flat = hashes.values.flatten() if isinstance(hashes, Column) else [one for several in hashes for one in several]
        self._hash = Column(pa.array(flat, pa.binary(16)))

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, row: int) -> Record:
        return {self.field: self.column(self.field, np.array([row]))[0]}

    @property
    def ids(self) -> Sequence[str]:
        ids = self.records.ids
        return [f"{ids[row]}#{place}" for row, place in zip(self.row.tolist(), self.place_in_set, strict=True)]

    def hashes(self, field: str) -> Column:
        return self._hash

    def image_hashes(self, field: str) -> Sequence[Sequence[bytes]]:
        return [[one] for one in self._hash]

    def present(self, rows: np.ndarray) -> np.ndarray:
        return np.ones((len(rows), 1), dtype=bool)

    def column(self, field: str, rows: np.ndarray) -> list[Value]:
        record, which = np.unique(self.row[rows], return_inverse=True)
        sets = [images_of(value) for value in self.records.column(field, record)]
        return [sets[number][place] for number, place in zip(which, self.place_in_set[rows], strict=True)]

    def place(self, row: int) -> str:
        return f"{self.records.place(int(self.row[row]))}, image {int(self.place_in_set[row]) + 1}"

    def subset(self, rows: np.ndarray) -> EachImage:
        some = copy.copy(self)
        some.row, some.rows, some.place_in_set = self.row[rows], self.rows[rows], self.place_in_set[rows]
        some._hash = self._hash[rows]
        return some


def first_images(records: Records, field: str) -> np.ndarray:
    """int64 [len(records) + 1]: the number of each record's first image, where all images of the field count through;
    at the end, how many there are."""
    hashes = records.image_hashes(field)
    if isinstance(hashes, Column):
        count = compute.list_value_length(hashes.values).fill_null(0).to_numpy(zero_copy_only=False)
    else:
        count = np.array([len(several) for several in hashes], dtype=np.int64)
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64)


class Identifiers:
    """Records of which only the ids are known: they have no fields."""

    def __init__(self, ids: Column) -> None:
        self.ids = ids
        self.side: dict[str, Field] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Record:
        return {}

    @property
    def rows(self) -> np.ndarray:
        return np.arange(len(self))

    def hashes(self, field: str) -> Column:
        raise KeyError(f"Only the ids of these records are known, not {field!r}.")

    image_hashes = hashes

    def present(self, rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), 0), dtype=bool)

    def column(self, field: str, rows: np.ndarray) -> list[Value]:
        raise KeyError(f"Only the ids of these records are known, not {field!r} of {len(rows)} of them.")

    def place(self, row: int) -> str:
        return f"record {row}, id {self.ids[row]!r}"

    def subset(self, rows: np.ndarray) -> Identifiers:
        return Identifiers(self.ids[np.asarray(rows)])


def texts_of(records: Records) -> list[str]:
    """Each record's text fields, joined by a space."""
    rows = np.arange(len(records))
    names = fields_of(records.side, Modality.text)
    columns = [records.column(name, rows) for name in names]
    return [" ".join(str(text) for text in texts if text) for texts in zip(*columns, strict=True)] or [""] * len(rows)


def title_fields(side: Mapping[str, Field]) -> list[str]:
    """The text fields, those first that are called a title or a name."""
    texts = fields_of(side, Modality.text)
    return [name for name in _TITLES if name in texts] + [name for name in texts if name not in _TITLES]


def title_of(record: Record, side: Mapping[str, Field], *, otherwise: str) -> str:
    """What a record is called: the first text that it has, shortened."""
    return shortened(next((str(record[name]) for name in title_fields(side) if record[name]), otherwise))


def shortened(text: str, longest: int = LONGEST_TITLE) -> str:
    """On one line.

    >>> shortened("a long  title", 7)
    'a long…'
    """
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
