"""Opened tables -> the files of a prepared folder: documents, queries, pairs, tasks; all but the commit mark.

1. images behind URLs are downloaded, all of them first: they wait for the network, checking waits for the processor
2. documents: each row of the products checked, distinct ones written to shards
3. queries of the explicit tasks, before those of the pairs: a query that both have keeps the task's id
4. pairs: each row's document is looked up and its score parsed, its query written to shards where it is new
5. split: training pairs, the four situations, then the explicit tasks with their judgments

Rows that cannot be used go to quarantine.csv; after each table the share of them is checked.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gcl.data.catalog import Catalog, Split
from gcl.data.prepare.bad_images import NOTHING_LEFT, ImageList
from gcl.data.prepare.distinct import EMPTY, Collector, Earlier, RecordCheck, Workers
from gcl.data.prepare.earlier import EarlierRecords
from gcl.data.prepare.gathered import Gathered, PairList, gather
from gcl.data.prepare.judged_tasks import (
    TaskQueries,
    check_names,
    explicit_task,
    read_corpus,
    read_judgments,
    read_queries,
)
from gcl.data.prepare.memory import give_back
from gcl.data.prepare.near_ids import NearIds
from gcl.data.prepare.parts import CheckedParts, KeptWork
from gcl.data.prepare.repeated import differing_rows, settle_products, settle_scores
from gcl.data.prepare.rows import Line, Pair, Row, Scores, read_rows, usable_rows
from gcl.data.prepare.sources import Sources
from gcl.data.prepare.split import Built, Division, Numbers, seen_or_copied, write_division, write_task
from gcl.data.prepare.word_for_word import WordForWord
from gcl.data.store.key_table import text_key
from gcl.data.store.prepared import PREFIX
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.data.tables.download import Downloads
from gcl.data.tables.quarantine import Bad, Quarantine
from gcl.data.tables.table import Table
from gcl.data.titles import file_name
from gcl.files.progress import counted, doing
from gcl.schema import Modality, SideName, fields_of


@dataclass
class TableBuild:
    """`report_at`: where the list of bad rows will be if there are too many. `parts`: where pieces of the work are that
    were done before. earlier: a folder that was prepared of an earlier state of the tables."""

    catalog: Catalog
    sources: Sources
    folder: Path
    report_at: Path
    progress: bool
    parts: Path | None = None
    earlier: Path | None = None
    _notes: list[str] = field(default_factory=list, init=False)

    def run(self) -> Built:
        """Writes everything but index.json."""
        self._shards: list[dict[str, Any]] = []
        self._of_quarantined = self._of_deleted = 0
        self._scores = Scores("data.grades", self.catalog.grades)
        self._group = array("Q")  # of each document, what data.split.group says; 0 for nothing
        (self.folder / "tasks").mkdir()
        # Threads, not processes: Pillow decodes outside of Python's lock, and threads start at once.
        self._pool = ThreadPoolExecutor(self.catalog.store.workers)
        self._quarantine = Quarantine(
            self.folder / "quarantine.csv",
            max_bad=self.catalog.max_bad,
            report_at=self.report_at,
            besides=(NOTHING_LEFT,),
        )
        self._images = ImageList(self._quarantine, self.catalog.bad_images)
        self._download()
        with self._pool, self._quarantine, self._images:
            with self._collector("document", by_content=self.sources.document_id is None) as documents:
                self._collect_documents(documents)
            with self._doing("looking for placeholder images"):
                self._images.leave_out_placeholders(self.folder, self.catalog.document, documents.seen_at)
            self._images.check("document")
            self._near = NearIds(documents.row_of, lambda: RecordStore(self.folder, "documents", {}).ids)
            with self._collector("query", by_content=self.catalog.query_id is None) as queries:
                tasks = self._collect_tasks(queries)
                gathered = self._collect_pairs(documents, queries) if self.catalog.training else None
            self._images.check("query")
            query_keys = queries.keys
            for side in (documents, queries):
                side.forget_contents()
            give_back()
            holding = [task for task in tasks if task.source.spec.hold_out_queries]
            numbers = Numbers(
                queries.texts, documents.texts, np.array(self._group, np.uint64) if self.catalog.split.group else None
            )
            with self._doing("dividing into training and held-out"):
                division = write_division(
                    self.folder,
                    gathered,
                    query_keys=query_keys,
                    catalog=self.catalog,
                    split=self._split,
                    held={query_keys[row] for task in holding for row in task.row_of.values()},
                    numbers=numbers,
                )
            counts = division.counts
            if self._of_deleted:
                self._notes.append(f"pairs left out with a deleted product: {self._of_deleted:,}")
            counts["notes"][:0] = self._notes
            with self._doing("writing tasks"):
                counts["tasks"] |= self._write_tasks(tasks, documents, division)
            counts |= self._quarantine.counts([table.name for table in self.sources.tables]) | self._images.counts()
            if downloads := self._downloads.counts():
                counts["downloads"] = downloads
            counts["pairs_of_quarantined_products"] = self._of_quarantined
            counts["merged_product_rows"] = documents.merged if self.catalog.products else 0
        return Built(counts, self._shards)

    @property
    def _split(self) -> Split:
        """Where nothing is trained, nothing is chosen: all queries are test."""
        return self.catalog.split if self.catalog.training else replace(self.catalog.split, dev=0.0)

    def _download(self) -> None:
        self._downloads = Downloads(self.catalog.download, self.folder.parent / "downloads")
        urls = partial(self.sources.image_urls, self.catalog)
        self._downloads.fetch_shown(urls, f"{self.catalog.name}: downloading images", shown=self.progress, twice=True)

    @contextmanager
    def _collector(self, side: SideName, *, by_content: bool) -> Iterator[Collector]:
        fields, store, parts = self.catalog.schema.side(side), self.catalog.store, self.parts
        prefix = PREFIX[side]
        check = RecordCheck(
            fields, self.catalog.max_image_pixels, store.image_side, self._downloads.read, f"data.{side}"
        )
        earlier = Earlier() if parts is None else Earlier(known=CheckedParts(parts, prefix, fields))
        shrinks = parts is not None and store.image_side is not None
        with (
            KeptWork(parts, prefix, fields) if parts and shrinks else nullcontext() as keep,
            self._records(side) as records,
            ShardWriter(self.folder, prefix, side=fields, shard_bytes=store.shard_bytes) as writer,
        ):
            yield Collector(
                writer,
                check,
                side=side,
                by_content=by_content,
                image_root=self.sources.image_root,
                images=self._images,
                earlier=(earlier._replace(keep=keep) if keep else earlier)._replace(records=records),
                workers=Workers(self._pool, store.workers),
            )
        self._shards += writer.shards
        give_back()

    def _records(self, side: SideName) -> EarlierRecords | nullcontext[None]:
        """Those of the earlier folder, of a side that has images."""
        if not fields_of(self.catalog.schema.side(side), Modality.image):
            return nullcontext()
        return EarlierRecords(self.catalog, side, downloads=self._downloads, earlier=self.earlier, target=self.folder)

    def _collect_documents(self, documents: Collector) -> None:
        table, id_column, side = self.sources.documents, self.sources.document_id, self.catalog.document
        group, rule = self.catalog.split.group, self.catalog.duplicates.products
        with self._doing("looking for repeated products"):
            settled = self._settled = settle_products(table, id_column, side, rule)
        if settled.contradictions:
            self._notes.append(
                f"{settled.contradictions:,} product ids of {table.name} have rows that differ: "
                f"data.duplicates.products={rule} counts"
            )

        def usable(line: Line) -> Row | Bad | None:
            identifier = line.identifier(id_column) if id_column else None
            if identifier is None:
                no_id = id_column and line.absent(id_column, "no product id")
                return no_id or Row(line.file, line.number, None, line.record(side))
            counting = settled.of(identifier, line.file, line.record(side))
            return counting and Row(counting[0], line.number, identifier, counting[1])

        lines = read_rows(table, {"document": side}, [id_column, *group], quarantine=self._quarantine)
        together: deque[int] = deque()  # of the rows that the collector has pulled and not given back
        for row, result in documents.collect(
            self._shown(self._document_rows(lines, usable, together), table, "product")
        ):
            number = together.popleft() if group else 0
            if isinstance(result, Bad):
                self._quarantine.add(table.name, row.file, row.number, row.identifier, result)
            elif group and result == len(self._group):
                self._group.append(number)
        self._images.check("document")
        self._check_bad(table)
        self._notes += table.said()
        documents.check_conflicts(
            f"data.document_id={id_column}",
            differences=partial(differing_rows, table, side),
            advice=", or let one of them count: data.duplicates.products=first (or last, or merge, which takes the "
            "first value of each field)",
        )

    def _document_rows(
        self, lines: Iterator[Line], usable: Callable[[Line], Row | Bad | None], together: deque[int]
    ) -> Iterator[Row]:
        """The usable rows of the products; to `together` goes what data.split.group says of each."""
        table, group = self.sources.documents, self.catalog.split.group
        for line, row in usable_rows(lines, usable, table=table, named_by=None, quarantine=self._quarantine):
            if group:
                values = [line.identifier(name) or "" for name in group]
                together.append(int.from_bytes(text_key("\0".join(values))[:8], "big") if all(values) else 0)
            yield row

    def _collect_tasks(self, queries: Collector) -> list[TaskQueries]:
        tasks = []
        for name, source in self.sources.tasks.items():
            tasks.append(read_queries(name, source, queries=queries, quarantine=self._quarantine))
            self._check_bad(source.queries)
        check_names([file_name(kind) for task in tasks for kind in task.kinds])
        return tasks

    def _collect_pairs(self, documents: Collector, queries: Collector) -> Gathered:
        """Every usable pair of the pairs table, in its order, then those of own_queries; queries are stored on the
        way. The collector pulls rows from the generators below, some ahead, and gives them back in order."""
        catalog, table, pairs = self.catalog, self.sources.pairs, PairList()
        if table is not None:
            self._collect_table(table, pairs, documents, queries)
        tables = len(pairs)
        for row, query in queries.collect(self._own_queries(documents)):
            if row.pair is not None and isinstance(query, int):  # a product without the column makes no query
                pairs.add(query, row.pair.document, row.pair.score)
        store, hides = (
            RecordStore(self.folder, "documents", catalog.document),
            catalog.hidden_fields(catalog.own_columns.values()),
        )
        gathered = gather(pairs.pairs(), tables, store, hides, own_table=table is self.sources.documents)
        if self.sources.judgments is None:
            return gathered
        judged = PairList()  # last: what is trained on has the rows that it has without them
        self._collect_table(self.sources.judgments, judged, documents, queries)
        return replace(gathered, judged=judged.pairs())

    def _collect_table(self, table: Table, pairs: PairList, documents: Collector, queries: Collector) -> None:
        catalog = self.catalog
        for row, query in queries.collect(
            self._shown(self._pair_rows(table, documents), table, "pair"), namespace="pairs"
        ):
            if isinstance(query, Bad):
                bad = query._replace(reason="empty query") if query.reason == EMPTY else query
                self._quarantine.add(table.name, row.file, row.number, row.identifier, bad)
            elif row.pair is not None:
                pairs.add(query, row.pair.document, row.pair.score)
        self._check_bad(table, self._scores, catalog.score)
        queries.check_conflicts(f"data.query_id={catalog.query_id}")

    def _pair_rows(self, table: Table, documents: Collector) -> Iterator[Row]:
        """The usable rows of the pairs table: their query, with the document's row and the score."""
        catalog, id_column, quarantine = self.catalog, self.sources.pairs_document_id, self._quarantine
        sides = {"query": catalog.query} | ({} if id_column else {"document": catalog.document})
        lines = read_rows(table, sides, [id_column, catalog.query_id, catalog.score], quarantine=quarantine)
        if catalog.pairs is None and table is self.sources.documents:
            lines = (line for line in lines if self._settled.asks(line, id_column))
        usable = usable_rows(
            lines, lambda line: self._pair_of(line, documents), table=table, named_by=id_column, quarantine=quarantine
        )
        for line, pair in usable:
            identifier = line.identifier(catalog.query_id) if catalog.query_id else None
            yield Row(line.file, line.number, identifier, line.record(catalog.query), pair)

    def _own_queries(self, documents: Collector) -> Iterator[Row]:
        """The query that each stored product's own columns make (data.own_queries)."""
        own, id_column = self.catalog.own_queries, self.sources.document_id
        if not own or id_column is None:
            return
        for line in read_rows(self.sources.documents, {}, [id_column, *own.values()], quarantine=self._quarantine):
            document = documents.row_of.get(line.identifier(id_column) or "")
            if document is not None and self._settled.asks(line, id_column):
                record = {name: line.text(own[name]) if name in own else None for name in self.catalog.query}
                yield Row(line.file, line.number, None, record, Pair(document, self.catalog.own_score))

    def _pair_of(self, line: Line, documents: Collector) -> Pair | Bad | None:
        """What a row of the pairs table says; None where the product is in the quarantine."""
        catalog, id_column = self.catalog, self.sources.pairs_document_id
        if id_column is None:
            known = documents.find(line.record(catalog.document), line.file)
            document = known if isinstance(known, int) else None
        else:
            identifier = line.identifier(id_column)
            if identifier is None:
                return line.absent(id_column, "no product id")
            document = documents.row_of.get(identifier)
            if document is None and self.sources.documents.deletes(identifier):
                self._of_deleted += 1
                return None
            if document is None and identifier not in documents.failed:
                return Bad("unknown product id", self._near(identifier) or identifier)
        if document is None:
            self._of_quarantined += self.sources.pairs is not self.sources.documents  # else the row itself is counted
            return None
        if catalog.query_id and line.columns[catalog.query_id] is None:
            return line.absent(catalog.query_id, "no query id")
        if catalog.score and line.columns[catalog.score] is None:
            return line.absent(catalog.score, "no score")
        score = self._scores(line.text(catalog.score), line.block.decimal) if catalog.score else 1.0
        return score if isinstance(score, Bad) else Pair(document, score)

    def _write_tasks(
        self, tasks: list[TaskQueries], documents: Collector, division: Division
    ) -> dict[str, dict[str, Any]]:
        """The explicit tasks; returns their counts."""
        folder, written = self.folder / "tasks", {}
        store, rule = division.stores[1], self.catalog.duplicates.judgments
        seen = seen_or_copied(division.halves.first_document, division.training.document)
        for task in tasks:
            spec, given = task.source.spec, self.catalog.tasks[task.name]
            scores = Scores(f"data.tasks.{task.name}.grades", spec.grades or self.catalog.grades)
            judgments = read_judgments(
                task, scores=scores, documents=documents, near=self._near, quarantine=self._quarantine, folder=folder
            )
            self._check_bad(task.source.qrels, scores, spec.score)
            hides = self.catalog.hidden_fields([given.column]) if given.column else ()
            listed = read_corpus(task, documents=documents, near=self._near, quarantine=self._quarantine)
            if task.source.corpus:
                self._check_bad(task.source.corpus)
            dev_query = task.dev_queries(division.halves.dev_query)
            for name, judged in judgments.judged.items():
                settled = settle_scores(judged, rule)
                if settled.contradictions:
                    division.counts["notes"].append(
                        settled.told(f"judgments of {name}", division.stores, "data.duplicates.judgments", rule)
                    )
                whole = explicit_task(name, task, settled.pairs, seen=seen, documents=store, listed=listed, hides=hides)
                counts = write_task(whole, dev_query=dev_query, split=self._split, folder=folder)
                written[name] = counts | {
                    "dangling_judgments": judgments.dangling.get(name, 0),
                    "contradicting_judgments": settled.contradictions,
                    "word_for_word": WordForWord(*division.stores)(whole.judged, hides),
                }
        return written

    def _check_bad(self, table: Table, scores: Scores | None = None, name: str | None = None) -> None:
        """scores: those of the table's column `name`."""
        self._quarantine.check(table.name, scores.advice(table.name, name) if scores and name else None)

    def _doing(self, what: str) -> doing:
        return doing(f"{self.catalog.name}: {what}", shown=self.progress)

    def _shown(self, rows: Iterator[Row], table: Table, unit: str) -> Iterator[Row]:
        label = f"{self.catalog.name}: reading {table.name}"
        return counted(rows, label, shown=self.progress, total=table.expected_rows, unit=unit)
