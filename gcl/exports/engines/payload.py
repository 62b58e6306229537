"""What a document carries into an engine beside its vectors: columns of a few values, in the order of the vectors.

1. `write_payload` puts each product's cells into a temporary file as the products table brings them, and remembers
   where; then it writes them in the order of the documents. So memory does not grow with the catalog.
2. `batches` reads the files of vectors and the payload side by side, a few thousand rows at a time.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from gcl.data.store.key_table import KeyTable, text_key
from gcl.data.store.records import Records, texts_of
from gcl.data.store.vector_files import read_rows, vectors_beside, write_rows
from gcl.data.tables.cells import parse_number
from gcl.errors import ConfigError, nearest
from gcl.options import Choice
from gcl.schema import Modality, fields_of

WORDS = "words"  # the column with a document's texts
_CHUNK = 8192
_RESERVED = ("id", "vector", WORDS)
_CODE = re.compile(r"[+-]?0\d.*|.*_.*")  # a leading zero is lost in a number, and Python reads 1_000 as one
_ONE_GROUP = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")  # 2,499 is 2499 or 2.499
_CLEAR = re.compile(r".*[.,](\d{1,2}|\d{4,})|.*\..*,.*|.*,.*\..*|.*[.,]\d{3}[.,]\d{3}")
_WHOLE = 2**53  # from here on, float64 lacks some whole numbers

Blocks = Iterable[tuple[Sequence[str], Mapping[str, Sequence[Any]], str]]
"""The products table in pieces: ids, the cells of its columns, and the decimal sign of numbers in them."""


class Column(Choice):
    """What a column of the payload holds."""

    text = "text"
    number = "number"


@dataclass(frozen=True)
class Batch:
    """Some documents, in order. start: the row of the first. table: a pyarrow.Table of id, vector and payload."""

    start: int
    table: Any

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def ids(self) -> list[str]:
        return self.table.column("id").to_pylist()

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 [n, W]."""
        parts = [_numbers(part) for part in self.table.column("vector").chunks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def checked(self) -> Batch:
        """Itself. Raises ValueError for numbers that are not finite, which no engine finds."""
        start = 0
        for part in self.table.column("vector").chunks:
            if not (finite := np.isfinite(_numbers(part)).all(axis=1)).all():
                name = self.table.column("id")[start + int(np.argmin(finite))].as_py()
                raise ValueError(f"The vector of {name!r} has numbers that are not finite.")
            start += len(part)
        return self

    @cached_property
    def payload(self) -> dict[str, list[Any]]:
        """{column: values}, None where a document has none."""
        names = self.table.schema.names
        return {name: self.table.column(name).to_pylist() for name in names if name not in ("id", "vector")}

    @property
    def rows(self) -> Iterator[dict[str, Any]]:
        """The payload, document by document, without what is None."""
        for values in zip(*self.payload.values(), strict=True) if self.payload else ((),) * len(self):
            row = dict(zip(self.payload, values, strict=True))
            yield {name: value for name, value in row.items() if value is not None} if None in values else row


def _numbers(part: Any) -> np.ndarray:
    """float32 [n, W] of a chunk of a column of vectors."""
    return part.flatten().to_numpy(zero_copy_only=False).reshape(len(part), -1)


def engine_name(name: str) -> str:
    """A column's name as every engine takes it.

    >>> engine_name("Price (EUR)"), engine_name("2nd color")
    ('price_eur', 'c_2nd_color')
    """
    plain = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")
    return plain if plain[:1].isalpha() else f"c_{plain}"


def write_payload(
    path: Path, documents: Records, blocks: Callable[[], Blocks], names: Sequence[str], *, words: bool,
    report: Callable[[str], None] | None = None,
) -> dict[str, Column]:  # fmt: skip
    """Writes id and the columns `names` of all documents; returns {name in the engine: what it holds}.

    names: text fields of the documents, or columns of the products table; one whose cells are all numbers, by the
    decimal sign of the table, holds numbers, unless they have leading zeros, may be read in two ways (2,499), or are
    too large for float64. words: whether the documents' texts are a column, too. report: is told which are numbers.

    Raises ConfigError for a name that is neither, and for two that engines cannot tell apart.
    """
    called = {name: engine_name(name) for name in names}
    for name, other in called.items():
        if other in _RESERVED or list(called.values()).count(other) > 1:
            raise ConfigError(f"payload: {name!r} would be called {other!r} in the engine, as another column is.")
    fields = [name for name in names if name in fields_of(documents.side, Modality.text)]
    further = [name for name in names if name not in fields]
    spool = _Spool(blocks() if further else (), further, documents)
    kinds = {called[name]: spool.kinds.get(name, Column.text) for name in names}
    if report is not None and further:
        report(spool.said)
    if words := words and bool(fields_of(documents.side, Modality.text)):
        kinds[WORDS] = Column.text

    def pieces() -> Iterator[tuple[list[str], dict[str, Sequence[Any]]]]:
        for start in range(0, len(documents), _CHUNK):
            part = documents.subset(np.arange(start, min(start + _CHUNK, len(documents))))
            ids = [str(name) for name in part.ids]
            cells = spool.cells(ids)
            columns: dict[str, Sequence[Any]] = {called[name]: cells[name] for name in further}
            columns |= {called[name]: part.column(name, np.arange(len(part))) for name in fields}
            if words:
                columns[WORDS] = texts_of(part)
            yield ids, columns

    write_rows(path, {name: float if kind is Column.number else str for name, kind in kinds.items()}, pieces())
    return kinds


class _Spool:
    """Cells of products in a temporary file, found by id; the first row of an id counts."""

    def __init__(self, blocks: Blocks, names: Sequence[str], documents: Records) -> None:
        self._file, self._place, self._names = TemporaryFile(), KeyTable(), list(names)
        self._looks: dict[str, dict[str, _Looks]] = {name: {} for name in names}  # by decimal sign
        for ids, cells, decimal in blocks:
            for name in names:
                if name not in cells:
                    known = {*fields_of(documents.side, Modality.text), *cells}
                    raise ConfigError(f"payload: there is no column {name!r}.{nearest(name, known)}")
            for row, key in enumerate(ids):
                values = [" ".join(str(cells[name][row] or "").split()) for name in names]
                for name, value in zip(names, values, strict=True):
                    if value:
                        self._looks[name].setdefault(decimal, _Looks(decimal)).add(value)
                self._place.add(text_key(str(key)), self._file.tell())
                line = json.dumps([decimal, *values]).encode()
                self._file.write(len(line).to_bytes(4, "little") + line)
        if names and not len(self._place):
            raise ConfigError(
                f"payload: this catalog has no table of products, only the fields {', '.join(documents.side)}."
            )
        no_number = {name: [look.no_number for look in looks.values()] for name, looks in self._looks.items()}
        self.kinds = {
            name: Column.number if found and not any(found) else Column.text for name, found in no_number.items()
        }
        numbers = [name for name, kind in self.kinds.items() if kind is Column.number]
        cell = {name: reprlib.repr(next(filter(None, no_number[name]), "")) for name in names}
        texts = [f"{name} {cell[name]}" for name in names if name not in numbers]
        parts = {"numbers": ", ".join(numbers), "texts because of these cells": ", ".join(texts)}
        self.said = f"Payload: {'; '.join(f'{kind}: {of}' for kind, of in parts.items() if of)}."

    def __del__(self) -> None:
        self._file.close()

    def cells(self, ids: Sequence[str]) -> dict[str, list[Any]]:
        """{column: value of each id, None where it has none}"""
        if not self._names:
            return {}
        rows = []
        for key in ids:
            values = [".", *[""] * len(self._names)]
            if (place := self._place.get(text_key(key))) is not None:
                self._file.seek(place)
                values = json.loads(self._file.read(int.from_bytes(self._file.read(4), "little")))
            rows.append(values)
        return {
            name: [self._value(name, row[at], row[0]) for row in rows] for at, name in enumerate(self._names, start=1)
        }

    def _value(self, name: str, text: str, decimal: str) -> Any:
        if not text:
            return None
        return _number(text, self._looks[name][decimal].sign) if self.kinds[name] is Column.number else text


class _Looks:
    """Of a column's cells, in files with this decimal sign: whether they are numbers."""

    def __init__(self, decimal: str) -> None:
        self._decimal, self._commas, self._unclear, self._clear = decimal, False, "", False
        self._no_number = dict.fromkeys(decimal, "")
        self._groups = {".": ",", ",": "", ".,": "."}[decimal]  # whose meaning nobody has said

    def add(self, text: str) -> None:
        for sign, found in self._no_number.items():
            if not found and _number(text, sign) is None:
                self._no_number[sign] = text
        if all(self._no_number.values()):
            return
        self._commas = self._commas or "," in text
        if _ONE_GROUP.fullmatch(text):
            self._unclear = self._unclear or (text if self._groups and self._groups in text else "")
        elif not self._clear and _CLEAR.fullmatch(text):
            self._clear = True

    @property
    def sign(self) -> str:
        """Of numbers that a program or a person wrote: a person, where there is any comma."""
        return self._decimal if self._decimal != ".," else "," if self._commas else "."

    @property
    def no_number(self) -> str:
        """The first cell that is none, or may be either of two; "": all are numbers."""
        return self._no_number[self.sign] or (self._unclear if not self._clear else "")


def _number(text: str, decimal: str) -> float | None:
    """A finite number that loses nothing of the text."""
    number = None if _CODE.fullmatch(text) else parse_number(text, decimal)
    exact = number is not None and math.isfinite(number) and (abs(number) < _WHOLE or not text.isdigit())
    return number if exact else None


def without_vectors(payload: Path, columns: Sequence[str]) -> Iterator[Batch]:
    """These columns of what `write_payload` wrote."""
    for start, piece in read_rows(payload, columns, _CHUNK):
        yield Batch(start, piece)


def batches(files: Sequence[Path], payload: Path, *, rows: int, start: int = 0) -> Iterator[Batch]:
    """The documents of some files of vectors with their payload, from the row `start` on, `rows` at a time. Raises
    ValueError for vectors that no engine finds."""
    return (Batch(at, piece).checked() for at, piece in vectors_beside(files, payload, rows=rows, start=start))
