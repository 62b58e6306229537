"""LanceDB: a table in a folder or an object store. https://lancedb.github.io/lancedb"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gcl.exports.engines.engine import APPROXIMATE, Collection, Engine, Here, How, Layout, Quantization, Setting
from gcl.exports.engines.payload import WORDS, Batch


class LanceDB(Collection):
    """A table of the database in `folder`, or at an address."""

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        """Exact; with the index at several depths, and its candidates scored again; with words."""
        made = [Setting("exact", How.exact, options={"exact": True})]
        if layout.quantization is not Quantization.none:
            name, option, many = ("HNSW, ef", "ef", 512) if layout.quantization is Quantization.scalar else (
                "IVF, probes", "probes", 64
            )  # fmt: skip
            for depth in (many // 16, many // 4, many):
                made.append(Setting(f"{name} {depth}", How.approximate, None, {option: depth}))
            made.append(Setting(f"{name} {many}, rescored", How.approximate, APPROXIMATE, {option: many, "refine": 10}))
        return made + Setting.words(layout)

    def __init__(self, layout: Layout, folder: Path, url: str | None) -> None:
        import lancedb

        self._layout = layout
        self._db = lancedb.connect(url or str(folder))
        self._table: Any = None
        if layout.name in self._db.list_tables().tables:
            self._table = self._db.open_table(layout.name)

    @property
    def asks(self) -> Any:
        from gcl.exports.engines.clients.lancedb import Search

        return Search(self._table)

    def rows(self) -> int | None:
        return None if self._table is None else self._table.count_rows()

    def drop(self) -> None:
        if self._table is not None:
            self._db.drop_table(self._layout.name)
        self._table = None

    create = drop  # the first rows make it

    def add(self, batch: Batch, *, again: bool = False) -> None:
        if self._table is None:
            self._table = self._db.create_table(self._layout.name, batch.table)
        elif again:
            self._table.merge_insert("id").when_not_matched_insert_all().execute(batch.table)
        else:
            self._table.add(batch.table)

    def finish(self) -> None:
        from lancedb.index import FTS, HnswSq, IvfRq

        table = self._table
        if self._layout.words:
            table.create_index(WORDS, config=FTS(stem=False, remove_stop_words=False), replace=True)
        if self._layout.quantization is Quantization.scalar:
            table.create_index("vector", config=HnswSq(distance_type="dot", num_partitions=1), replace=True)
        elif self._layout.quantization is Quantization.binary:
            table.create_index("vector", config=IvfRq(distance_type="dot"), replace=True)

    def close(self) -> None:
        self._table = None


ENGINE = Engine(
    name="lancedb",
    title="LanceDB",
    explanation="a database in a folder, or at an address (object store, LanceDB Cloud)",
    collection=LanceDB,
    url="s3://bucket/path",
    here=Here.database,
    quantizations=tuple(Quantization),
    batch=32_768,
    requires=("lancedb",),
    extra="lancedb",
)
