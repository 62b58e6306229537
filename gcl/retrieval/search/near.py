"""Nearly equal documents, as a collapsed model makes them: their float32 products differ by less than their error.

1. `groups` looks in a sample for documents that many others lie close to, and takes those others from the rest.
2. q . d = q . c + q . (d - c), whatever the vector c; with c one of the group, d - c is short, and so is the error of
   its product with q: many thousand times less than the step from one float32 score to the next. So all but about one
   score in a thousand are known to the bit (float32 rounds twice where the sum of both parts lies between two of its
   numbers), and `exact_scores` finds the others.
3. A document that ties with the k-th best so far is looked at only if its id comes first. Otherwise all of a group
   whose scores are the same float32 would be sorted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gcl.retrieval.search.exact import UNIT32, UNIT64, exact_scores, just_below, raise_imprecise
from gcl.retrieval.search.ties import pack, unpack

_SAMPLE, _OFTEN = 64, 4  # documents looked at for near ones, and how many of them make a group
_NEAR = 2.0**-7  # distance from the group's first document, as a share of its length
_BLOCK, _TOGETHER, _FIRST = 2048, 1024, 128  # documents and queries per product; documents of the first product
_FEWEST = 512  # documents of a group: fewer are quick anyway
_LAST = np.iinfo(np.int64).max  # sorts behind every key


def groups(corpus: np.ndarray, rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Groups of rows whose documents are nearly equal, each beginning with the one they lie around; and the rest."""
    found: list[np.ndarray] = []
    if len(rows) < _FEWEST:
        return found, rows
    sample = np.sort(np.random.default_rng(0).choice(rows, _SAMPLE, replace=False))
    while len(sample) >= _OFTEN:
        close = _close(corpus, sample, corpus[sample[0]])
        if close.sum() >= _OFTEN:
            near = _close(corpus, rows, corpus[sample[0]])
            if near.sum() >= _FEWEST:
                found.append(np.concatenate([sample[:1], rows[near & (rows != sample[0])]]))
                rows = rows[~near]
        close[0] = True
        sample = sample[~close]
    return found, rows


def _close(corpus: np.ndarray, rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Which rows lie close to the centre[D]; none where that cannot be told (numbers too large, or none)."""
    centre = np.asarray(centre, dtype=np.float32)
    out = np.zeros(len(rows), dtype=bool)
    with np.errstate(over="ignore", invalid="ignore"):
        most = np.float32(_NEAR**2) * np.einsum("d,d->", centre, centre)
        if 1e-30 < most < 1e30:
            for start in range(0, len(rows), _BLOCK):
                apart = np.asarray(corpus[rows[start : start + _BLOCK]], dtype=np.float32) - centre
                out[start : start + _BLOCK] = np.einsum("md,md->m", apart, apart) <= most
    return out


def nearest_of(query: np.ndarray, corpus: np.ndarray, rows: np.ndarray, k: int, rank: np.ndarray) -> np.ndarray:
    """Packed (score, id rank) of the k best of a group's rows, best first: int64 [Q, k], filled up with the last key.

    query[Q, D] float32, corpus[M, D], rank[M].
    """
    centre = np.asarray(corpus[rows[0]], dtype=np.float32)
    keys = np.full((len(query), k), _LAST)
    for first in range(0, len(query), _TOGETHER):
        some = slice(first, first + _TOGETHER)
        keys[some] = _Group(query[some], centre, corpus, rank).best(rows, k)
    return keys


class _Group:
    """The search of at most _TOGETHER queries among documents near the centre[D]."""

    def __init__(self, query: np.ndarray, centre: np.ndarray, corpus: np.ndarray, rank: np.ndarray) -> None:
        self.query, self.centre, self.corpus, self.rank = query, centre, corpus, rank
        width = query.shape[1]
        wide, length = query.astype(np.float64), np.sqrt(np.einsum("d,d->", centre, centre, dtype=np.float64))
        self.query_length = np.sqrt(np.einsum("qd,qd->q", wide, wide))
        self.base = wide @ centre.astype(np.float64)  # q . c
        self.norm = float(length * (1 + 2 * _NEAR))  # of any document of the group
        self.unit_error = (1.01 * width + 6) * UNIT32 * self.query_length  # of q . (d - c), the subtraction included
        self.base_error = 1.01 * (width + 8) * UNIT64 * self.query_length * self.norm + 1e-35  # and of the sum
        self._tile = np.empty(len(query) * _BLOCK, dtype=np.float32)
        self._masks = np.empty((2, len(query) * _BLOCK), dtype=bool)

    def best(self, rows: np.ndarray, k: int) -> np.ndarray:
        keys = np.full((len(self.query), k), _LAST)
        for some in _blocks(rows, max(_FIRST, k)):
            apart = np.asarray(self.corpus[some], dtype=np.float32) - self.centre
            longest = 1.001 * math.sqrt(np.einsum("md,md->m", apart, apart).max()) + 1e-18
            error = longest * self.unit_error + self.base_error
            product = self._tile[: len(self.query) * len(some)].reshape(len(self.query), len(some))
            np.matmul(self.query, apart.T, out=product)
            owner, place = self._promising(product, error, keys, some)
            if len(owner):
                total = self.base[owner] + product[owner, place]
                keys = _merged(keys, owner, self._keys(owner, some[place], total, error[owner]))
        self._check(keys)
        return keys

    def _promising(
        self, product: np.ndarray, error: np.ndarray, keys: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """query[n] ascending and place[n] in the block of what may come before the k-th best so far."""
        worst, last = unpack(keys[:, -1])
        full = keys[:, -1] != _LAST
        worst = worst.astype(np.float64)
        # A sum above the middle between two float32 numbers becomes the upper one.
        above, below = (
            np.where(full, (worst + np.nextafter(worst.astype(np.float32), np.float32(to))) / 2 - error, -np.inf)
            for to in (np.inf, -np.inf)
        )
        better, tied = (self._masks[n][: product.size].reshape(product.shape) for n in range(2))
        np.greater_equal(product, just_below(below - self.base)[:, None], out=tied)
        np.logical_and(
            tied, self.rank[rows] < np.where(full, last, np.iinfo(np.int32).max).astype(np.int32)[:, None], out=tied
        )
        np.greater_equal(product, just_below(above - self.base)[:, None], out=better)
        passed = np.flatnonzero(np.logical_or(better, tied, out=better))
        return passed // len(rows), passed % len(rows)

    def _keys(self, owner: np.ndarray, rows: np.ndarray, total: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Exact keys [n] of pairs whose scores are total[n], each off by at most its error."""
        score, high = (total - error).astype(np.float32), (total + error).astype(np.float32)
        unsure = np.flatnonzero(score != high)
        if len(unsure):
            start = np.searchsorted(owner[unsure], np.arange(len(self.query) + 1))
            score[unsure] = exact_scores(self.query, self.corpus, start, rows[unsure], self.norm)
        return pack(score, self.rank[rows])

    def _check(self, keys: np.ndarray) -> None:
        """Raises if a result is not what the exact sum says: then the product was less precise than its bound."""
        score, place = unpack(keys)
        row_of_rank = np.empty(len(self.rank), dtype=np.int64)
        row_of_rank[self.rank] = np.arange(len(self.rank))
        held = keys != _LAST
        start = np.concatenate([[0], np.cumsum(held.sum(axis=1))])
        if (exact_scores(self.query, self.corpus, start, row_of_rank[place[held]], self.norm) != score[held]).any():
            raise_imprecise()


def _blocks(rows: np.ndarray, first: int) -> Iterator[np.ndarray]:
    """Few documents first, twice as many each time: most of what comes later is ruled out at once."""
    start, size = 0, min(first, _BLOCK)
    while start < len(rows):
        yield rows[start : start + size]
        start, size = start + size, min(2 * size, _BLOCK)


def _merged(keys: np.ndarray, owner: np.ndarray, new: np.ndarray) -> np.ndarray:
    """keys[Q, k] with the new ones [n] of queries owner[n] (ascending), the best k of each, sorted."""
    count = np.bincount(owner, minlength=len(keys))
    column = np.arange(len(owner)) - (np.cumsum(count) - count)[owner]
    both = np.full((len(keys), keys.shape[1] + int(count.max())), _LAST)
    both[:, : keys.shape[1]] = keys
    both[owner, keys.shape[1] + column] = new
    changed = count > 0
    both[changed] = np.sort(both[changed], axis=1)
    return np.ascontiguousarray(both[:, : keys.shape[1]])
