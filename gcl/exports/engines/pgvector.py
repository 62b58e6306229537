"""PostgreSQL with pgvector: https://github.com/pgvector/pgvector. Checked in a server that `pgserver` starts here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcl.exports.engines.clients.pgvector import Search
from gcl.exports.engines.engine import Asked, Collection, Engine, Here, How, Layout, Setting
from gcl.exports.engines.payload import WORDS, Batch, Column
from gcl.files.atomic import replacing, write_text

_TYPES = {Column.text: "text", Column.number: "double precision"}


def quoted(name: str) -> str:
    """A name in SQL, which may be a word of SQL."""
    return f'"{name}"'


def schema(layout: Layout) -> str:
    """SQL that makes the table."""
    columns = [f'"{name}" {_TYPES[kind]}' for name, kind in layout.columns.items()]
    if layout.words:
        columns.append(f"tsv tsvector GENERATED ALWAYS AS (to_tsvector('simple', coalesce({WORDS}, ''))) STORED")
    typed = ",\n  ".join(["id text PRIMARY KEY", *columns, f"vector vector({layout.width}) NOT NULL"])
    return f"CREATE EXTENSION IF NOT EXISTS vector;\nCREATE TABLE {quoted(layout.name)} (\n  {typed}\n);\n"


def indexes(layout: Layout) -> str:
    """SQL that makes the indexes, after the rows."""
    name, table = layout.name, quoted(layout.name)
    graph = "USING hnsw (vector vector_ip_ops) WITH (m = 16, ef_construction = 128)"
    made = f"CREATE INDEX IF NOT EXISTS {quoted(f'{name}_vector')} ON {table} {graph};\n"
    made += f"CREATE INDEX IF NOT EXISTS {quoted(f'{name}_tsv')} ON {table} USING gin (tsv);\n" if layout.words else ""
    return made + f"ANALYZE {table};\n"


def _copied(value: Any) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return repr(value) if isinstance(value, float) else f"[{','.join(map(repr, value.tolist()))}]"


def _sent(vectors: np.ndarray) -> Iterator[bytes]:
    """Each of vectors[n, W] in the binary form of pgvector: int16 W, int16 0, W float32, the high bytes first."""
    rows = np.empty((len(vectors), 1 + vectors.shape[1]), ">f4")
    rows[:, 1:], rows[:, :1].view(">i2")[:] = vectors, [vectors.shape[1], 0]
    sent, size = rows.tobytes(), rows.itemsize * rows.shape[1]
    return (sent[start : start + size] for start in range(0, len(sent), size))


class Pgvector(Collection):
    """A table of a server that is started here and removed, or of one at an address."""

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        """Exact, without the index; with it at several depths; with words, ranked by ts_rank_cd."""
        return [Setting("exact", How.exact), *Setting.graph(), *Setting.words(layout, "ts_rank_cd")]

    @classmethod
    def write(cls, layout: Layout, batches: Iterable[Batch], folder: Path) -> Sequence[Path]:
        """schema.sql, documents.copy and load.sql, for psql -f load.sql."""
        names = ["id", *layout.columns, "vector"]
        with replacing(folder / "documents.copy") as partial, open(partial, "w", encoding="utf-8") as file:
            for batch in batches:
                columns = [batch.ids, *(batch.payload[name] for name in layout.columns), batch.vectors]
                for values in zip(*columns, strict=True):
                    file.write("\t".join(map(_copied, values)) + "\n")
        copy = f"\\copy {quoted(layout.name)} ({', '.join(map(quoted, names))}) FROM 'documents.copy'\n"
        write_text(folder / "schema.sql", schema(layout))
        write_text(folder / "load.sql", f"\\i schema.sql\n{copy}{indexes(layout)}")
        return [folder / name for name in ("schema.sql", "documents.copy", "load.sql")]

    def __init__(self, layout: Layout, folder: Path, url: str | None) -> None:
        import psycopg
        from pgvector.psycopg import register_vector

        self._layout, self._server, self._place = layout, None, ""
        self._table = quoted(layout.name)
        if url is None:
            import pgserver

            self._place = tempfile.mkdtemp(prefix="gcl-pg-")  # a socket's path must be short
            self._server = pgserver.get_server(self._place)
            url = self._server.get_uri()
        # A prepared statement keeps its plan, whatever `search` sets: exact search in the place of the index.
        self._db = psycopg.connect(url, autocommit=True, prepare_threshold=None)
        self._db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(self._db)
        self.asks = Search(self._db, layout.name)

    def rows(self) -> int | None:
        if self._db.execute("SELECT to_regclass(%s)", (self._table,)).fetchall() == [(None,)]:
            return None
        ((count,),) = self._db.execute(f"SELECT count(*) FROM {self._table}").fetchall()
        return int(count)

    def create(self) -> None:
        self.drop()
        self._db.execute(schema(self._layout))

    def add(self, batch: Batch, *, again: bool = False) -> None:
        from psycopg import sql

        layout = self._layout
        names = sql.SQL(", ").join(map(sql.Identifier, ["id", *layout.columns, "vector"]))
        copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(sql.Identifier(layout.name), names)
        columns = [batch.ids, *(batch.payload[name] for name in layout.columns), _sent(batch.vectors)]
        kinds = ["float8" if kind is Column.number else "text" for kind in layout.columns.values()]
        with self._db.transaction(), self._db.cursor() as cursor:
            if again:
                cursor.execute(f"DELETE FROM {self._table} WHERE id = ANY(%s)", (batch.ids,))
            with cursor.copy(copy) as rows:
                rows.set_types(["text", *kinds, "bytea"])  # of the vectors what is sent, without an object for each
                for values in zip(*columns, strict=True):
                    rows.write_row(values)

    def finish(self) -> None:
        self._db.execute(indexes(self._layout))

    def search(self, asked: Asked, k: int, setting: Setting) -> Sequence[str]:
        """With the index or without it as the setting says: for a small table, PostgreSQL takes neither for granted."""
        if setting.how in (How.exact, How.approximate):
            by_index = setting.how is How.approximate
            self._db.execute(f"SET enable_indexscan = {by_index}; SET enable_seqscan = {not by_index}")
        return super().search(asked, k, setting)

    def drop(self) -> None:
        self._db.execute(f"DROP TABLE IF EXISTS {self._table}")

    def close(self) -> None:
        self._db.close()
        if self._server is not None:
            self._server.cleanup()
            shutil.rmtree(self._place, ignore_errors=True)


ENGINE = Engine(
    name="pgvector",
    title="PostgreSQL with pgvector",
    explanation="checked in a server that is started here for it; at the address of yours",
    collection=Pgvector,
    files="load.sql for `psql -f load.sql`, which reads schema.sql and documents.copy",
    serve="docker run -p 5432:5432 -e POSTGRES_PASSWORD=… pgvector/pgvector:pg17",
    url="postgresql://user:password@localhost/shop",
    here=Here.check,
    widest=2000,
    longest=56,  # its indexes are called <collection>_vector, and PostgreSQL cuts names to 63
    batch=16_384,
    requires=("psycopg", "pgvector", "pgserver"),
    extra="pgvector",
)
