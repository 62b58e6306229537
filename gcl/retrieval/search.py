"""Exact nearest documents in the total order: score descending, document id ascending (see `order`).

A float32 matrix product, a block of documents at a time, finds the candidates (see `candidates`); their scores are then
computed exactly (see `exact`). So neither the block size, the number of ranks or threads nor the matrix library changes
a bit of the result. Documents are the outer loop: each is read once, from memory or from a memory-mapped file.
"""

from __future__ import annotations

import math

import numpy as np

from gcl.retrieval.candidates import TOGETHER, Candidates, capacity
from gcl.retrieval.exact import UNIT32, exact_scores
from gcl.retrieval.order import pack, unpack
from gcl.retrieval.ranks import agree, gather_objects, rank_and_world, share


def search(
    query: np.ndarray,
    corpus: np.ndarray,
    k: int,
    *,
    rank: np.ndarray,
    block: int = 2048,
    memory: int = 512 << 20,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best documents of each query: score[Q, K] float32 and row[Q, K] int64, K = min(k, M).

    query[Q, D], corpus[M, D]: float32 (a memory map will do); rank[M]: `order.id_ranks` of the documents.
    block: documents a tile. memory: bytes for candidates; queries that do not fit take another pass over the corpus.
    Under torch.distributed every rank calls with the same arguments, searches its share of the documents and returns
    the whole result.

    Raises ValueError for shapes that do not fit and for vectors that are not finite.
    """
    query = np.ascontiguousarray(query, dtype=np.float32)
    _check(query, corpus, k, rank, block)
    this, world = rank_and_world()
    mine = share(len(corpus), this, world)
    rank = np.asarray(rank, dtype=np.int32)
    k = min(k, len(corpus))
    most = max(1, memory // (8 * capacity(k, block)))
    keys, error = np.empty((len(query), min(k, len(mine))), dtype=np.int64), None
    try:
        for first in range(0, len(query), most):
            some = slice(first, first + most)
            keys[some] = _search_share(query[some], corpus, mine, keys.shape[1], rank, block)
    except Exception as caught:
        error = caught
    agree(error)
    if world > 1:
        keys = np.sort(np.concatenate(gather_objects(keys), axis=1), axis=1)[:, :k]
    row_of_rank = np.empty(len(rank), dtype=np.int64)
    row_of_rank[rank] = np.arange(len(rank))
    score, place = unpack(keys)
    return score, row_of_rank[place]


def _search_share(query, corpus, mine: range, k: int, rank, block: int) -> np.ndarray:
    """Packed (score, id rank) of the k best documents among rows `mine`, best first: int64[Q, k]."""
    if k == 0 or not len(query):
        return np.empty((len(query), k), dtype=np.int64)
    width = query.shape[1]
    query_norm = np.sqrt(np.einsum("qd,qd->q", query, query, dtype=np.float64))
    # Any order of summation, with or without fused multiply-add, is within D * u (Higham 2002, section 3.1); 4 u more
    # keep documents apart that tie only after rounding.
    unit_margin = (1.01 * width + 4) * UNIT32 * query_norm
    norm = 0.0

    def settle(q: int, rows: np.ndarray) -> np.ndarray:
        score = exact_scores(query[q : q + 1], corpus, np.array([0, len(rows)]), rows, norm)
        return np.argpartition(pack(score, rank[rows]), k - 1)[:k]

    found = Candidates(len(query), k, block, settle)
    tile = np.empty(min(TOGETHER, len(query)) * block, dtype=np.float32)
    for start in range(mine.start, mine.stop, block):
        documents = np.asarray(corpus[start : min(start + block, mine.stop)], dtype=np.float32)
        squared = np.einsum("md,md->m", documents, documents)
        longest = 1.001 * math.sqrt(squared.max()) + 1e-18
        if not longest * query_norm.max() < 1e37:  # also when it is NaN
            worst = int(np.nan_to_num(squared, nan=np.inf).argmax())
            raise ValueError(
                f"Document row {start + worst} is not finite or too long: its squared length is {squared[worst]}."
            )
        norm = max(norm, longest)
        for first in range(0, len(query), TOGETHER):
            some = slice(first, first + TOGETHER)
            left = query[some]
            score = tile[: len(left) * len(documents)].reshape(len(left), len(documents))
            np.matmul(left, documents.T, out=score)
            found.offer(first, score, start, norm * unit_margin[some] + 1e-37)
    return _ranked(found, query, corpus, k, rank, norm, norm * unit_margin + 1e-37)


def _ranked(found: Candidates, query, corpus, k: int, rank, norm: float, margin) -> np.ndarray:
    """Scores all candidates exactly and keeps the k best of each query, packed."""
    start, rough, row = found.finish(margin)
    score = exact_scores(query, corpus, start, row, norm)
    count = np.diff(start)
    if (np.abs(score - rough) > np.repeat(margin, count)).any():
        raise RuntimeError(
            "numpy's matrix product is less precise here than float32 promises, so the search cannot be exact: its "
            "library must not compute in fewer bits."
        )
    keys = np.full((len(query), int(count.max())), np.iinfo(np.int64).max)
    keys[np.arange(keys.shape[1]) < count[:, None]] = pack(score, rank[row])
    return np.sort(keys, axis=1)[:, :k]


def _check(query: np.ndarray, corpus: np.ndarray, k: int, rank: np.ndarray, block: int) -> None:
    if query.ndim != 2 or corpus.ndim != 2 or query.shape[1] != corpus.shape[1]:
        raise ValueError(
            f"search takes query[Q, D] and corpus[M, D]; given {list(query.shape)} and {list(corpus.shape)}."
        )
    if len(rank) != len(corpus):
        raise ValueError(f"{len(rank)} id ranks for {len(corpus)} documents: give order.id_ranks of the corpus's ids.")
    if k < 1 or block < 1:
        raise ValueError(f"k = {k} and block = {block} must be at least 1.")
    if not np.isfinite(query).all():
        bad = int(np.flatnonzero(~np.isfinite(query).all(axis=1))[0])
        raise ValueError(f"Query row {bad} is not finite: a vector with NaN or infinity has no nearest documents.")
