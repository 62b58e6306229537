"""What faiss and usearch share: indexes in files next to one of ids. They hold vectors alone, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gcl.data.store.vector_files import read_row_ids, write_row_ids
from gcl.exports.engines.engine import Collection, Layout
from gcl.exports.engines.payload import Batch
from gcl.files.atomic import replacing

NEIGHBOURS = 32  # of a node in the graph
BUILD, SEARCH = 200, 128  # candidates looked at while building and searching it


class Indexes(Collection):
    """<collection>.<kind>: the indexes that the settings search, and <collection>.ids.parquet."""

    client: ClassVar[str]
    """By which they are asked, in clients/."""
    kinds: ClassVar[Sequence[str]]

    def __init__(self, layout: Layout, folder: Path, url: str | None) -> None:
        self._layout, self._folder = layout, folder
        self._ids_file, self._ids = folder / f"{layout.name}.ids.parquet", list[str]()
        self._files = {kind: folder / f"{layout.name}.{kind}" for kind in self.kinds}
        self._filling: dict[str, Any] = {}
        self._asks: Any = None

    def empty(self, kind: str) -> Any:
        """A new index."""
        raise NotImplementedError

    def fill(self, index: Any, vectors: np.ndarray) -> None:
        """vectors[n, W] float32: the next n rows."""
        raise NotImplementedError

    def save(self, index: Any, path: Path) -> None:
        """Writes it."""
        raise NotImplementedError

    @property
    def asks(self) -> Any:
        if self._asks is None:
            client = import_module(f"gcl.exports.engines.clients.{self.client}")
            self._asks = client.connect(str(self._folder), self._layout.name)
        return self._asks

    def rows(self) -> int | None:
        return len(read_row_ids(self._ids_file)) if self._ids_file.is_file() else None

    def create(self) -> None:
        self.drop()
        self._filling = {kind: self.empty(kind) for kind in self._files}

    def add(self, batch: Batch, *, again: bool = False) -> None:
        self._ids += batch.ids
        for index in self._filling.values():
            self.fill(index, np.ascontiguousarray(batch.vectors))

    def finish(self) -> None:
        """Written when all are in them; an interrupted load begins again."""
        for kind, index in self._filling.items():
            with replacing(self._files[kind]) as partial:
                self.save(index, partial)
        if self._filling:
            write_row_ids(self._ids_file, iter([self._ids]))
            self._filling = {}

    def drop(self) -> None:
        self._ids, self._asks = [], None
        for path in [*self._files.values(), self._ids_file]:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        self._filling, self._asks = {}, None
