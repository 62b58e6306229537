"""Which products, and which queries, fall into the same half because they are the same thing twice.

Products with the same image, or equal in all of their texts, are variants or copies of one product: with one of them in
training and another held out, training has seen what is called new. So it is with queries that differ in case and white
space only.

1. every record gets a number for each thing that it may share (an image, all texts, a value of data.split.group), 0 for
   none
2. `first_of_equals`: records that share a number are one group, and so are groups that share a record; all of a group
   fall where its first record falls, so a record that shares nothing falls where it would alone
3. an image or text of very many products says nothing about any of them (a placeholder, a category): it makes no
   group, and a group that grew over a tenth of the products all the same is dissolved. Both are counted
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from gcl.data.catalog import Copies, Split
from gcl.data.prepare.memory import in_parts
from gcl.data.store.key_table import Packed
from gcl.data.store.records import Column, EachImage, Stored
from gcl.schema import Modality, fields_of

_LARGEST = (1 << 64) - 1
_COMPARED = 1000  # characters of a text
_MIXED = np.uint64(0x9E3779B97F4A7C15)  # an odd number: multiplying by it loses nothing


@dataclass
class Groups:
    """first int32[n]: the row that decides for each row, for most of them itself. counts: what the summary tells."""

    first: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)


class Shared(NamedTuple):
    """What records may share: numbers uint64[n], equal for equal values, 0 for none. A value of more than `most`
    records makes no group. row int64[n]: the record that each number is of; None: each record has one, in order."""

    numbers: np.ndarray
    most: int
    row: np.ndarray | None = None


def most_copies(products: int) -> int:
    """The most products that may share an image or text and still be taken for variants of each other.

    >>> most_copies(100), most_copies(1000), most_copies(1_000_000)
    (20, 50, 100)
    """
    return max(20, min(100, products // 20))


def group_products(
    documents: Stored, split: Split, *, texts: Packed | None = None, group: np.ndarray | None = None
) -> Groups:
    """documents: the store with all of its fields. texts: 8 bytes for all texts of each, as `text_number` gives them;
    None: texts are equal if their bytes are. group: uint64[n], equal for rows whose values in data.split.group are
    equal, 0 for none."""
    count = len(documents)
    asked = first_of_equals([] if group is None else [Shared(group, count)], count)
    if split.copies == Copies.apart:
        return _counted(asked)
    most = most_copies(count)
    runs = [_runs(_images(documents, name, most)) for name in fields_of(documents.side, Modality.image)]
    runs.append(_runs(Shared(_stored(documents, Modality.text) if texts is None else texts.array("<u8"), most)))
    too_common = sum(one.too_common for one in runs)
    if group is not None:
        runs.insert(0, _runs(Shared(asked.astype(np.uint64) + np.uint64(1), count)))
    first = _first(runs, count)
    too_large = (np.bincount(first, minlength=count) > max(most, count // 10))[first]
    first[too_large] = asked[too_large]
    return _counted(first, too_common=too_common, dissolved=int(too_large.sum()))


def group_queries(queries: Stored, *, texts: Packed | None = None) -> Groups:
    """Queries whose texts differ in case and white space only (and whose images are equal) are together. texts: as of
    `group_products`."""
    numbers = _stored(queries, Modality.text) if texts is None else texts.array("<u8")
    numbers = _stored(queries, Modality.image, numbers)
    return _counted(first_of_equals([Shared(numbers, len(queries))], len(queries)))


def text_number(texts: Iterable[str | None]) -> int:
    """Of all texts of a record: below 2^64, equal in this process for texts that differ in case and white space only; 0
    where there is none.

    >>> text_number([" Red  shoes", None]) == text_number(["red Shoes", None]) != text_number([None, "red shoes"])
    True
    """
    folded = [text and fold(text[:_COMPARED]) for text in texts]
    return hash(tuple(folded)) & _LARGEST if any(folded) else 0


def fold(text: str) -> str:
    """The same for two texts that differ in case and white space only.

    >>> fold("  Red   Shoes ") == fold("red shoes")
    True
    """
    text = text.casefold()
    if text.isprintable() and "  " not in text and text.strip(" ") == text:
        return text  # nearly all: the only white space that is printable is the space
    return " ".join(text.split())


def first_of_equals(shared: Sequence[Shared], count: int) -> np.ndarray:
    """int32[count]: the first row of each row's group. Rows that share a value are together, and so are those that
    each share one with a third.

    >>> a, b = np.array([5, 0, 5, 0, 7], np.uint64), np.array([0, 3, 0, 0, 3], np.uint64)
    >>> first_of_equals([Shared(a, 9), Shared(b, 9), Shared(np.array([0, 0, 1, 0, 1], np.uint64), 9)], 5).tolist()
    [0, 0, 0, 3, 0]
    """
    return _first([_runs(one) for one in shared], count)


class _Runs(NamedTuple):
    """rows int32: those that share their number with another, those of one number together. starts: where each number
    begins. too_common: how many numbers more records have than may share one; they are not among these."""

    rows: np.ndarray
    starts: np.ndarray
    too_common: int


def _first(runs: Sequence[_Runs], count: int) -> np.ndarray:
    """See `first_of_equals`."""
    first = np.arange(count, dtype=np.int32)
    changed = True
    while changed:
        changed = False
        for rows, starts, _ in runs:
            if not len(rows):
                continue
            least = np.repeat(np.minimum.reduceat(first[rows], starts), np.diff(starts, append=len(rows)))
            changed |= bool((least < first[rows]).any())
            np.minimum.at(first, rows, least)  # a record of several images is in several runs
        first = first[first]
    return first


def _runs(shared: Shared) -> _Runs:
    rows, lengths, too_common = [np.empty(0, np.int32)], [np.empty(0, np.int64)], 0
    for part in in_parts(shared.numbers):
        numbers = shared.numbers[part]
        part, numbers = part[numbers != 0], numbers[numbers != 0]
        order = np.argsort(numbers, kind="stable")
        part, numbers = part[order], numbers[order]
        begins = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]])[: len(part)])
        length = np.diff(begins, append=len(part))
        kept = (length > 1) & (length <= shared.most)
        together = part[np.repeat(kept, length)]
        rows.append((together if shared.row is None else shared.row[together]).astype(np.int32))
        lengths.append(length[kept])
        too_common += int((length > shared.most).sum())
    length = np.concatenate(lengths)
    return _Runs(np.concatenate(rows), np.cumsum(length) - length, too_common)


def _counted(first: np.ndarray, **others: int) -> Groups:
    size = np.bincount(first, minlength=1)
    told = {"groups": int((size > 1).sum()), "records": int(size[size > 1].sum()), "largest": int(size.max(initial=1))}
    return Groups(first, told | others)


def _images(documents: Stored, name: str, most: int) -> Shared:
    """The images of a field: of a set, any one of its images may be shared."""
    if not documents.side[name].is_set:
        return Shared(_hash_numbers(documents.hashes(name)), most)
    each = EachImage(documents, name)
    return Shared(_hash_numbers(each.hashes(name)), most, each.row)


def _stored(store: Stored, modality: Modality, numbers: np.ndarray | None = None) -> np.ndarray:
    """uint64[n] of all of a record's texts, or of its images, byte for byte, 0 for a record without any; numbers: what
    they are joined to."""
    numbers = np.zeros(len(store), np.uint64) if numbers is None else numbers
    for name in fields_of(store.side, modality):
        numbers = numbers * _MIXED + _hash_numbers(store.hashes(name))
    return numbers


def _hash_numbers(hashes: Column) -> np.ndarray:
    """The first 8 of each hash's 16 bytes, uint64[n]; 0 where there is none."""
    values = hashes.values.cast(pa.binary(16)) if hashes.values.type != pa.binary(16) else hashes.values
    filled = values.fill_null(b"\0" * 16) if values.null_count else values
    packed = np.frombuffer(filled.buffers()[1], np.uint64, 2 * len(filled), 16 * filled.offset)
    return packed[::2].copy()
