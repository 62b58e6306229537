"""A query in full: each model's first results with pictures, relevance, scores and twins, and what was missed."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from gcl.data.store.records import Records, images_of, title_fields, title_of
from gcl.retrieval.page.contest import Entry
from gcl.retrieval.page.thumbnails import Album
from gcl.schema import Modality, fields_of

MOST_MISSED = 4


class Side:
    """How records of one side are shown: their title, picture and content."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.titles = title_fields(records.side)
        self.pictures = fields_of(records.side, Modality.image)

    def title(self, row: int) -> str:
        """The first text that is there, or the id."""
        return title_of(self.records[row], self.records.side, otherwise=f"({self.records.ids[row]})")

    def picture(self, row: int) -> bytes | None:
        """The first one there is."""
        record = self.records[row]
        return next((image for name in self.pictures for image in images_of(record[name])), None)

    @cached_property
    def _hashes(self) -> list[Any]:
        return [self.records.hashes(name) for name in self.records.side]

    def content(self, row: int) -> tuple:
        """Equal for records whose every field is equal."""
        return tuple(column[row] for column in self._hashes)

    def identity(self, row: int) -> tuple[int, int]:
        """Equal for the same stored record, whichever task it is seen from."""
        return id(getattr(self.records, "store", self.records)), int(self.records.rows[row])


class Shelf:
    """Products shown somewhere on the page, each once: [title, id, picture number]."""

    def __init__(self, album: Album) -> None:
        self.album = album
        self.products: dict[tuple[int, int], list[Any]] = {}
        self._number: dict[tuple[int, int], int] = {}

    def add(self, side: Side, row: int) -> int:
        key = side.identity(row)
        if key not in self.products:
            self._number[key] = len(self.products)
            self.products[key] = [side.title(row), str(side.records.ids[row]), self.album.add(side.picture(row))]
        return self._number[key]

    def back_to(self, count: int) -> list[list[Any]]:
        """Forgets the products beyond the first `count`."""
        dropped = []
        while len(self.products) > count:
            key, product = self.products.popitem()
            del self._number[key]
            dropped.append(product)
        return dropped


class Judged:
    """A task's judgments, query by query: {corpus row: relevance}."""

    def __init__(self, entry: Entry) -> None:
        judgments = entry.task.judgments
        order = np.argsort(judgments.query, kind="stable")
        self.query, self.document = judgments.query[order], judgments.document[order]
        self.relevance = judgments.relevance[order]
        relevant = self.relevance[self.relevance > 0]
        self.complete = judgments.complete
        graded = bool(len(relevant)) and float(relevant.min()) != float(relevant.max())
        self.highest = float(relevant.max()) if graded else 0  # 0: relevance is not graded

    def of(self, position: int) -> tuple[dict[int, float], int]:
        """Judgments of one query inside the corpus, and the number of relevant ones outside."""
        start, stop = np.searchsorted(self.query, [position, position + 1])
        pairs = list(zip(self.document[start:stop].tolist(), self.relevance[start:stop].tolist(), strict=True))
        return {row: value for row, value in pairs if row >= 0}, sum(row < 0 and value > 0 for row, value in pairs)


class Detailer:
    """Builds the full view of queries of one task."""

    def __init__(self, entry: Entry, shelf: Shelf, *, top: int) -> None:
        self.entry, self.shelf, self.top = entry, shelf, top
        self.documents, self.queries = Side(entry.task.corpus), Side(entry.task.queries)
        self.judged = Judged(entry)

    def __call__(self, position: int) -> dict[str, Any]:
        """The query at this position of the task."""
        judged, outside = self.judged.of(position)
        results = list(self.entry.results.values())
        rows = [[row for row in result.row[position].tolist() if row >= 0] for result in results]
        rank = [{row: place for place, row in enumerate(found, 1)} for found in rows]
        relevant = sorted((row for row in judged if judged[row] > 0), key=lambda row: (-judged[row], row))
        twins_of_relevant = {self.documents.content(row) for row in relevant} if relevant else set()
        lists = []
        for result, found in zip(results, rows, strict=True):
            shown = found[: self.top]
            lines = zip(shown, result.score[position].tolist(), self._twins(shown), strict=False)
            lists.append([
                [self.shelf.add(self.documents, row), round(score, 4), self._relevance(judged, row, twins_of_relevant),
                 [places.get(row, 0) for places in rank], *twin]
                for row, score, twin in lines
            ])  # fmt: skip
        seen = {row for found in rows for row in found[: self.top]}
        missed = [row for row in relevant if row not in seen]
        return {
            "picture": self.shelf.album.add(self.queries.picture(position)),
            "lists": lists,
            "relevant": len(relevant),
            "outside": outside,
            "highest": self.judged.highest,
            "missed": [
                [self.shelf.add(self.documents, row), judged[row], [places.get(row, 0) for places in rank]]
                for row in missed[:MOST_MISSED]
            ],
            "missed_count": len(missed),
        }  # fmt: skip

    def _relevance(self, judged: dict[int, float], row: int, twins_of_relevant: set[tuple]) -> float | str | None:
        """The judgment; "twin" if there is none but a relevant product has the same content; else None."""
        if row in judged or self.judged.complete:
            return judged.get(row, 0.0)
        return "twin" if self.documents.content(row) in twins_of_relevant else None

    def _twins(self, rows: list[int]) -> list[tuple[int, str]]:
        """For each result the place of an earlier one that is the same (0: none), and in what: content or title."""
        content: dict[tuple, int] = {}
        title: dict[str, int] = {}
        twins = []
        for place, row in enumerate(rows, 1):
            same = content.setdefault(self.documents.content(row), place)
            like = title.setdefault(self.documents.title(row).casefold(), place)
            twins.append((same, "content") if same != place else (like, "title") if like != place else (0, ""))
        return twins
