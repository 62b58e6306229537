"""BM25 (Robertson and Zaragoza 2009, https://doi.org/10.1561/1500000019), with Lucene's idf, which is never negative:

    score(q, d) = sum over the terms of q of idf * tf / (tf + k1 * (1 - b + b * |d| / mean |d|)),
    idf = ln(1 + (M - df + 0.5) / (df + 0.5)).

Terms are runs of letters and digits in lower case.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gcl.retrieval.search.ties import best_of, pack, unpack

K1, B = 1.2, 0.75
_TERM = re.compile(r"\w+")


def terms(text: str) -> list[str]:
    """
    >>> terms("Dr. Martens' 1460, black")
    ['dr', 'martens', '1460', 'black']
    """
    return _TERM.findall(text.lower())


@dataclass(frozen=True)
class Statistics:
    """Of a corpus: documents, terms of one in the mean, and how many documents have each term that is asked for."""

    size: int
    length: float
    frequency: Mapping[str, int]


class BM25:
    """An index of texts[M]: of each term the documents that hold it and what it is worth in each.

    corpus: what the texts are a part of, and which terms count; None: they are the whole, and all terms count.

    >>> index = BM25(["red shoes", "blue shoes", "a red, red hat"])
    >>> index.search(["red hat"], 2, rank=np.arange(3, dtype=np.int32))[1].tolist()
    [[2, 0]]
    """

    def __init__(self, texts: Sequence[str], corpus: Statistics | None = None) -> None:
        counts = [Counter(terms(text)) for text in texts]
        self.size = len(counts)
        length = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        size, mean = (self.size, length.mean()) if corpus is None else (corpus.size, corpus.length)
        norm = K1 * (1 - B + B * length / max(mean, 1e-12))
        postings: dict[str, list[tuple[int, int]]] = {}
        for row, count in enumerate(counts):
            for term, times in count.items():
                if corpus is None or term in corpus.frequency:
                    postings.setdefault(term, []).append((row, times))
        self._postings: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for term, pairs in postings.items():
            rows, times = np.array(pairs).T
            frequency = len(rows) if corpus is None else corpus.frequency[term]
            idf = np.log1p((size - frequency + 0.5) / (frequency + 0.5))
            self._postings[term] = rows, idf * times / (times + norm[rows])

    def search(self, queries: Sequence[str], k: int, *, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """score[Q, K] float32 and row[Q, K] of the k best, K = min(k, M); row -1 where no other document has a term of
        the query. rank[M]: as `search.search` takes it."""
        k = min(k, self.size)
        score, row = np.zeros((len(queries), k), np.float32), np.full((len(queries), k), -1, np.int64)
        row_of_rank = np.argsort(rank)
        for q, query in enumerate(queries):
            rows, total = self._totals(query)
            keys = pack(total.astype(np.float32), rank[rows])
            keys = np.sort(keys if len(keys) <= k else np.partition(keys, k - 1)[:k])
            score[q, : len(keys)], places = unpack(keys)
            row[q, : len(keys)] = row_of_rank[places]
        return score, row

    def scores(self, queries: Sequence[str], query: np.ndarray, document: np.ndarray) -> np.ndarray:
        """float32[P]: of each pair of a query (its place in `queries`) and a document."""
        out = np.zeros(len(query), np.float32)
        order = np.argsort(query, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(query[order])) + 1) if len(order) else []:
            rows, total = self._totals(queries[query[part[0]]])
            whole = np.zeros(self.size, np.float32)
            whole[rows] = total
            out[part] = whole[document[part]]
        return out

    def _totals(self, query: str) -> tuple[np.ndarray, np.ndarray]:
        """The documents that hold a term of the query, and their scores."""
        parts = [self._postings[term] for term in terms(query) if term in self._postings]
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0)
        rows, place = np.unique(np.concatenate([rows for rows, _ in parts]), return_inverse=True)
        return rows, np.bincount(place.reshape(-1), np.concatenate([worth for _, worth in parts]), len(rows))


def search_blocks(
    blocks: Callable[[], Iterable[Sequence[str]]], queries: Sequence[str], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """What BM25's `search` finds, ties by row ascending, with a block of the texts in memory at a time: they are read
    once for the statistics and once to be searched."""
    wanted = {term for query in queries for term in terms(query)}
    size, words, frequency = 0, 0, Counter[str]()
    for texts in blocks():
        for text in texts:
            found = terms(text)
            size, words = size + 1, words + len(found)
            frequency.update(wanted.intersection(found))
    corpus = Statistics(size, words / max(size, 1), frequency)
    score, row = np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    start = 0
    for texts in blocks():
        scores, rows = BM25(texts, corpus).search(queries, k, rank=np.arange(len(texts), dtype=np.int32))
        rows = np.where(rows < 0, size, rows + start)  # what is none comes last
        score, row = best_of(k, np.concatenate([score, scores], axis=1), np.concatenate([row, rows], axis=1))
        start += len(texts)
    return score, np.where(row == size, -1, row)
