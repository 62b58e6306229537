"""Where does a model get better or worse? One metric by the values of a column of the queries: kind, length, …"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gcl.retrieval.report import aligned
from gcl.retrieval.statistics import Comparison, compare

FEWEST = 20  # queries; with fewer, an interval says more about the queries than about the models


@dataclass(frozen=True)
class Slice:
    """Two models on the queries that have one value in a column."""

    value: str
    comparison: Comparison

    @property
    def too_few(self) -> bool:
        return self.comparison.n < FEWEST


def slices(column: Sequence[Any], before: np.ndarray, after: np.ndarray, *, seed: int = 0) -> list[Slice]:
    """One entry a value of the column (None counts as a value), most queries first. before[Q], after[Q]: a metric."""
    if not len(column) == len(before) == len(after):
        raise ValueError(f"{len(column)} values for {len(before)} and {len(after)} queries: give one value a query.")
    names = np.array(["none" if value is None else str(value) for value in column], dtype=object)
    found = [
        Slice(name, compare(before[names == name], after[names == name], seed=seed)) for name in sorted(set(names))
    ]
    return sorted(found, key=lambda slice: -slice.comparison.n)


def as_text(title: str, found: Sequence[Slice]) -> str:
    """A table for a terminal; values with too few queries are marked, never left out."""
    body = []
    for part in found:
        c = part.comparison
        note = "too few" if part.too_few else f"{c.low:+.4f} … {c.high:+.4f}"
        body.append((part.value, f"{c.before:.4f}", f"{c.after:.4f}", f"{c.change:+.4f}", note, str(c.n)))
    return aligned((title, "base", "tuned", "change", "95 % interval", "n"), body, words=1)
