"""faiss: https://github.com/facebookresearch/faiss. An exact index and a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gcl.exports.engines.engine import Engine, Here, How, Layout, Setting
from gcl.exports.engines.indexes import BUILD, NEIGHBOURS, SEARCH, Indexes

_FLAT, _GRAPH = "faiss-flat", "faiss-hnsw"


class Faiss(Indexes):
    """Two indexes."""

    client = "faiss"
    kinds = (_FLAT, _GRAPH)

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        """The flat index is exact; the graph at several depths."""
        return [Setting("exact", How.exact, options={"kind": _FLAT}), *Setting.graph(kind=_GRAPH)]

    def empty(self, kind: str) -> Any:
        import faiss

        if kind == _FLAT:
            return faiss.IndexFlatIP(self._layout.width)
        index = faiss.IndexHNSWFlat(self._layout.width, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = BUILD, SEARCH
        return index

    def fill(self, index: Any, vectors: np.ndarray) -> None:
        index.add(vectors)

    def save(self, index: Any, path: Path) -> None:
        import faiss

        faiss.write_index(index, str(path))


ENGINE = Engine(
    name="faiss",
    title="faiss",
    explanation="two index files, exact and HNSW, and one of ids; an index is in memory as a whole",
    collection=Faiss,
    here=Here.database,
    filters=False,
    batch=16_384,
    requires=("faiss",),
    extra="index",
)
