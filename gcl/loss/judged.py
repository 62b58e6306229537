"""Soft targets from every judgment known for a batch, as a sparse matrix beside the dense similarities.

A_ij says how good pair j's document is for pair i's query; where nobody has judged that, it is 0. A target is linear in
the similarity: it adds -t_ij s_ij to the loss and -t_ij to its gradient, whatever the form. So the blocks of the dense
pass are computed as if nothing was judged, and at the few judged entries of a block t_ij is subtracted:

1. judgments are kept once per (query, document), by query (CSR), as they were looked up;
2. for the rows of a block they become entries (i, j): a query or document that the batch has m times has m of them;
3. t_ij = row_i r_ij + column_j c_ij. In the softmax form r_ij = A_ij / sum_k A_ik and c_ij = A_ij / sum_k A_kj, each
   pair's share of its query's or document's targets; in the sigmoid form A_ij is a probability, and both are A_ij.

Time and memory are those of the judged entries of one row of blocks, beside those of the dense pass.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from gcl.data.batches.lookups import KnownScores
from gcl.loss.targets import Relations, Weights


class Scale(Enum):
    """What becomes of values: shares of their row's and column's sum, the same of their exponentials, or nothing."""

    share = "share"
    softmax = "softmax"
    none = "none"


class Entries(NamedTuple):
    """Judged entries of some rows, off the diagonal, by column: row[E] counted from the first of the rows, column[E],
    and t[E], what they take from the gradient at the similarity."""

    row: Tensor
    column: Tensor
    share: Tensor

    def within(self, columns: slice) -> Entries:
        """Those of a block's columns, counted from the first of them."""
        ends = self.column.new_tensor([columns.start, columns.stop])
        first, last = torch.searchsorted(self.column, ends).tolist()
        return Entries(self.row[first:last], self.column[first:last] - columns.start, self.share[first:last])

    def take(self, block: Tensor) -> Tensor:
        """The sum over entries of t_ij times the block's number [R, C], a scalar."""
        return (self.share * block[self.row, self.column]).sum()

    def subtract(self, block: Tensor, factor: float) -> None:
        """factor * t_ij from the block[R, C], in place; every entry comes once."""
        block[self.row, self.column] = block[self.row, self.column] - factor * self.share


class Targets(NamedTuple):
    """The judgments of a term's pairs, in the groups of its Relations: k belongs to query group query[k] (ascending,
    that of g from start[g] on) and to document group document[k], and counts by_row[k] in rows and by_column[k] in
    columns. The pairs of document group m are those that `pairs` lists from first[m] on."""

    query: Tensor
    document: Tensor
    by_row: Tensor
    by_column: Tensor
    start: Tensor
    pairs: Tensor
    first: Tensor

    def entries(self, rows: slice, relations: Relations, weights: Weights) -> Entries:
        """Of these rows, the judged entries off the diagonal."""
        row, column, k = self._expand(relations.query[rows].long())
        order = torch.argsort(column, stable=True)
        order = order[row[order] + rows.start != column[order]]
        row, column, k = row[order], column[order], k[order]
        share = weights.row[row + rows.start] * self.by_row[k] + weights.column[column] * self.by_column[k]
        return Entries(row, column, share)

    def diagonal(self, relations: Relations, weights: Weights) -> Tensor:
        """t_ii [n]."""
        if not len(self.query):
            return torch.zeros_like(weights.row)
        size = len(self.first)
        pair, judged = relations.query.long() * size + relations.document, self.query * size + self.document
        k, known = places(pair, judged)
        return known * (weights.row * self.by_row[k] + weights.column * self.by_column[k])

    def dense(self, relations: Relations) -> tuple[Tensor, Tensor]:
        """r [n, n] and c [n, n]."""
        row, column, k = self._expand(relations.query.long())
        blank = self.by_row.new_zeros(len(relations.query), len(relations.query))
        return blank.index_put((row, column), self.by_row[k]), blank.index_put((row, column), self.by_column[k])

    def lists(self, relations: Relations) -> tuple[Tensor, Tensor]:
        """Which pairs' rows and columns have at least two judgments, as a list has that says what is better. bool[n]"""
        of_query, of_document = (torch.bincount(x, minlength=len(relations.query)) for x in (self.query, self.document))
        return of_query[relations.query.long()] > 1, of_document[relations.document.long()] > 1

    def _expand(self, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """group[R]: of each row its query group -> row[E], column[E] and judgment[E] of all entries."""
        k, row = _ranges(self.start[group], self.start[group + 1])
        document = self.document[k]
        place, entry = _ranges(self.first[document], self.first[document + 1])
        return row[entry], self.pairs[place], k[entry]


def of_pairs(query_id: Tensor, document_id: Tensor, score: Tensor) -> KnownScores:
    """What pairs say themselves; of a repeated one the highest score."""
    pairs, place = torch.stack([query_id, document_id], 1).unique(dim=0, return_inverse=True)
    best = score.new_full((len(pairs),), -torch.inf).scatter_reduce(0, place, score, "amax")
    query, document = pairs.T.contiguous()
    return KnownScores(query, document, best)


def spread(
    judged: KnownScores, value: Tensor, *, query_id: Tensor, document_id: Tensor, relations: Relations, scale: Scale
) -> Targets:
    """value[K]: A of each judgment, or with `Scale.softmax` its logarithm; query_id[n], document_id[n]: of the term's
    pairs."""
    queries, documents = query_id.unique(), document_id.unique()  # in the order of the groups of `relations`
    q, known = places(judged.query, queries)
    d, also = places(judged.document, documents)
    known &= also
    q, d, value = q[known], d[known], value[known]
    order = torch.argsort(q * max(len(documents), 1) + d)
    q, d, value = q[order], d[order], value[order]
    start = torch.searchsorted(q, torch.arange(len(queries) + 1, device=q.device))
    document = relations.document.long()
    of_query = torch.bincount(relations.query, minlength=len(queries))
    of_document = torch.bincount(document, minlength=len(documents))
    first = torch.nn.functional.pad(of_document.cumsum(0), (1, 0))
    by_row = _scaled(value, q, of_document[d], len(queries), scale)
    by_column = _scaled(value, d, of_query[q], len(documents), scale)
    return Targets(q, d, by_row, by_column, start, torch.argsort(document, stable=True), first)


def _scaled(value: Tensor, group: Tensor, copies: Tensor, size: int, scale: Scale) -> Tensor:
    """value[K], each `copies` times, divided by its group's sum; 0 where all of a group are 0."""
    if scale is Scale.none:
        return value
    if scale is Scale.softmax:
        value = (value - value.new_full((size,), -torch.inf).scatter_reduce(0, group, value, "amax")[group]).exp()
    total = value.new_zeros(size).index_add(0, group, value * copies)
    return value / total.masked_fill(total == 0, 1.0)[group]


def places(identifier: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Where each identifier lies among sorted ones that are all different, and whether it does."""
    if not len(among):
        return torch.zeros_like(identifier), torch.zeros_like(identifier, dtype=torch.bool)
    place = torch.searchsorted(among, identifier.contiguous()).clamp_max(len(among) - 1)
    return place, among[place] == identifier


def _ranges(start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
    """start[R], stop[R] -> the numbers of all ranges one after another, and the range that each belongs to.

    >>> _ranges(torch.tensor([5, 0, 2]), torch.tensor([7, 0, 3]))
    (tensor([5, 6, 2]), tensor([0, 0, 2]))
    """
    count = stop - start
    owner = torch.repeat_interleave(torch.arange(len(count), device=start.device), count)
    number = torch.arange(len(owner), device=start.device)
    return number + (start - (count.cumsum(0) - count))[owner], owner
