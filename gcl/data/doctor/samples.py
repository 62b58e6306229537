"""What every part of the doctor's facts needs: rows to look at, numbers in short, records by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from gcl.data.store.records import Stored, title_of

EXAMPLES = 3
MOST_VALUES = 12  # distinct numbers that a histogram shows by themselves
_QUANTILES = {"least": 0, "5%": 5, "25%": 25, "median": 50, "75%": 75, "95%": 95, "most": 100}
CONTENT_HASH = "^[0-9a-f]{32}$"  # ids of records that have none of their own


def sample_rows(rows: np.ndarray, most: int | None, *, seed: int = 0) -> np.ndarray:
    """At most `most` of the rows, always the same ones, in order."""
    if most is None or len(rows) <= most:
        return rows
    draw = np.random.Philox(np.random.SeedSequence(seed)).random_raw(len(rows))
    return np.sort(rows[np.argsort(draw, kind="stable")[:most]])


def distribution(values: np.ndarray) -> dict[str, Any]:
    """Quantiles, mean, number of distinct values, and a histogram: [(label, count)] of the values themselves where
    there are few, of ten bins otherwise."""
    if not len(values):
        return {"count": 0}
    points = np.percentile(values, list(_QUANTILES.values())).tolist()
    distinct, count = np.unique(values, return_counts=True)
    if len(distinct) <= MOST_VALUES:
        histogram = [[f"{value:.6g}", int(number)] for value, number in zip(distinct, count, strict=True)]
    else:
        number, edges = np.histogram(values, bins=10)
        histogram = [
            [f"{low:.4g} to {high:.4g}", int(n)] for low, high, n in zip(edges, edges[1:], number, strict=False)
        ]
    return {
        "count": len(values),
        "mean": float(np.mean(values, dtype=np.float64)),
        "distinct": len(distinct),
        "quantiles": dict(zip(_QUANTILES, points, strict=True)),
        "histogram": histogram,
    }


def named(store: Stored, row: int) -> dict[str, Any]:
    """A record as people know it: {"row", "id", "title"}. A query without an id of its own has the id None."""
    identifier = str(store.ids[row])
    own = None if re.match(CONTENT_HASH, identifier) else identifier
    return {"row": int(row), "id": own, "title": title_of(store[int(row)], store.side, otherwise="")}


def all_named(store: Stored, rows: Iterable[int]) -> list[dict[str, Any]]:
    """`named`, one after another."""
    return [named(store, row) for row in rows]
