"""What a table says twice, and differently: which score counts, and which row of a product (data.duplicates).

Pairs and judgments: `settle_scores` gives all rows of the same query and document the one score that counts. How often
a pair occurs stays as it is.

Products: `settle_products` looks through the ids alone first. Where some come twice it reads the table once more and
keeps, for these alone, the cells that count.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gcl.data.catalog import SamePair, SameProduct
from gcl.data.prepare.distinct import Conflict
from gcl.data.prepare.memory import in_parts
from gcl.data.prepare.rows import Line, plain_lines
from gcl.data.store.key_table import text_key
from gcl.data.store.prepared import Pairs
from gcl.data.store.records import Records
from gcl.data.tables.cells import canonical_id
from gcl.data.tables.images import Cells, ImageCell
from gcl.data.tables.table import Table
from gcl.schema import Field

_COUNTS = {
    SamePair.max: "the highest counts",
    SamePair.mean: "their mean counts",
    SamePair.last: "the last one counts",
}


class Example(NamedTuple):
    """One query row and document row with several scores."""

    query: int
    document: int
    scores: list[float]


@dataclass
class Settled:
    """pairs: with the scores that count. contradictions: queries and documents that had several."""

    pairs: Pairs
    contradictions: int = 0
    example: Example | None = None

    def told(self, what: str, stores: tuple[Records, Records], setting: str, rule: SamePair) -> str:
        """The sentence about it; raises it where the rule is to refuse. what: "pairs", "judgments of …"."""
        assert self.example is not None
        queries, documents = stores
        scores = " and ".join(f"{score:g}" for score in self.example.scores[:4])
        query = " ".join(str(value) for value in queries[self.example.query].values() if isinstance(value, str))
        such = f"{query or queries.ids[self.example.query]!r} with product {documents.ids[self.example.document]!r}"
        many = f"{self.contradictions:,} {what} have several scores, which contradict each other, for example {such}: "
        if rule is SamePair.refuse:
            raise ValueError(f"{many}{scores}. Set {setting} to max, mean or last, or leave one row of each.")
        return f"{many}{scores}; {_COUNTS[rule]} ({setting}={rule})"


def settle_scores(pairs: Pairs, rule: SamePair) -> Settled:
    """Every row of a (query, document) gets the score that counts; rows stay as many, in their order. With "refuse"
    scores stay, and the caller refuses if there are contradictions."""
    documents = int(pairs.document.max(initial=0)) + 1
    row, count = [np.empty(0, np.int64)], [np.empty(0, np.int64)]  # of those with several scores, one after another
    for part in in_parts(pairs.query):
        key = pairs.query[part].astype(np.int64) * documents + pairs.document[part]
        order = np.argsort(key, kind="stable")
        key, part = key[order], part[order]
        score = pairs.score[part]
        starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        length = np.diff(starts, append=len(key))
        differs = np.maximum.reduceat(score, starts) != np.minimum.reduceat(score, starts)
        row.append(part[np.repeat(differs, length)])
        count.append(length[differs])
    rows, length = np.concatenate(row), np.concatenate(count)
    if not len(rows):
        return Settled(pairs)
    starts, score = np.cumsum(length) - length, pairs.score[rows]
    first = np.argmin(rows[starts])  # of which the table speaks first
    shown = rows[starts[first] : starts[first] + length[first]]
    scores = list(dict.fromkeys(pairs.score[shown].tolist()))
    example = Example(int(pairs.query[shown[0]]), int(pairs.document[shown[0]]), scores)
    if rule is not SamePair.refuse:
        mean = (np.add.reduceat(score.astype(np.float64), starts) / length).astype(np.float32)
        most, last = np.maximum.reduceat(score, starts), score[starts + length - 1]
        counting = {SamePair.max: most, SamePair.mean: mean, SamePair.last: last}[rule]
        settled = pairs.score.copy()
        settled[rows] = np.repeat(counting, length)
        pairs = replace(pairs, score=settled)
    return Settled(pairs, len(length), example)


class ProductRows:
    """The products whose id comes twice, if there are any: `of` says what becomes of a row. differing: of those of
    which rows differ, the row that counts (the first, where they are merged)."""

    def __init__(
        self, counting: Mapping[str, tuple[Path, Cells]] = {}, differing: Mapping[str, tuple[Path, int]] = {}
    ) -> None:
        self._counting, self._differing = counting, differing
        self._given: set[str] = set()

    @property
    def contradictions(self) -> int:
        """How many products have rows that differ."""
        return len(self._differing)

    def asks(self, line: Line, id_column: str | None) -> bool:
        """Whether a row of the products makes a query of its own: not one that does not count."""
        place = (line.file, line.number)
        return not self._differing or self._differing.get(line.identifier(id_column or "") or "", place) == place

    def of(self, identifier: str, file: Path, record: Cells) -> tuple[Path, Cells] | None:
        """The cells that count, with the file they are from; None for a row of a product that was there already."""
        counting = self._counting.get(identifier)
        if counting is None:
            return file, record
        if identifier in self._given:
            return None
        self._given.add(identifier)
        return counting


def settle_products(table: Table, id_column: str | None, side: Mapping[str, Field], rule: SameProduct) -> ProductRows:
    """What counts of the products that come twice; nothing is looked at where that is refused."""
    if id_column is None or rule is SameProduct.refuse:
        return ProductRows()
    seen = array("Q")
    for block in table.blocks([id_column]):
        ids = (canonical_id(value) for value in block.columns[id_column] if isinstance(value, str))
        seen.extend(int.from_bytes(text_key(identifier)[:8], "big") for identifier in ids)
    values = np.frombuffer(seen, np.uint64)
    values.sort()
    twice = set(values[1:][values[1:] == values[:-1]].tolist())
    del values, seen
    counting: dict[str, tuple[Path, Cells]] = {}
    first: dict[str, Cells] = {}
    places: dict[str, tuple[Path, int]] = {}
    differing: set[str] = set()
    for line in plain_lines(table, side, [id_column]) if twice else ():
        identifier = line.identifier(id_column)
        if identifier is None or int.from_bytes(text_key(identifier)[:8], "big") not in twice:
            continue
        record = line.record(side)
        if record != first.setdefault(identifier, record):
            differing.add(identifier)
        if identifier not in counting or rule is SameProduct.last:
            counting[identifier] = line.file, record
            places[identifier] = line.file, line.number
        elif rule is SameProduct.merge:
            file, before = counting[identifier]
            counting[identifier] = file, {name: value or record[name] for name, value in before.items()}
    return ProductRows(counting, {identifier: places[identifier] for identifier in differing})


def differing_rows(table: Table, side: Mapping[str, Field], conflicts: list[Conflict]) -> list[str]:
    """Of each conflict what differs between its two rows, read again: only for the message that stops everything."""
    wanted = {place for conflict in conflicts for place in (conflict.first, conflict.second)}
    lines = (line for line in plain_lines(table, side) if (line.file, line.number) in wanted)
    cells = {(line.file, line.number): line.record(side) for line in lines}
    return [_difference(cells.get(one.first, {}), cells.get(one.second, {})) for one in conflicts]


def _difference(first: Cells, second: Cells) -> str:
    differing = [name for name in first if first[name] != second.get(name)]
    return "; ".join(f"{name}: {_shown(first[name])} and {_shown(second.get(name))}" for name in differing)


def _shown(cell: str | bytes | tuple[ImageCell, ...] | None) -> str:
    if not cell:
        return "nothing"
    if isinstance(cell, tuple):
        return _shown(cell[0]) if len(cell) == 1 else f"{len(cell)} images"
    if isinstance(cell, str):
        return repr(cell if len(cell) <= 60 else cell[:57] + "…")
    return f"{len(cell):,} bytes"
