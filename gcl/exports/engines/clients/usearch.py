"""Asks usearch: https://github.com/unum-cloud/usearch"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index

from gcl.data.store.vector_files import read_row_ids

Results = list[tuple[str, dict[str, Any]]]  # (id, payload), best first


def connect(folder: str, collection: str) -> Search:
    place = Path(folder)
    index = Index.restore(str(place / f"{collection}.usearch"))
    return Search(index, read_row_ids(place / f"{collection}.ids.parquet"))


class Search:
    """An index, which holds no payload."""

    def __init__(self, index: Any, ids: list[str]) -> None:
        self.index, self.ids = index, ids

    def near(self, vector: np.ndarray, k: int = 10, *, exact: bool = False, ef: int | None = None) -> Results:
        """By the vector. exact: all vectors are compared. ef: how many candidates the index looks at."""
        if ef is not None:
            self.index.expansion_search = ef
        rows = self.index.search(vector, min(k, len(self.ids)), exact=exact).keys
        return [(self.ids[row], {}) for row in rows.tolist()]
