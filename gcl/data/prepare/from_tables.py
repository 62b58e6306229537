"""Opened tables -> the files of a prepared folder: products, queries, pairs, tasks; all but the commit mark."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from gcl.data.catalog import Catalog, Split
from gcl.data.prepare.distinct import EMPTY, Collector, Row
from gcl.data.prepare.judged_tasks import (
    TaskQueries,
    as_numpy,
    check_names,
    explicit_task,
    file_name,
    read_corpus,
    read_judgments,
    read_queries,
)
from gcl.data.prepare.parts import CheckedParts
from gcl.data.prepare.resume import KeptWork
from gcl.data.prepare.rows import Line, parse_score, read_rows
from gcl.data.prepare.sources import Sources, image_urls
from gcl.data.prepare.write_split import NO_PAIRS, Built, Division, write_division, write_task
from gcl.data.store.prepared import Pairs
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.data.tables.download import Downloads
from gcl.data.tables.images import own_pixel_limit
from gcl.data.tables.quarantine import Bad, Quarantine
from gcl.data.tables.table import Table
from gcl.files.progress import counted
from gcl.schema import SideName


def build_tables(
    catalog: Catalog, sources: Sources, folder: Path, *, report_at: Path, progress: bool, parts: Path | None = None
) -> Built:
    """Writes everything but index.json. `report_at`: where the list of bad rows lies if there are too many. `parts`:
    where pieces of the work lie that were done before."""
    return _TableBuild(catalog, sources, folder, report_at=report_at, progress=progress, parts=parts).run()


class _TableBuild:
    def __init__(
        self,
        catalog: Catalog,
        sources: Sources,
        folder: Path,
        *,
        report_at: Path,
        progress: bool,
        parts: Path | None,
    ):
        self.catalog, self.sources, self.folder = catalog, sources, folder
        self.report_at, self.progress, self.parts = report_at, progress, parts
        self._shards: list[dict[str, Any]] = []
        self._of_quarantined = 0

    def run(self) -> Built:
        (self.folder / "tasks").mkdir()
        # Threads, not processes: Pillow decodes outside of Python's lock, and threads start at once.
        self._pool = ThreadPoolExecutor(self.catalog.store.workers)
        self._quarantine = Quarantine(self.folder / "quarantine.csv")
        self._download()
        with own_pixel_limit(), self._pool, self._quarantine:
            with self._collector("document", by_content=self.sources.document_id is None) as documents:
                self._collect_documents(documents)
            with self._collector("query", by_content=self.catalog.query_id is None) as queries:
                tasks = self._collect_tasks(queries)  # first: a query the pairs have as well keeps the task's id
                pairs = self._collect_pairs(documents, queries) if self.sources.pairs else NO_PAIRS
            holding = [found for found in tasks.values() if found.source.spec.hold_out_queries]
            division = write_division(
                self.folder,
                pairs,
                query_keys=queries.keys,
                document_ids=RecordStore(self.folder, "documents", {}).ids,
                split=self._split,
                held={queries.keys[row] for found in holding for row in found.row_of.values()},
            )
            counts = division.counts
            counts["tasks"] |= self._write_tasks(tasks, documents, division)
            counts |= self._quarantine.counts([table.name for table in self.sources.tables])
            counts["pairs_of_quarantined_products"] = self._of_quarantined
            counts["merged_product_rows"] = documents.merged if self.catalog.products else 0
        return Built(counts, self._shards)

    @property
    def _split(self) -> Split:
        """Where nothing is trained, nothing is chosen: all queries are test."""
        return self.catalog.split if self.catalog.training else replace(self.catalog.split, dev=0.0)

    def _download(self) -> None:
        """Pictures behind URLs, all of them first: they wait for the network, checking waits for the processor."""
        self._downloads = Downloads(self.catalog.download, self.folder.parent / "downloads")
        fetched = self._downloads.fetch_all(image_urls(self.sources, self.catalog))
        for _ in counted(fetched, f"{self.catalog.name}: downloads", shown=self.progress):
            pass

    @contextmanager
    def _collector(self, side: SideName, *, by_content: bool) -> Iterator[Collector]:
        fields, store = self.catalog.schema.side(side), self.catalog.store
        prefix = {"document": "documents", "query": "queries"}[side]
        keeps = self.parts is not None and store.image_side is not None
        with (
            KeptWork(self.parts, prefix, fields) if keeps else nullcontext() as keep,
            ShardWriter(self.folder, prefix, side=fields, shard_bytes=store.shard_bytes) as writer,
        ):
            yield Collector(
                writer,
                side=fields,
                what={"document": "product", "query": "query"}[side],
                by_content=by_content,
                max_pixels=self.catalog.max_image_pixels,
                image_side=store.image_side,
                image_root=self.sources.image_root,
                download=self._downloads.read,
                known=CheckedParts(self.parts, prefix, fields) if self.parts is not None else None,
                keep=keep,
                pool=self._pool,
                threads=store.workers,
            )
        self._shards += writer.shards

    def _collect_documents(self, documents: Collector) -> None:
        table, id_column = self.sources.documents, self.sources.document_id

        def rows() -> Iterator[Row]:
            for line in read_rows(table, {"document": self.catalog.document}, [id_column], quarantine=self._quarantine):
                identifier = line.identifier(id_column) if id_column else None
                if id_column and identifier is None:
                    self._quarantine.add(table.name, line.file, line.number, None, Bad("no product id"))
                else:
                    yield Row(line.file, line.number, identifier, line.record(self.catalog.document))

        for row, result in documents.collect(self._shown(rows(), "products")):
            if isinstance(result, Bad):
                self._quarantine.add(table.name, row.file, row.number, row.identifier, result)
        self._check_bad(table)
        documents.check_conflicts(f"data.document_id={id_column}")

    def _collect_tasks(self, queries: Collector) -> dict[str, TaskQueries]:
        tasks = {}
        for name, source in self.sources.tasks.items():
            tasks[name] = read_queries(
                name, source, side=self.catalog.query, queries=queries, quarantine=self._quarantine
            )
            self._check_bad(source.queries)
        check_names([file_name(kind) for found in tasks.values() for kind in found.kinds])
        return tasks

    def _collect_pairs(self, documents: Collector, queries: Collector) -> Pairs:
        """Every usable pair of the pairs table, in its order; queries are stored on the way."""
        table, catalog = self.sources.pairs, self.catalog
        query, document, score = array("q"), array("q"), array("f")

        def rows() -> Iterator[Row]:
            sides = {"query": catalog.query} | ({} if self.sources.document_id else {"document": catalog.document})
            others = [self.sources.document_id, catalog.query_id, catalog.score]
            for line in read_rows(table, sides, others, quarantine=self._quarantine):
                pair = self._pair_of(line, documents)
                if isinstance(pair, Bad):
                    product = line.columns[self.sources.document_id] if self.sources.document_id else None
                    self._quarantine.add(table.name, line.file, line.number, product, pair)
                elif pair is not None:
                    identifier = line.identifier(catalog.query_id) if catalog.query_id else None
                    yield Row(line.file, line.number, identifier, line.record(catalog.query), pair)

        for row, result in queries.collect(self._shown(rows(), "pairs"), namespace="pairs"):
            if isinstance(result, Bad):
                bad = Bad("empty query") if result is EMPTY else result
                self._quarantine.add(table.name, row.file, row.number, row.identifier, bad)
            else:
                query.append(result)
                document.append(row.extra[0])
                score.append(row.extra[1])
        self._check_bad(table)
        queries.check_conflicts(f"data.query_id={catalog.query_id}")
        for row, result in queries.collect(self._own_queries(documents)):
            if isinstance(result, int):  # a product without the column makes no query
                query.append(result)
                document.append(row.extra)
                score.append(catalog.own_score)
        return Pairs(as_numpy(query), as_numpy(document), as_numpy(score))

    def _own_queries(self, documents: Collector) -> Iterator[Row]:
        """The query that each stored product's own columns make (data.own_queries)."""
        catalog, id_column = self.catalog, self.sources.document_id
        if not catalog.own_queries:
            return
        for line in read_rows(
            self.sources.documents, {}, [id_column, *catalog.own_queries.values()], quarantine=self._quarantine
        ):
            document = documents.row_of.get(line.identifier(id_column) or "")
            if document is not None:
                record = {name: line.columns.get(catalog.own_queries.get(name)) for name in catalog.query}
                yield Row(line.file, line.number, None, record, document)

    def _pair_of(self, line: Line, documents: Collector) -> tuple[int, float] | Bad | None:
        """(product's row, score) of a row of the pairs table; None where the product is in the quarantine."""
        catalog, id_column = self.catalog, self.sources.document_id
        if id_column is None:
            found = documents.find(line.record(catalog.document), line.file)
            row = found if isinstance(found, int) else None
        else:
            identifier = line.identifier(id_column)
            if identifier is None:
                return Bad("no product id")
            row = documents.row_of.get(identifier)
            if row is None and identifier not in documents.failed:
                return Bad("unknown product id", identifier)
        if row is None:
            self._of_quarantined += self.sources.pairs is not self.sources.documents  # else the row itself is counted
            return None
        if catalog.query_id and line.columns[catalog.query_id] is None:
            return Bad("no query id")
        score = parse_score(line.columns[catalog.score]) if catalog.score else 1.0
        return score if isinstance(score, Bad) else (row, score)

    def _write_tasks(
        self, tasks: dict[str, TaskQueries], documents: Collector, division: Division
    ) -> dict[str, dict[str, Any]]:
        """The explicit tasks; returns their counts."""
        folder, written = self.folder / "tasks", {}
        for key, found in tasks.items():
            read = read_judgments(found, documents=documents, quarantine=self._quarantine, folder=folder)
            self._check_bad(found.source.qrels)
            listed = read_corpus(found, documents=documents, quarantine=self._quarantine)
            if found.source.corpus:
                self._check_bad(found.source.corpus)
            dev_query = found.dev_queries(division.halves.dev_query)
            for name, judged in read.judged.items():
                size = len(documents)
                task = explicit_task(
                    name, found, judged, key=key, training=division.training, documents=size, listed=listed
                )
                counts = write_task(task, dev_query=dev_query, split=self._split, folder=folder)
                written[name] = counts | {"dangling_judgments": read.dangling.get(name, 0)}
        return written

    def _check_bad(self, table: Table) -> None:
        self._quarantine.check(table.name, max_bad=self.catalog.max_bad, report_at=self.report_at)

    def _shown(self, rows: Iterator[Row], what: str) -> Iterator[Row]:
        return counted(rows, f"{self.catalog.name}: {what}", shown=self.progress)
