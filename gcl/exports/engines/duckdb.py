"""DuckDB: a table in one file, searched exactly by SQL. https://duckdb.org/docs"""

from __future__ import annotations

from pathlib import Path

from gcl.exports.engines.engine import Collection, Engine, Here, How, Layout, Setting
from gcl.exports.engines.payload import Batch, Column

_TYPES = {Column.text: "VARCHAR", Column.number: "DOUBLE"}
_ROW_GROUP = 122_880  # rows


class DuckDB(Collection):
    """A table of <collection>.duckdb."""

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        return [Setting("exact", How.exact)]

    def __init__(self, layout: Layout, folder: Path, url: str | None) -> None:
        import duckdb

        from gcl.exports.engines.clients.duckdb import Search

        self._layout, self._table = layout, f'"{layout.name}"'  # a name may be a word of SQL
        self._db = duckdb.connect(str(folder / f"{layout.name}.duckdb"))
        self.asks = Search(self._db, layout.name)

    def rows(self) -> int | None:
        known = self._db.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        if (self._layout.name,) not in known:
            return None
        (count,) = self._db.execute(f"SELECT count(*) FROM {self._table}").fetchall()
        return int(count[0])

    def create(self) -> None:
        columns = [f'"{name}" {_TYPES[kind]}' for name, kind in self._layout.columns.items()]
        typed = ", ".join(["id VARCHAR NOT NULL", *columns, f"vector FLOAT[{self._layout.width}] NOT NULL"])
        self._db.execute(f"CREATE OR REPLACE TABLE {self._table} ({typed})")

    def add(self, batch: Batch, *, again: bool = False) -> None:
        # A thread takes a part of the table at a time; of parts that fill no row group, all goes into the log first.
        table = batch.table
        if len(batch) > _ROW_GROUP:
            table = table.combine_chunks().to_reader(_ROW_GROUP).read_all()
        else:
            self._db.execute("SET threads = 1")
        self._db.register("batch", table)
        self._db.begin()
        if again:
            self._db.execute(f"DELETE FROM {self._table} WHERE id IN (SELECT id FROM batch)")
        self._db.execute(f"INSERT INTO {self._table} BY NAME SELECT * FROM batch")
        self._db.commit()
        self._db.execute("RESET threads")
        self._db.unregister("batch")

    def finish(self) -> None:
        self._db.execute("CHECKPOINT")

    def drop(self) -> None:
        self._db.execute(f"DROP TABLE IF EXISTS {self._table}")

    def close(self) -> None:
        self._db.close()


ENGINE = Engine(
    name="duckdb",
    title="DuckDB",
    explanation="a database in one file; search is exact",
    collection=DuckDB,
    here=Here.database,
    batch=2 * _ROW_GROUP,
    requires=("duckdb",),
    extra="duckdb",
)
