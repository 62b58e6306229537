"""usearch: https://github.com/unum-cloud/usearch. A graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gcl.exports.engines.engine import Engine, Here, How, Layout, Setting
from gcl.exports.engines.indexes import BUILD, NEIGHBOURS, SEARCH, Indexes


class Usearch(Indexes):
    """An index."""

    client = "usearch"
    kinds = ("usearch",)

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        """The graph's vectors one by one, which is exact; the graph at several depths."""
        return [Setting("exact", How.exact, options={"exact": True}), *Setting.graph()]

    def empty(self, kind: str) -> Any:
        from usearch.index import Index

        return Index(
            ndim=self._layout.width, metric="ip", dtype="f32", connectivity=NEIGHBOURS, expansion_add=BUILD,
            expansion_search=SEARCH,
        )  # fmt: skip

    def fill(self, index: Any, vectors: np.ndarray) -> None:
        index.add(np.arange(len(index), len(index) + len(vectors)), vectors)

    def save(self, index: Any, path: Path) -> None:
        index.save(str(path))


ENGINE = Engine(
    name="usearch",
    title="usearch",
    explanation="an index file and one of ids; an index is in memory as a whole",
    collection=Usearch,
    here=Here.database,
    filters=False,
    batch=16_384,
    requires=("usearch",),
    extra="index",
)
