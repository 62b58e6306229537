"""Which entries of the N x N similarities are negatives or nothing, where queries and documents repeat.

Entry (i, j) compares the query of pair i with the document of pair j. The diagonal is a target. Off it, where the two
pairs share

- the query, j's document is another judged document of i's query: the rule `same_query` decides;
- the document, i's query is another query judged for j's document: the rule `same_document` decides;
- both, it is the same pair again, which is left out, never a negative.

"ignore" leaves the entry out of every sum and "negative" treats it as any other. Where `target` makes targets of what
is judged (gcl.loss.judged), such entries are among them, and no rule applies.
"""

from __future__ import annotations

from typing import NamedTuple

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
        if not self.repeats:
            return None
        same_query, same_document = self._same(rows, columns)
        if self.same_query == self.same_document:
            both = self.same_query == "negative"
            return same_query.logical_and_(same_document) if both else same_query.logical_or_(same_document)
        return same_query if self.same_query == "ignore" else same_document

    def _same(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        return self.query[rows, None] == self.query[columns], self.document[rows, None] == self.document[columns]


def relate(query_id: Tensor, document_id: Tensor, same_query: Repeat | str, same_document: Repeat | str) -> Relations:
    """query_id[N], document_id[N], integers -> Relations.

    >>> relations = relate(torch.tensor([7, 7, 9]), torch.tensor([1, 2, 1]), "ignore", "negative")
    >>> relations.ignored(slice(0, 3), slice(0, 3)).int()
    tensor([[1, 1, 0],
            [1, 1, 0],
            [0, 0, 1]], dtype=torch.int32)
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
    return (query - pair) * (rules[0] == "ignore") + (document - pair) * (rules[1] == "ignore") + pair


def _groups(identifier: Tensor) -> Tensor:
    return torch.unique(identifier, return_inverse=True)[1]


def _ordered_pairs(group: Tensor) -> int:
    """How many (i, j), i != j, lie in one group."""
    counts = torch.bincount(group)
    return int((counts * (counts - 1)).sum())
