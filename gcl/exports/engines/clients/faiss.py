"""Asks faiss: https://github.com/facebookresearch/faiss"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from gcl.data.store.vector_files import read_row_ids

Results = list[tuple[str, dict[str, Any]]]  # (id, payload), best first


def connect(folder: str, collection: str) -> Search:
    return Search(Path(folder), collection)


class Search:
    """Indexes in files, read when they are asked for; they hold no payload."""

    def __init__(self, folder: Path, collection: str) -> None:
        self.folder, self.collection = folder, collection
        self.ids = read_row_ids(folder / f"{collection}.ids.parquet")
        self.indexes: dict[str, Any] = {}

    def near(self, vector: np.ndarray, k: int = 10, *, kind: str = "faiss-flat", ef: int | None = None) -> Results:
        """By the vector. kind: faiss-flat is exact, faiss-hnsw looks at `ef` candidates."""
        if kind not in self.indexes:
            self.indexes[kind] = faiss.read_index(str(self.folder / f"{self.collection}.{kind}"))
        index = self.indexes[kind]
        if ef is not None:
            index.hnsw.efSearch = ef
        rows = index.search(np.ascontiguousarray(vector[None]), min(k, len(self.ids)))[1][0]
        return [(self.ids[row], {}) for row in rows.tolist() if row >= 0]
