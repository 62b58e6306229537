"""Asks PostgreSQL with pgvector: https://github.com/pgvector/pgvector"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

Results = list[tuple[str, dict[str, Any]]]  # (id, payload), best first
WORDS = "replace(plainto_tsquery('simple', %(words)s)::text, '&', '|')::tsquery"  # any of the words, as BM25 has it
HALVES = """
WITH near AS (SELECT id, -(vector <#> %(vector)s) AS score, row_number() OVER (ORDER BY vector <#> %(vector)s) AS place
              FROM {table} WHERE {where} ORDER BY vector <#> %(vector)s LIMIT {candidates}),
     said AS (SELECT id, ts_rank_cd(tsv, {words}, 1) AS score,
              row_number() OVER (ORDER BY ts_rank_cd(tsv, {words}, 1) DESC, id) AS place
              FROM {table} WHERE tsv @@ {words} AND {where} ORDER BY score DESC, id LIMIT {candidates}),
     best AS (SELECT id, {fused} AS fused FROM near FULL JOIN said USING (id) ORDER BY fused DESC, id LIMIT {k})
SELECT {columns} FROM best JOIN {table} USING (id) ORDER BY fused DESC, id"""


def connect(address: str, collection: str) -> Search:
    import psycopg
    from pgvector.psycopg import register_vector

    db = psycopg.connect(address, autocommit=True)
    register_vector(db)
    return Search(db, collection)


class Search:
    """A table. where: {"brand": "Nord", "price": (10, 50)}."""

    def __init__(self, db: Any, table: str) -> None:
        self.db, self.table = db, f'"{table}"'

    @cached_property
    def columns(self) -> str:
        """The id, and the payload."""
        every = self.db.execute(f"SELECT * FROM {self.table} LIMIT 0").description or ()
        return ", ".join(f'"{column.name}"' for column in every if column.name not in ("vector", "tsv"))

    def near(
        self, vector: np.ndarray, where: Mapping[str, Any] | None = None, k: int = 10, *, ef: int = 512
    ) -> Results:
        """By the vector. ef: how many candidates the index looks at, if PostgreSQL takes it."""
        condition, values = conditions(where or {})
        self.db.execute(f"SET hnsw.ef_search = {ef}")
        text = f"SELECT {self.columns} FROM {self.table} WHERE {condition} ORDER BY vector <#> %(vector)s LIMIT {k}"
        return self._found(text, {**values, "vector": vector})

    def by_words(self, text: str, where: Mapping[str, Any] | None = None, k: int = 10) -> Results:
        """By the words of the products' texts (ts_rank_cd)."""
        condition, values = conditions(where or {})
        found = f"SELECT {self.columns} FROM {self.table} WHERE tsv @@ {WORDS} AND {condition}"
        found += f" ORDER BY ts_rank_cd(tsv, {WORDS}, 1) DESC, id LIMIT {k}"
        return self._found(found, {**values, "words": text})

    def hybrid(
        self, vector: np.ndarray, text: str, where: Mapping[str, Any] | None = None, k: int = 10, *,
        share: float | None = None, candidates: int = 100,
    ) -> Results:  # fmt: skip
        """By both, each with some candidates: reciprocal rank fusion, or the share of the vectors in a weighted sum."""
        condition, values = conditions(where or {})
        fused = "coalesce(1.0 / (60 + near.place), 0) + coalesce(1.0 / (60 + said.place), 0)"
        if share is not None:
            fused = f"{share} * coalesce(near.score, 0) + {1 - share:.6g} * coalesce(said.score, 0)"
        query = HALVES.format(
            table=self.table, where=condition, candidates=candidates, words=WORDS, fused=fused, k=k,
            columns=self.columns,
        )  # fmt: skip
        return self._found(query, {**values, "vector": vector, "words": text})

    def _found(self, query: str, values: dict[str, Any]) -> Results:
        found = self.db.execute(query, values)
        names = [column.name for column in found.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        return [(row.pop("id"), row) for row in rows]


def conditions(where: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """SQL, and its values."""
    all_of, values = ["true"], dict[str, Any]()
    for name, value in where.items():
        ranged = isinstance(value, tuple)
        test = f"BETWEEN %({name}_least)s AND %({name}_most)s" if ranged else f"= %({name})s"
        all_of.append(f'"{name}" {test}')
        values |= {f"{name}_least": value[0], f"{name}_most": value[1]} if ranged else {name: value}
    return " AND ".join(all_of), values
