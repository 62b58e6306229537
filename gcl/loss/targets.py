"""Which entries of the N x N similarities are targets, negatives or nothing, where queries and documents repeat.

Entry (i, j) compares the query of pair i with the document of pair j. Off the diagonal, where the two pairs share

- the query, j's document is another judged document of i's query: the rule `same_query` decides;
- the document, i's query is another query judged for j's document: the rule `same_document` decides;
- both, it is the same pair again: a target where either rule is "positive", otherwise left out, never a negative.

"ignore" leaves the entry out of every sum and "negative" treats it as any other. "positive" makes it a target, as good
as that (query, document) was judged: A_ij = w_j for a shared query, w_i for a shared document alone, and A_ii = w_i.
The softmax targets of row i are A_ij / sum_k A_ik, those of column j A_ij / sum_k A_kj: one-hot where nothing repeats.

Rows of one query are copies of each other, so the soft targets of its rows add up to each of its documents being the
one target in turn: along rows "positive" is "negative" under another name. It differs along columns, where "negative"
pushes a document away from copies of its own query.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gcl.loss.settings import Repeat


class Weights(NamedTuple):
    """What each pair counts as a row, as a column and as a target; divided by the normalizer already. Each [N]."""

    row: Tensor
    column: Tensor
    target: Tensor


class Relations(NamedTuple):
    """Pairs that share a query or a document. query[N], document[N], pair[N]: int32 group numbers."""

    query: Tensor
    document: Tensor
    pair: Tensor
    same_query: Repeat
    same_document: Repeat
    repeats: bool

    def ignored(self, rows: slice, columns: slice) -> Tensor | None:
        """bool[R, C]: entries that are left out; None if none are. The diagonal, always a target, is the caller's."""
        rules = (self.same_query, self.same_document)
        if not self.repeats or ("positive" in rules and "ignore" not in rules):
            return None
        same_query, same_document = self._same(rows, columns)
        if rules == ("ignore", "ignore"):
            return same_query.logical_or_(same_document)
        if rules == ("negative", "negative"):
            return same_query.logical_and_(same_document)
        if self.same_query == "ignore":
            return same_query.logical_and_(~same_document) if self.same_document == "positive" else same_query
        return same_document.logical_and_(~same_query) if self.same_query == "positive" else same_document

    def positive(self, rows: slice, columns: slice) -> tuple[Tensor | None, Tensor | None]:
        """Two bool[R, C], or None: targets with the weight of their column's pair, and those with their row's."""
        by_column, by_row = self.same_query == "positive", self.same_document == "positive"
        if not self.repeats or not (by_column or by_row):
            return None, None
        same_query, same_document = self._same(rows, columns)
        if by_column and by_row:
            return same_query, same_document.logical_and_(~same_query)
        return (same_query, None) if by_column else (None, same_document)

    def _same(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        return self.query[rows, None] == self.query[columns], self.document[rows, None] == self.document[columns]


def relate(query_id: Tensor, document_id: Tensor, same_query: Repeat | str, same_document: Repeat | str) -> Relations:
    """query_id[N], document_id[N], integers -> Relations.

    >>> relations = relate(torch.tensor([7, 7, 9]), torch.tensor([1, 2, 1]), "ignore", "positive")
    >>> relations.ignored(slice(0, 3), slice(0, 3)).int()
    tensor([[0, 1, 0],
            [1, 0, 0],
            [0, 0, 0]], dtype=torch.int32)
    """
    query, document = _groups(query_id), _groups(document_id)
    pair = _groups(query * (len(query) + 1) + document)
    repeats = bool((query.max() + 1 < len(query)) | (document.max() + 1 < len(document))) if len(query) else False
    return Relations(query.int(), document.int(), pair.int(), Repeat(same_query), Repeat(same_document), repeats)


def count_ignored(relations: Relations) -> int:
    """How many of the N * N entries the rules leave out."""
    if not relations.repeats:
        return 0
    query, document, pair = (_ordered_pairs(group) for group in (relations.query, relations.document, relations.pair))
    rules = (relations.same_query, relations.same_document)
    ignored = (query - pair) * (rules[0] == "ignore") + (document - pair) * (rules[1] == "ignore")
    return ignored + pair * ("positive" not in rules)


def target_matrix(relations: Relations, weight: Tensor) -> Tensor:
    """weight[N] -> A[N, N], the judged weights; 0 where an entry is no target.

    >>> relations = relate(torch.tensor([7, 7, 9]), torch.tensor([1, 2, 1]), "positive", "ignore")
    >>> target_matrix(relations, torch.tensor([1.0, 0.5, 0.2]))
    tensor([[1.0000, 0.5000, 0.0000],
            [1.0000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.2000]])
    """
    everything = slice(None)
    by_column, by_row = relations.positive(everything, everything)
    matrix = weight.new_zeros(len(weight), len(weight))
    if by_column is not None:
        matrix = torch.where(by_column, weight[None, :], matrix)
    if by_row is not None:
        matrix = torch.where(by_row, weight[:, None], matrix)
    return matrix.diagonal_scatter(weight)


def target_mean(
    x: Tensor, weight: Tensor, relations: Relations, *, axis: Literal["row", "column"]
) -> tuple[Tensor, Tensor]:
    """The mean of x under each pair's softmax targets, without the N x N matrix.

    axis "row": x[N, D] are documents and T_i = sum_j A_ij x_j / sum_j A_ij;
    axis "column": x[N, D] are queries and T_j = sum_i A_ij x_i / sum_i A_ij. A as target_matrix makes it of weight[N].
    Returns index[K], the pairs that have targets besides their own, and T[K, D] for these. O(K D) time and memory.
    """
    query, document = (relations.query, relations.same_query), (relations.document, relations.same_document)
    # Along a row, pairs of its query carry their own weights and pairs of its document the row's; along a column,
    # pairs of its document carry their own and pairs of its query the column's.
    (graded, graded_rule), (flat, flat_rule) = (query, document) if axis == "row" else (document, query)
    by_graded, by_flat = graded_rule == "positive", flat_rule == "positive"
    many = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for group, positive in ((graded, by_graded), (flat, by_flat)):
        if positive:
            many |= torch.bincount(group)[group] > 1
    index = many.nonzero().squeeze(1)
    x, weight, graded, flat, pair = x[index], weight[index], graded[index], flat[index], relations.pair[index]
    twice = pair if by_graded and by_flat else None  # an identical pair counts once, among the pairs of its query
    total, mass = torch.zeros_like(x), torch.zeros_like(weight)
    if by_graded:
        vectors, masses = _group_sum(x, weight, graded, less=twice if axis == "column" else None)
        total, mass = total + vectors, mass + masses
    if by_flat:
        vectors, masses = _group_sum(x, torch.ones_like(weight), flat, less=twice if axis == "row" else None)
        total, mass = total + weight[:, None] * vectors, mass + weight * masses
    none = mass == 0  # every weight of the group is 0, so the pair counts nothing: any target will do
    return index, torch.where(none[:, None], x, total / mass.masked_fill(none, 1.0)[:, None])


def _group_sum(x: Tensor, weight: Tensor, group: Tensor, less: Tensor | None) -> tuple[Tensor, Tensor]:
    """Per row, the weighted sum of x[K, D] and of weight[K] over its group, less those over its group in `less`."""
    size = int(group.max()) + 1 if len(group) else 0
    vectors = x.new_zeros(size, x.shape[1]).index_add(0, group, weight[:, None] * x)[group]
    masses = weight.new_zeros(size).index_add(0, group, weight)[group]
    if less is None:
        return vectors, masses
    fewer_vectors, fewer_masses = _group_sum(x, weight, less, None)
    return vectors - fewer_vectors, masses - fewer_masses


def _groups(identifier: Tensor) -> Tensor:
    return torch.unique(identifier, return_inverse=True)[1]


def _ordered_pairs(group: Tensor) -> int:
    """How many (i, j), i != j, lie in one group."""
    counts = torch.bincount(group)
    return int((counts * (counts - 1)).sum())
