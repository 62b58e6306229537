"""Exact nearest documents in the total order: score descending, document id ascending (see `ties`).

1. Documents are the outer loop: each block of the corpus is read once, from memory or from a memory-mapped file. Where
   many documents are equal (see `copies`), only those that can be among the k best; where many are nearly equal (see
   `near`), those are searched by themselves.
2. A matrix product of the queries with the block gives rough scores and a bound on their error: in 8-bit integers
   where that is faster (see `int8`), else in float32.
3. `Candidates` keeps, for each query, every document that the bound does not rule out of the k best (see
   `candidates`).
4. `exact.exact_scores` computes the candidates' scores exactly, and the k best are sorted by (score, document id).
5. Under torch.distributed each rank searches its share of the documents, and the shares' results are merged.

So neither the block size, the number of ranks or threads, the integers nor the matrix library changes a bit of the
result.

The score of a pair is the exact dot product of two float32 vectors, rounded to float64 and then to float32. A matrix
product's last bits depend on the block's shape, the pair's place in it, the number of threads and the library; this
score depends on the two vectors alone: equal documents tie, and results compare bit for bit anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from gcl.distributed.ranks import agree, gather_objects, own_rows
from gcl.files.progress import counted
from gcl.retrieval.search.candidates import TOGETHER, Candidates, TooCoarse, capacity
from gcl.retrieval.search.copies import few_of_each
from gcl.retrieval.search.exact import ROWS, UNIT32, NotFinite, exact_scores, raise_imprecise
from gcl.retrieval.search.int8 import Inexact, Int8Scan, exact, usable
from gcl.retrieval.search.near import groups, nearest_of
from gcl.retrieval.search.ties import pack, unpack

_BLOCK = 2048  # documents per matrix product
# The integers pay where their grid serves many queries and few documents are in doubt; measured, see tests/bench.
_FEWEST_QUERIES, _FEWEST_DOCUMENTS, _MOST_RESULTS, _LEAST_WIDTH = 256, 16 * _BLOCK, 200, 64


def search(
    query: np.ndarray,
    corpus: np.ndarray,
    k: int,
    *,
    rank: np.ndarray,
    held: range | None = None,
    block: int = _BLOCK,
    memory: int = 512 << 20,
    int8: bool | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best documents of each query: score[Q, K] float32 and row[Q, K] int64, K = min(k, M).

    query[Q, D], corpus[M, D]: float32 (a memory map will do); rank[M]: `ties.id_ranks` of the documents.
    block: documents per matrix product. memory: bytes for candidates; queries that do not fit take another pass over
    the corpus.
    int8: whether candidates are found in 8-bit integers, where their sums are exact; None: where that is faster, too.
    The result is the same.
    Under torch.distributed every rank calls with the same arguments, searches its share of the documents and returns
    the whole result.
    held: the rows of the whole corpus that `corpus` has on this rank, where each rank has its own part of them alone.

    Raises ValueError for shapes that do not fit, and NotFinite for vectors that are not or are too long.
    """
    query = np.ascontiguousarray(query, dtype=np.float32)
    rank = np.asarray(rank, dtype=np.int32)
    own, order = (rank, None) if held is None else _among_own(rank[held.start : held.stop])
    _check(query, corpus, k, own, block)
    mine = own_rows(len(corpus)) if held is None else range(len(corpus))
    k = min(k, len(rank))
    if int8 is None:
        int8 = _pays(len(query), len(mine), query.shape[1], k) and usable()
    int8 = int8 and exact()
    most = max(1, memory // (8 * capacity(k, block, _room(k) if int8 else 0)))
    keys, error = np.empty((len(query), min(k, len(mine))), dtype=np.int64), None
    try:
        for first in range(0, len(query), most):
            some = slice(first, first + most)
            keys[some] = _search_share(query[some], corpus, mine, keys.shape[1], own, block, int8)
    except Exception as caught:
        error = caught
    agree(error)
    if order is not None:
        score, place = unpack(keys)
        keys = pack(score, order[place])
    if len(shares := gather_objects(keys)) > 1:
        keys = np.sort(np.concatenate(shares, axis=1), axis=1)[:, :k]
    row_of_rank = np.empty(len(rank), dtype=np.int64)
    row_of_rank[rank] = np.arange(len(rank))
    score, place = unpack(keys)
    return score, row_of_rank[place]


def _among_own(rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranks of some documents among these alone, and the ranks that they have among all: rank == order[own]."""
    order = np.sort(rank)
    return np.searchsorted(order, rank).astype(np.int32), order


def _pays(queries: int, documents: int, width: int, k: int) -> bool:
    return (
        queries >= _FEWEST_QUERIES and documents >= _FEWEST_DOCUMENTS and width >= _LEAST_WIDTH and k <= _MOST_RESULTS
    )


def _room(k: int) -> int:
    """For documents that 8 bits cannot tell from the k best."""
    return 2048 + 4 * k


def _search_share(
    query: np.ndarray, corpus: np.ndarray, mine: range, k: int, rank: np.ndarray, block: int, int8: bool
) -> np.ndarray:
    """Packed (score, id rank) of the k best documents among rows `mine`, best first: int64[Q, k]."""
    if k == 0 or not len(query):
        return np.empty((len(query), k), dtype=np.int64)
    rows = few_of_each(corpus, mine, k, rank)
    keys = np.empty((len(query), k), dtype=np.int64)
    some = query.any(axis=1)
    if some.any():
        keys[some] = _best(query if some.all() else query[some], corpus, rows, k, rank, block, int8)
    else:
        _Share(query, corpus, rows, k, rank, block).check()
    if not some.all():  # every score of a query of zeros is 0, and the ids alone decide
        keys[~some] = pack(np.zeros(k, np.float32), np.sort(np.partition(rank[mine.start : mine.stop], k - 1)[:k]))
    return keys


def _best(
    query: np.ndarray, corpus: np.ndarray, rows: np.ndarray, k: int, rank: np.ndarray, block: int, int8: bool
) -> np.ndarray:
    near, rest = groups(corpus, rows)
    found = [nearest_of(query, corpus, group, min(k, len(group)), rank) for group in near]
    if len(rest):
        found.append(_nearest(query, corpus, rest, min(k, len(rest)), rank, block, int8))
    return found[0] if len(found) == 1 else np.sort(np.concatenate(found, axis=1), axis=1)[:, :k]


def _nearest(
    query: np.ndarray, corpus: np.ndarray, rows: np.ndarray, k: int, rank: np.ndarray, block: int, int8: bool
) -> np.ndarray:
    if int8:
        try:
            return _Share(query, corpus, rows, k, rank, block).by_int8()
        except (TooCoarse, Inexact):  # many near duplicates, for example: float32 tells them apart
            pass
    return _Share(query, corpus, rows, k, rank, block).by_float32()


class _Share:
    """One pass over some rows of the corpus, steps 1 to 4. norm: the longest document seen so far."""

    def __init__(self, query: np.ndarray, corpus: np.ndarray, rows: np.ndarray, k: int, rank: np.ndarray, block: int):
        self.query, self.corpus, self.rows, self.k, self.rank, self.block = query, corpus, rows, k, rank, block
        self.query_norm = np.sqrt(np.einsum("qd,qd->q", query, query, dtype=np.float64))
        # Any order of summation, with or without fused multiply-add, is within D * u (Higham 2002, section 3.1); 4 u
        # more keep documents apart that tie only after rounding.
        self.unit_margin = (1.01 * query.shape[1] + 4) * UNIT32 * self.query_norm
        self.norm = 0.0
        self._taken = np.empty((ROWS, query.shape[1]), dtype=np.float32)

    def by_float32(self) -> np.ndarray:
        query = self.query
        candidates = Candidates(len(query), self.k, self.block, self._settle)
        tile = np.empty(min(TOGETHER, len(query)) * self.block, dtype=np.float32)
        for rows, documents in self._blocks():
            margin = self._margin()
            for first in range(0, len(query), TOGETHER):
                some = slice(first, first + TOGETHER)
                left = query[some]
                score = tile[: len(left) * len(documents)].reshape(len(left), len(documents))
                np.matmul(left, documents.T, out=score)
                candidates.offer(first, score, rows, margin[some])
        return self._ranked(*candidates.finish())

    def by_int8(self) -> np.ndarray:
        """Raises TooCoarse where 8 bits leave too many documents in doubt."""
        query = self.query
        scan = Int8Scan(query, self._read(self.rows[: self.block]))
        candidates = Candidates(
            len(query), self.k, self.block, self._settle, room=_room(self.k), patience=len(query),
            floor=lambda first, rows: self._least(first, rows, scan.centre),
        )  # fmt: skip
        tile = torch.empty(min(TOGETHER, len(query)) * self.block, dtype=torch.int32)
        for rows, documents in self._blocks():
            small, step, rest, longest = scan.small(documents)
            for first in range(0, len(query), TOGETHER):
                some = slice(first, first + TOGETHER)
                score = scan.scores(some, small, tile)
                candidates.offer(first, score, rows, scan.margin(some, rest, longest), scale=scan.scale[some] * step)
        ends, _, row = candidates.finish()
        return self._ranked(*self._told_apart(ends, row))

    def check(self) -> None:
        """Raises what a pass over the documents would."""
        for _ in self._blocks():
            pass

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(row[B] int32, documents[B, D] float32), checked."""
        starts = range(0, len(self.rows), self.block)
        blocks = counted(
            starts, "Searching", total=len(self.rows), unit="product",
            size=lambda start: min(self.block, len(self.rows) - start),
        )  # fmt: skip
        for start in blocks:
            rows = self.rows[start : start + self.block]
            documents = self._read(rows)
            squared = np.einsum("md,md->m", documents, documents)
            longest = 1.001 * math.sqrt(squared.max()) + 1e-18
            if not longest * self.query_norm.max() < 1e37:  # also when it is NaN
                worst = int(np.nan_to_num(squared, nan=np.inf).argmax())
                raise NotFinite(
                    f"Document row {rows[worst]} is not finite, or too long (its squared length is {squared[worst]})."
                )
            self.norm = max(self.norm, longest)
            yield rows, documents

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """documents[B, D] float32; rows that follow each other are not copied."""
        first, last = int(rows[0]), int(rows[-1])
        whole = last - first + 1 == len(rows)
        return np.ascontiguousarray(self.corpus[first : last + 1] if whole else self.corpus[rows], dtype=np.float32)

    def _margin(self) -> np.ndarray:
        """[Q]: how far a float32 product can be off, for what has been seen."""
        return self.norm * self.unit_margin + 1e-37

    def _settle(self, q: int, rows: np.ndarray) -> np.ndarray:
        score = exact_scores(self.query[q : q + 1], self.corpus, np.array([0, len(rows)]), rows, self.norm)
        return np.argpartition(pack(score, self.rank[rows]), self.k - 1)[: self.k]

    def _least(self, first: int, rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """[q]: no more than the least q . (d - centre) of each query's rows[q, k]."""
        some = slice(first, first + len(rows))
        query = self.query[some]
        least = np.array([self._products(q, own).min() for q, own in zip(query, rows, strict=True)], dtype=np.float64)
        return least - query.astype(np.float64) @ centre.astype(np.float64) - self._margin()[some]

    def _products(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if self.corpus.dtype != np.float32:
            return np.asarray(self.corpus[rows], dtype=np.float32) @ query
        score = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), len(self._taken)):
            some = rows[start : start + len(self._taken)]
            taken = np.take(self.corpus, some, axis=0, out=self._taken[: len(some)], mode="clip")
            np.dot(taken, query, out=score[start : start + len(some)])
        return score

    def _told_apart(self, start: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """start, float32 score and row of those candidates that can be among the k best by their float32 scores."""
        margin = self._margin()
        scores, rows = [], []
        for q, query in enumerate(self.query):
            own = row[start[q] : start[q + 1]]
            score = self._products(query, own)
            kth = np.partition(score, len(score) - self.k)[len(score) - self.k]
            kept = np.flatnonzero(score >= kth - 2 * margin[q])
            scores.append(score[kept])
            rows.append(own[kept])
        ends = np.cumsum([0, *map(len, rows)])
        return ends, np.concatenate(scores), np.concatenate(rows)

    def _ranked(self, start: np.ndarray, rough: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Scores all candidates exactly and keeps the k best of each query, packed."""
        score = exact_scores(self.query, self.corpus, start, row, self.norm)
        count = np.diff(start)
        if (np.abs(score - rough) > np.repeat(self._margin(), count)).any():
            raise_imprecise()
        keys = np.full((len(self.query), int(count.max())), np.iinfo(np.int64).max)
        keys[np.arange(keys.shape[1]) < count[:, None]] = pack(score, self.rank[row])
        return np.sort(keys, axis=1)[:, : self.k]


def _check(query: np.ndarray, corpus: np.ndarray, k: int, rank: np.ndarray, block: int) -> None:
    if query.ndim != 2 or corpus.ndim != 2 or query.shape[1] != corpus.shape[1]:
        raise ValueError(
            f"search takes query[Q, D] and corpus[M, D]; given {list(query.shape)} and {list(corpus.shape)}."
        )
    if len(rank) != len(corpus):
        raise ValueError(f"{len(rank)} id ranks for {len(corpus)} documents: give ties.id_ranks of the corpus's ids.")
    if k < 1 or block < 1:
        raise ValueError(f"k = {k} and block = {block} must be at least 1.")
    if not np.isfinite(query).all():
        bad = int(np.flatnonzero(~np.isfinite(query).all(axis=1))[0])
        raise NotFinite(f"Query row {bad} is not finite: a vector with NaN or infinity has no nearest documents.")
