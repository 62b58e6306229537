"""What products can be filtered by: columns with few values (category, brand, color) and columns of numbers (price).

The columns are the document's text fields and the further columns of the products table. One is a filter if at least a
tenth of the products have it and it is
- of numbers, more than a dozen different ones: a range. Whole numbers that hardly any two products share are ids.
- or of 2 to 200 different short values, each of which two products have on average: a choice among these.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gcl.data.store.records import Records
from gcl.data.tables.cells import parse_number
from gcl.schema import Modality, fields_of
from gcl.serve.refusal import BadRequest

Blocks = Iterable[tuple[Sequence[str], Mapping[str, Sequence[Any]], str]]
"""The products table in pieces: ids, the cells of its columns, and the decimal sign of numbers in them."""
Wanted = tuple[tuple[str, tuple], ...]
"""(name of a facet, what `Facet.check` made of the choice), sorted."""

MOST_FACETS = 10
_MOST_VALUES, _LONGEST_VALUE, _MOST_NUMBERS, _FEW_NUMBERS = 200, 60, 100_000, 12
_CURRENCY = re.compile(r"(?:[A-Z]{3}|[$€£¥])?\s*(.+?)\s*(?:[A-Z]{3}|[$€£¥])?")
_LINK = re.compile(r"https?://\S+")
_IMAGES = ("image", "img", "picture", "photo", "thumb")


@dataclass(frozen=True)
class Facet:
    """A column to filter by: values and column[M], the number of each document's (-1: none); or, without values, the
    numbers themselves (NaN: none)."""

    name: str
    column: np.ndarray
    values: tuple[str, ...] | None = None

    def check(self, wanted: Any) -> tuple:
        """A list of values of which a document has one, or {"from": …, "to": …}, as something that can be kept and
        compared. Raises BadRequest."""
        if self.values is not None:
            texts = [wanted] if isinstance(wanted, str) else wanted
            if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
                raise BadRequest(f"The filter {self.name} is a list of values, for example [{self.values[0]!r}].")
            if unknown := [one for one in texts if one not in self.values]:
                raise BadRequest(f"No product has {reprlib.repr(unknown[0])} as its {self.name}.")
            return tuple(sorted(set(texts)))
        ends = dict(wanted) if isinstance(wanted, dict) else {"": 0}
        if not ends.keys() <= {"from", "to"} or not all(map(_is_number, ends.values())) or not ends:
            raise BadRequest(f'The filter {self.name} is a range of numbers, for example {{"from": 10, "to": 20}}.')
        return tuple(sorted((end, float(number)) for end, number in ends.items()))

    def keep(self, wanted: tuple) -> np.ndarray:
        """bool[M]. wanted: what `check` returned."""
        if self.values is not None:
            return np.isin(self.column, [self.values.index(value) for value in wanted])
        ends = dict(wanted)
        with np.errstate(invalid="ignore"):
            return (self.column >= ends.get("from", -np.inf)) & (self.column <= ends.get("to", np.inf))

    def of(self, row: int) -> str | float | None:
        """A document's value."""
        value = self.column[row]
        if self.values is None:
            return None if np.isnan(value) else float(value)
        return self.values[value] if value >= 0 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 <= value <= 1e15


@dataclass(frozen=True)
class Columns:
    """What a page knows of products beyond their fields."""

    facets: tuple[Facet, ...] = ()
    links: Mapping[int, str] | None = None
    """Row -> the address of the product's own page."""


def columns_of(documents: Records, blocks: Blocks = ()) -> Columns:
    """Reads the products table once. Raises what reading it raises."""
    found = list(filter(None, (_of_field(documents, name) for name in fields_of(documents.side, Modality.text))))
    further, links = _read(documents, blocks)
    taken = {facet.name for facet in found}
    found += [facet for facet in further if facet.name not in taken]
    return Columns(tuple(found[:MOST_FACETS]), links)


def _of_field(documents: Records, name: str) -> Facet | None:
    """By the hashes of its values, so that few are read."""
    first: dict[bytes, int] = {}
    code = np.full(len(documents), -1, dtype=np.int64)
    example: list[int] = []
    for row, value in enumerate(documents.hashes(name)):
        if value is not None:
            if value not in first:
                first[value] = len(first)
                example.append(row)
                if len(first) > _MOST_NUMBERS:
                    return None
            code[row] = first[value]
    if len(first) > _MOST_VALUES and len(first) > len(documents) // 2:  # a title
        return None
    texts = documents.column(name, np.array(example, dtype=np.int64))
    return _facet(name, code, [" ".join(str(text).split()) for text in texts])


def _read(documents: Records, blocks: Blocks) -> tuple[list[Facet], dict[int, str] | None]:
    row_of: dict[str, int] | None = None
    columns: dict[str, tuple[np.ndarray, dict[str, int]]] = {}
    given_up, links = set(documents.side), dict[str, dict[int, str]]()
    for ids, cells, _ in blocks:
        if row_of is None:
            row_of = {str(name): row for row, name in enumerate(documents.ids)}
        rows = [row_of.get(name, -1) for name in ids]
        for name, values in cells.items():
            if name in given_up:
                continue
            code, known = columns.setdefault(name, (np.full(len(documents), -1, dtype=np.int64), {}))
            for row, value in zip(rows, values, strict=True):
                if row >= 0 and isinstance(value, str) and (text := " ".join(value.split())):
                    if _LINK.fullmatch(text):
                        links.setdefault(name, {})[row] = text
                    elif code[row] < 0:  # the first row of an id counts
                        code[row] = known.setdefault(text, len(known))
            if len(known) > _MOST_NUMBERS or (len(known) > _MOST_VALUES and None in _numbers(known)):
                given_up.add(name)
                del columns[name]
    facets = [_facet(name, code, list(known)) for name, (code, known) in columns.items()]
    pages = [of for name, of in links.items() if not any(word in name.lower() for word in _IMAGES)]
    return [facet for facet in facets if facet], next((of for of in pages if 2 * len(of) >= len(documents)), None)


def _facet(name: str, code: np.ndarray, texts: Sequence[str]) -> Facet | None:
    """code[M]: the number of each document's text, -1 for none."""
    count = int((code >= 0).sum())
    if 10 * count < len(code) or len(texts) < 2:
        return None
    numbers = list(_numbers(texts))
    if None not in numbers and len(texts) > _FEW_NUMBERS:
        ids = 2 * len(texts) > count and all(text.isdigit() for text in texts)
        return None if ids else Facet(name, np.array([*numbers, np.nan], dtype=np.float64)[code])
    if len(texts) > _MOST_VALUES or 2 * len(texts) > count or max(map(len, texts)) > _LONGEST_VALUE:
        return None
    values = dict.fromkeys(texts)  # equal but for white space
    number = {text: place for place, text in enumerate(values)}
    return Facet(name, np.array([number[text] for text in texts] + [-1], dtype=np.int64)[code], tuple(values))


def _numbers(texts: Iterable[str]) -> Iterator[float | None]:
    """Of amounts as shops write them: 12.50, € 12.50, 12.50 EUR."""
    for text in texts:
        amount = _CURRENCY.fullmatch(text)
        number = parse_number(amount[1], ".,") if amount and text[-1:] != "%" else None
        yield number if number is not None and abs(number) <= 1e15 else None
