"""faiss (https://github.com/facebookresearch/faiss) and usearch (https://github.com/unum-cloud/usearch): indexes in
files, with a file of ids next to them. They hold vectors alone, in memory: no payload, no filters."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from gcl.data.store.vector_files import read_row_ids, write_row_ids
from gcl.exports.engines.payload import Batch
from gcl.exports.engines.registry import Asks, How, Layout, Setting, graph_settings
from gcl.exports.vectors.index import KINDS, VectorIndex
from gcl.files.atomic import replacing


def faiss_settings(layout: Layout, url: str | None) -> list[Setting]:
    """The flat index is exact; the graph at several depths."""
    made = [Setting("exact", How.exact, options={"kind": "faiss-flat"})]
    return made + graph_settings(kind="faiss-hnsw")


def usearch_settings(layout: Layout, url: str | None) -> list[Setting]:
    """The graph's vectors one by one, which is exact; the graph at several depths."""
    return [Setting("exact", How.exact, options={"exact": True}), *graph_settings()]


class Indexes(Asks):
    """<collection>.<kind>: the indexes that the settings search, and <collection>.ids.parquet. engine: that of
    clients/<engine>.py."""

    def __init__(self, layout: Layout, folder: Path, engine: str, kinds: Sequence[str]) -> None:
        self._layout, self._folder, self._engine = layout, folder, engine
        self._ids_file, self._ids = folder / f"{layout.name}.ids.parquet", list[str]()
        self._files = {kind: folder / f"{layout.name}.{kind}" for kind in kinds}
        self._filling: dict[str, VectorIndex] = {}
        self._asks: Any = None

    @property
    def asks(self) -> Any:
        if self._asks is None:
            client = import_module(f"gcl.exports.engines.clients.{self._engine}")
            self._asks = client.connect(str(self._folder), self._layout.name)
        return self._asks

    def rows(self) -> int | None:
        return len(read_row_ids(self._ids_file)) if self._ids_file.is_file() else None

    def create(self) -> None:
        self.drop()
        self._filling = {kind: KINDS[kind].new(self._layout.width) for kind in self._files}

    def add(self, batch: Batch, *, again: bool = False) -> None:
        self._ids += batch.ids
        for index in self._filling.values():
            index.add(batch.vectors)

    def finish(self) -> None:
        """Written when all are in them; an interrupted load begins again."""
        for kind, index in self._filling.items():
            with replacing(self._files[kind]) as partial:
                index.save(partial)
        if self._filling:
            write_row_ids(self._ids_file, iter([self._ids]))
            self._filling = {}

    def drop(self) -> None:
        self._ids, self._asks = [], None
        for path in [*self._files.values(), self._ids_file]:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        self._filling, self._asks = {}, None


def faiss(layout: Layout, folder: Path, url: str | None) -> Indexes:
    return Indexes(layout, folder, "faiss", ["faiss-flat", "faiss-hnsw"])


def usearch(layout: Layout, folder: Path, url: str | None) -> Indexes:
    return Indexes(layout, folder, "usearch", ["usearch"])
