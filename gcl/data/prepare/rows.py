"""Opened tables -> rows, one by one: what no catalog could use goes to the quarantine on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gcl.data.prepare.sources import column
from gcl.data.store.records import Record
from gcl.data.tables.block import Cell
from gcl.data.tables.quarantine import Bad, Quarantine
from gcl.data.tables.table import Table
from gcl.schema import Field, Modality


@dataclass
class Line:
    """One readable row: its cells by column."""

    file: Path
    number: int
    columns: dict[str, Cell]

    def record(self, side: Mapping[str, Field]) -> Record:
        return {name: self.columns[column(name, spec)] for name, spec in side.items()}

    def identifier(self, name: str) -> str | None:
        """Ids are compared without the white space around them."""
        value = self.columns[name]
        return None if value is None else value.strip()


def read_rows(
    table: Table,
    sides: Mapping[str, Mapping[str, Field]],
    others: Iterable[str | None] = (),
    *,
    quarantine: Quarantine,
    all_fields: bool = True,
) -> Iterator[Line]:
    """The rows of a table with the columns of these sides ("query" and/or "document") and of `others`. Rows that
    cannot be read at all go to the quarantine.

    Raises ValueError after the last row for a table without rows and for a column without a value in any row (of
    the sides only where `all_fields`).
    """
    fields = {
        f"data.{side}.{name}": (column(name, spec), spec)
        for side, specs in sides.items()
        for name, spec in specs.items()
    }
    image = [name for name, spec in fields.values() if spec.modality is Modality.image]
    others = {name: "" for name in others if name is not None}
    text = [name for name, spec in fields.values() if spec.modality is Modality.text] + list(others)
    empty = others | ({name: f" ({setting})" for setting, (name, _) in fields.items()} if all_fields else {})
    rows = 0
    for block in table.blocks(text, image):
        for number, reason, detail in block.bad:
            quarantine.add(table.name, block.file, number, None, Bad(reason, detail))
        rows += len(block.number) + len(block.bad)
        quarantine.rows[table.name] = rows
        for name in [name for name in empty if any(block.columns[name])]:
            del empty[name]
        for number, *cells in zip(block.number, *block.columns.values(), strict=True):
            yield Line(block.file, number, dict(zip(block.columns, cells, strict=True)))
    if not rows:
        raise ValueError(f"{table.name} has a header but no rows.")
    if empty:
        unused = ", ".join(f"{name!r}{setting}" for name, setting in empty.items())
        raise ValueError(
            f"{table.name}: no value in any of its {rows:,} rows in the column {unused}. Fill it, or take it out of "
            "the configuration."
        )


def parse_score(text: str | None) -> float | Bad:
    """A score is a finite number of at least 0.

    >>> parse_score("0.5"), parse_score("-1").reason
    (0.5, 'negative score')
    """
    if text is None:
        return Bad("no score")
    try:
        score = float(text)
    except ValueError:
        return Bad("score is not a number", text)
    if score < 0:
        return Bad("negative score", text)
    if not score <= 3.4e38:  # NaN, infinity, or beyond float32
        return Bad("score is not finite", text)
    return score
