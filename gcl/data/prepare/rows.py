"""Opened tables -> rows, one by one: what no catalog could use goes to the quarantine on the way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

from gcl.data.tables.block import Block, listed
from gcl.data.tables.cells import Cell, canonical_id, parse_number
from gcl.data.tables.images import Cells, ImageCell, image_cells, taken
from gcl.data.tables.quarantine import Bad, Quarantine
from gcl.data.tables.table import Table
from gcl.schema import Field, Modality

T = TypeVar("T")
_MOST_WORDS = 20  # different words that a message lists


def column(name: str, spec: Field) -> str:
    """The table's column of the field `name`."""
    return spec.column or name


def columns_of(name: str, spec: Field) -> list[str]:
    """The table's columns of the field `name`: of an image field there may be several."""
    return spec.columns or [column(name, spec)]


def image_columns(side: Mapping[str, Field]) -> list[str]:
    """The table's columns of a side's image fields."""
    return [one for name, spec in side.items() if spec.modality is Modality.image for one in columns_of(name, spec)]


def taken_images(block: Block, side: Mapping[str, Field]) -> Iterator[ImageCell]:
    """The images that a block's rows name and their fields take, in order."""
    for name, spec in side.items():
        if spec.modality is Modality.image:
            for cells in zip(*(block.columns[one] for one in columns_of(name, spec)), strict=True):
                yield from taken(image_cells(cells, spec), spec)


@dataclass(slots=True)
class Line:
    """One readable row: its cells by column, and its place in the block it came with."""

    block: Block
    place: int
    columns: dict[str, Cell]

    @property
    def file(self) -> Path:
        """Where the row is."""
        return self.block.file

    @property
    def number(self) -> int:
        """1-based, in its file."""
        return self.block.number[self.place]

    @classmethod
    def of(cls, block: Block) -> Iterator[Line]:
        """The rows of a block, in order."""
        for place, _, *cells in zip(count(), block.number, *block.columns.values(), strict=False):
            yield cls(block, place, dict(zip(block.columns, cells, strict=True)))

    def record(self, side: Mapping[str, Field]) -> Cells:
        """The row's cells by field: a text or None, the images of an image field."""
        return {
            name: (cell if isinstance(cell := self.columns[spec.column or name], str) else None)
            if spec.modality is Modality.text
            else tuple(image_cells([self.columns[one] for one in columns_of(name, spec)], spec))
            for name, spec in side.items()
        }

    def text(self, name: str) -> str | None:
        """The cell of a column that was read as text."""
        value = self.columns[name]
        return value if isinstance(value, str) else None

    def identifier(self, name: str) -> str | None:
        """An id in the form in which ids are compared."""
        value = self.columns[name]
        return canonical_id(value) if isinstance(value, str) else None

    def absent(self, name: str, reason: str) -> Bad:
        """Why the row is refused whose cell in a column is None; `reason`, for example "no product id"."""
        word = self.block.missing.get(self.place, {}).get(name)
        return Bad(
            reason, f"{name}: {word!r} is a word for a missing value (data.missing)" if word else f"{name}: empty"
        )


def plain_lines(table: Table, side: Mapping[str, Field], others: Iterable[str] = ()) -> Iterator[Line]:
    """The readable rows with the columns of a side and `others`, for a look before or after they are really read."""
    text = [column(name, spec) for name, spec in side.items() if spec.modality is Modality.text]
    for block in table.blocks([*others, *text], image_columns(side)):
        yield from Line.of(block)


class Pair(NamedTuple):
    """What a row of the pairs table says of its query: the document, as a row of the store, and the score."""

    document: int
    score: float


class Row(NamedTuple):
    """One row of a table, seen from one side. `identifier` None: the content is the identity. `pair`: of a query."""

    file: Path
    number: int
    identifier: str | None
    cells: Cells
    pair: Pair | None = None


def read_rows(
    table: Table,
    sides: Mapping[str, Mapping[str, Field]],
    others: Iterable[str | None] = (),
    *,
    quarantine: Quarantine,
    all_fields: bool = True,
) -> Iterator[Line]:
    """The rows of a table with the columns of these sides ("query" and/or "document") and of `others`. Rows that
    cannot be read go to the quarantine.

    Raises ValueError after the last row for a table without rows, for one with too many unreadable rows, and for a
    column without a value in any row (of the sides only where `all_fields`).
    """
    fields = {
        f"data.{side}.{name}": (columns_of(name, spec), spec)
        for side, specs in sides.items()
        for name, spec in specs.items()
    }
    # columns without a value so far (of an image field, all of its columns), and what names them
    empty: dict[tuple[str, ...], str] = {(name,): "" for name in others if name is not None}
    image = [name for names, spec in fields.values() if spec.modality is Modality.image for name in names]
    text = [name for names, spec in fields.values() if spec.modality is Modality.text for name in names]
    text += [name for names in empty for name in names]
    if all_fields:
        empty |= {tuple(names): f" ({setting})" for setting, (names, _) in fields.items()}
    rows, unreadable, html = 0, 0, Counter[str]()
    quarantine.feeds.update(table.feed_files)
    missing: dict[str, Counter[str]] = {}
    for block in table.blocks(text, image):
        for number, reason, detail in block.bad:
            quarantine.add(table.name, block.file, number, None, Bad(reason, detail))
        unreadable += len(block.bad)
        rows += len(block.number) + len(block.bad)
        quarantine.rows[table.name] = rows
        html.update({name: count for name, count in block.html.items() if name not in image})
        for words in block.missing.values():
            for name, word in words.items():
                missing.setdefault(name, Counter())[word] += 1
        for names in [names for names in empty if any(any(block.columns[name]) for name in names)]:
            del empty[names]
        yield from Line.of(block)
    quarantine.html[table.name] |= html  # a table may be read several times, for other columns
    quarantine.missing[table.name] |= missing
    if not rows:
        raise ValueError(f"{table.name} has a header but no rows.")
    if unreadable > quarantine.max_bad * rows:
        quarantine.check(table.name)  # what is lost with them is not the first cause
    if empty:
        found = dict.fromkeys(word for names in empty for name in names for word in missing.get(name, ()))
        said = f" but words for a missing value (data.missing: {', '.join(map(repr, found))})" if found else ""
        unused = listed([f"{', '.join(map(repr, names))}{setting}" for names, setting in empty.items()])
        raise ValueError(
            f"{table.name}: no value in any of its {rows:,} rows in the column {unused}{said}. Fill it, or take it out "
            "of the configuration."
        )


def usable_rows(
    lines: Iterable[Line],
    usable: Callable[[Line], T | Bad | None],
    *,
    table: Table,
    named_by: str | None,
    quarantine: Quarantine,
) -> Iterator[tuple[Line, T]]:
    """Each line with what `usable` makes of it. Where that is Bad, the line goes to the quarantine, under its value in
    the column `named_by`; where it is None, the line is passed over."""
    for line in lines:
        value = usable(line)
        if isinstance(value, Bad):
            identifier = line.identifier(named_by) if named_by else None
            quarantine.add(table.name, line.file, line.number, identifier, value)
        elif value is not None:
            yield line, value


class Scores:
    """Called with a cell of the column of scores, gives the number it means: at least 0 and finite.

    setting: what says how much a word counts (data.grades), and `grades` what it says.

    >>> scores = Scores("data.grades", {"Exact": 2.0})
    >>> scores("0.5"), scores("exact"), scores("-1").reason, scores("Partial").reason
    (0.5, 2.0, 'negative score', 'score is not a number')
    """

    def __init__(self, setting: str = "data.grades", grades: Mapping[str, float] | None = None) -> None:
        self.setting = setting
        self._grades = {word.strip().casefold(): float(grade) for word, grade in (grades or {}).items()}
        self._words: Counter[str] = Counter()

    def __call__(self, text: str | None, decimal: str = ".") -> float | Bad:
        """decimal: the decimal sign, as of `parse_number`."""
        if text is None:
            return Bad("no score")
        if self._grades and (grade := self._grades.get(text.strip().casefold())) is not None:
            return grade
        score = parse_number(text, decimal)
        if score is None:
            return self._no_number(text, decimal)
        if score < 0:
            return Bad("negative score", text)
        if not score <= 3.4e38:  # NaN, infinity, or beyond float32
            return Bad("score is not finite", text)
        return score

    def _no_number(self, text: str, decimal: str) -> Bad:
        other = "," if decimal == "." else "."
        if parse_number(text, other) is not None:
            return Bad("score is not a number", f"{text}: with data.decimal={other!r} it is one")
        if len(self._words) < _MOST_WORDS or text in self._words:
            self._words[text] += 1
        return Bad("score is not a number", text)

    def advice(self, table: str, name: str) -> str | None:
        """What to write where the column `name` holds words; None where it holds none."""
        if not self._words:
            return None
        if len(self._words) == _MOST_WORDS:  # as many as are kept: no grades
            few = ", ".join(map(repr, list(self._words)[:3]))
            return f"The column {name!r} of {table} does not hold numbers ({few}, …): write them as digits alone"
        counted = ", ".join(f"{word!r} {count:,}" for word, count in self._words.most_common())
        grades = ", ".join(f"{_in_yaml(word)}: …" for word in sorted(self._words))
        return (
            f"The column {name!r} of {table} holds words where a score is expected ({counted}). Say how much each "
            f"counts, with 0 for not relevant: {self.setting}={{{grades}}}"
        )


def _in_yaml(word: str) -> str:
    return word if re.fullmatch(r"[A-Za-z][\w ]*", word) else repr(word)
