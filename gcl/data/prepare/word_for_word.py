"""In how many pairs does a field of the document hold the query word for word? These test no model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcl.data.store.prepared import Pairs
from gcl.data.store.records import Value
from gcl.data.store.store import RecordStore
from gcl.schema import Modality, fields_of

MOST_PAIRS = 10_000  # that are looked at, evenly spread: the share is right to a hundredth
_SHARDS = 4  # of an object store that are read for it
_AT_ONCE = 100  # texts; with each the system maps 64 KiB around it
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class WordForWord:
    """Called with pairs of rows of the two stores, gives {document field: (pairs whose query it holds, pairs looked
    at)}, of fields that hold any. A query of several texts is held where one field holds them all."""

    queries: RecordStore
    documents: RecordStore
    most: int = MOST_PAIRS

    def __call__(self, pairs: Pairs, hides: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
        """hides: fields that no document shows, besides those of `pairs`."""
        asked = fields_of(self.queries.side, Modality.text)
        rows = np.flatnonzero(pairs.score > 0)
        if len(rows) and self.documents.remote_shards(pairs.document[rows[:1]]):  # the others stay where they are
            rows = rows[self.documents.shard[pairs.document[rows]] < _SHARDS]
        if len(rows) > self.most:
            rows = rows[np.linspace(0, len(rows) - 1, self.most).astype(np.int64)]
        if not asked or not len(rows):
            return {}
        pairs = pairs.take(rows)
        distinct, place = np.unique(pairs.query, return_inverse=True)
        columns = [_column(self.queries, name, distinct) for name in asked]
        queries = [[words(str(text)) for text in texts if text] for texts in zip(*columns, strict=True)]
        documents, row = np.unique(pairs.document, return_inverse=True)
        held: dict[str, tuple[int, int]] = {}
        for name in fields_of(self.documents.side, Modality.text):
            if name in hides:
                continue
            texts = [words(str(text)) if text else "" for text in _column(self.documents, name, documents)]
            shown = pairs.shows([name])[:, 0][np.zeros(len(pairs), int) if pairs.hidden is None else pairs.hidden]
            count = sum(
                bool(queries[query]) and all(len(text) > 1 and text in texts[document] for text in queries[query])
                for query, document in zip(place[shown].tolist(), row[shown].tolist(), strict=True)
            )
            if count:
                held[name] = count, len(pairs)
        return held


def _column(store: RecordStore, name: str, rows: np.ndarray) -> list[Value]:
    """Rows far from each other, without their shards ending up in memory as a whole."""
    values: list[Value] = []
    for start in range(0, len(rows), _AT_ONCE):
        values += store.column(name, rows[start : start + _AT_ONCE])
        store.release()
    return values


def words(text: str) -> str:
    """A text as its words in lower case, a space before and after each: a text that another holds word for word is
    a part of it.

    >>> words("Red shoes") in words("The red, shoes!"), words("red shoe") in words("Red shoes")
    (True, False)
    """
    return f" {' '.join(_WORD.findall(text.casefold()))} "
