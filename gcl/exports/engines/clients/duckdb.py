"""Asks DuckDB with SQL: https://duckdb.org/docs"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

Results = list[tuple[str, dict[str, Any]]]  # (id, payload), best first


def connect(folder: str, collection: str) -> Search:
    return Search(duckdb.connect(str(Path(folder) / f"{collection}.duckdb"), read_only=True), collection)


class Search:
    """A table. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, db: duckdb.DuckDBPyConnection, table: str) -> None:
        self.db, self.table = db, f'"{table}"'

    def near(self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the vector, exactly."""
        condition, values = conditions(where or {})
        score = f"array_inner_product(vector, ?::FLOAT[{len(vector)}])"
        found = self.db.execute(
            f"SELECT * EXCLUDE (vector) FROM {self.table} WHERE {condition} ORDER BY {score} DESC, id LIMIT {k}",
            [*values, vector.tolist()],
        )
        names = [column[0] for column in found.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        return [(row.pop("id"), row) for row in rows]


def conditions(where: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """SQL, and its values."""
    all_of, values = ["true"], list[Any]()
    for name, value in where.items():
        ranged = isinstance(value, tuple)
        all_of.append(f'"{name}" BETWEEN ? AND ?' if ranged else f'"{name}" = ?')
        values += [*value] if ranged else [value]
    return " AND ".join(all_of), values
