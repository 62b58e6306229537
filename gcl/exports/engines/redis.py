"""Redis 8, or 7.4 with its search module. Hashes `gcl:<collection>:<id>`, which nobody else has, and an
index of them, by which it always searches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gcl.exports.engines.clients import redis
from gcl.exports.engines.clients.redis import prefix
from gcl.exports.engines.engine import Collection, Engine, Layout, Setting
from gcl.exports.engines.payload import WORDS, Batch, Column
from gcl.files.atomic import replacing

_TYPES: dict[Column, list] = {  # a text is found as a whole, small and large letters and commas included
    Column.text: ["TAG", "CASESENSITIVE", "SEPARATOR", "\x1f"], Column.number: ["NUMERIC"],
}  # fmt: skip


def _created(layout: Layout) -> list[Any]:
    fields: list[Any] = []
    for name, kind in layout.columns.items():
        fields += [name, *(["TEXT", "NOSTEM"] if name == WORDS else _TYPES[kind])]
    graph = ["TYPE", "FLOAT32", "DIM", layout.width, "DISTANCE_METRIC", "IP", "M", 16, "EF_CONSTRUCTION", 200]
    fields += ["vector", "VECTOR", "HNSW", len(graph), *graph]
    return ["FT.CREATE", layout.name, "ON", "HASH", "PREFIX", 1, prefix(layout.name), "STOPWORDS", 0, "SCHEMA", *fields]


def _puts(layout: Layout, batch: Batch) -> Iterator[list[Any]]:
    for name, row, vector in zip(batch.ids, batch.rows, batch.vectors, strict=True):
        values = [part for pair in row.items() for part in pair]
        yield ["HSET", prefix(layout.name) + name, *values, "vector", vector.astype("<f4").tobytes()]


class Redis(Collection):
    """An index of a server at an address."""

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        """The index at several depths; words."""
        return Setting.graph() + Setting.words(layout)

    @classmethod
    def write(cls, layout: Layout, batches: Iterable[Batch], folder: Path) -> Sequence[Path]:
        """documents.redis, for redis-cli --pipe."""
        from redis import Connection

        packed = Connection().pack_command
        with replacing(folder / "documents.redis") as partial, open(partial, "wb") as file:
            file.writelines(packed(*_created(layout)))
            for batch in batches:
                for put in _puts(layout, batch):
                    file.writelines(packed(*put))
        return [folder / "documents.redis"]

    def __init__(self, layout: Layout, folder: Path, url: str | None) -> None:
        self._layout, self.asks = layout, redis.connect(url or "redis://localhost", layout.name)
        self._ask = self.asks.client.execute_command

    def rows(self) -> int | None:
        known = self._layout.name.encode() in self._ask("FT._LIST")
        return int(self.asks.told()[b"num_docs"]) if known else None

    def create(self) -> None:
        self.drop()
        self._ask(*_created(self._layout))

    def add(self, batch: Batch, *, again: bool = False) -> None:
        """A hash replaces the columns of the one of its id."""
        with self.asks.client.pipeline(transaction=False) as pipe:
            for put in _puts(self._layout, batch):
                pipe.execute_command(*put)
            pipe.execute()

    def finish(self) -> None:
        """Waits until all hashes are in the index."""
        while int(self.asks.told()[b"indexing"]):
            time.sleep(0.2)

    def drop(self) -> None:
        """With its hashes."""
        if self.rows() is not None:
            self._ask("FT.DROPINDEX", self._layout.name, "DD")

    def close(self) -> None:
        self.asks.client.close()


ENGINE = Engine(
    name="redis",
    title="Redis",
    collection=Redis,
    files="documents.redis, for `redis-cli --pipe < documents.redis`",
    serve="docker run -p 6379:6379 redis:8",
    url="redis://localhost:6379",
    widest=32_768,
    requires=("redis",),
    extra="redis",
)
