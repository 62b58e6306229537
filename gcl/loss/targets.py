"""Which entries of the N x (N + E) similarities are negatives or nothing.

Entry (i, j) compares the query of pair i with the document of pair j. The diagonal is a target. Off it, where the two
pairs share

- the query, j's document is another judged document of i's query: the rule `same_query` decides;
- the document, i's query is another query judged for j's document: the rule `same_document` decides;
- both, it is the same pair again, which is left out, never a negative.

"ignore" leaves the entry out of every sum and "negative" treats it as any other. Where `target` makes targets of what
is judged (gcl.loss.judged), such entries are among them, and no rule applies.

The E additional documents, columns from N on, come from pairs that say "not relevant" (a score of 0): each is a
negative of its own query and of all others, whatever the rules say, but for the rows of queries that it is known to be
relevant for. Nothing chooses among queries for them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gcl.loss.settings import Repeat


class Weights(NamedTuple):
    """What each pair counts as a row, as a column, as a target and, in the sigmoid form, as a row against an additional
    document; divided by the normalizer already. Each [N]."""

    row: Tensor
    column: Tensor
    target: Tensor
    additional: Tensor


class Additional(NamedTuple):
    """Whose additional documents are, in numbers of their own: row[N], the queries of the pairs; query[E], document[E];
    relevant[K]: query * size + document where the one is known to be relevant for the other, ascending."""

    row: Tensor
    query: Tensor
    document: Tensor
    relevant: Tensor
    size: int


class Relations(NamedTuple):
    """Pairs that share a query or a document. query[N], document[N], pair[N]: int32 group numbers.

    additional: None where there are no such documents. Blocks of columns end at N or begin there."""

    query: Tensor
    document: Tensor
    pair: Tensor
    same_query: Repeat
    same_document: Repeat
    repeats: bool
    additional: Additional | None = None

    def ignored(self, rows: slice, columns: slice) -> Tensor | None:
        """bool[R, C]: entries that are left out; None if none are. The diagonal, always a target, is the caller's."""
        if (others := self._beyond(columns)) is not None:
            (row, _, document, relevant, size), some = others
            return torch.isin(row[rows, None] * size + document[some], relevant)
        if not self.repeats:
            return None
        same_query, same_document = self._same(rows, columns)
        if self.same_query == self.same_document:
            both = self.same_query == "negative"
            return same_query.logical_and_(same_document) if both else same_query.logical_or_(same_document)
        return same_query if self.same_query == "ignore" else same_document

    def of_own_query(self, rows: slice, columns: slice) -> Tensor | None:
        """bool[R, C]: of additional documents those of the row's own query; None for columns of pairs."""
        others = self._beyond(columns)
        return None if others is None else others[0].row[rows, None] == others[0].query[others[1]]

    def _beyond(self, columns: slice) -> tuple[Additional, slice] | None:
        """Where columns are additional documents, these and which of them."""
        first = (columns.start or 0) - len(self.query)
        if self.additional is None or first < 0:
            return None
        return self.additional, slice(first, columns.stop - len(self.query))

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


def more(query_id: Tensor, document_id: Tensor, *, pairs: int, relevant: tuple[Tensor, Tensor]) -> Additional:
    """query_id[N + E], document_id[N + E] of `pairs` pairs and E additional documents; relevant: ids of queries
    and of documents that are relevant for them."""
    query, document = _groups(torch.cat([query_id, relevant[0]])), _groups(torch.cat([document_id, relevant[1]]))
    total, size = len(query_id), len(document)
    keys = (query[total:] * size + document[total:]).unique()
    return Additional(query[:pairs], query[pairs:total], document[pairs:total], keys, size)


def count_ignored(relations: Relations) -> int:
    """How many of the N * (N + E) entries the rules leave out."""
    return _count_additional(relations) + _count_ignored_pairs(relations)


def _count_additional(relations: Relations) -> int:
    if relations.additional is None:
        return 0
    row, _, document, relevant, size = relations.additional
    queries, documents = (torch.bincount(x, minlength=size) for x in (row, document))
    asked, shown = relevant // size, relevant % size
    of_query = torch.zeros_like(asked)
    inside = asked < len(queries)
    of_query[inside] = queries[asked[inside]]
    return int((of_query * documents[shown]).sum())


def _count_ignored_pairs(relations: Relations) -> int:
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
