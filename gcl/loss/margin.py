"""Negatives that the model puts above the target by more than a margin are left out: most of them are good answers that
nobody judged (Zhang et al. 2025, https://arxiv.org/abs/2506.05176, who take 0.1).

Along rows entry (i, j) is left out if cos_ij > cos_ii + margin, along columns if cos_ij > cos_jj + margin; the cosines
are the model's own of the moment, and no gradient goes through the comparison. What was judged is never left out:
targets, and additional documents for their own query.

A block of similarities is compared by its largest entry per line, which the softmax form knows already: only lines with
an entry above the limit are looked at closely.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gcl.loss.judged import Entries
from gcl.loss.targets import Relations

Dim = Literal[0, 1]  # 1: along rows, 0: along columns
BOTH: tuple[Dim, Dim] = (1, 0)


class TooClose(NamedTuple):
    """Entries of a block [R, C] that a margin leaves out. line[L]: rows (or columns) of the block; mask: bool, of these
    lines."""

    line: Tensor
    mask: Tensor

    def fill_(self, x: Tensor, dim: Dim, value: float) -> None:
        """Sets these entries of the block x[R, C] in place."""
        x.index_copy_(1 - dim, self.line, x.index_select(1 - dim, self.line).masked_fill_(self.mask, value))


class Margin(NamedTuple):
    """limit[n]: the similarity of each pair's target, and the margin in its units on top."""

    limit: Tensor
    relations: Relations

    def lines_above(self, largest: Tensor, lines: slice) -> Tensor:
        """The largest entry of each line [L] -> which lines of the block hold an entry above their limit."""
        return (largest > self.limit[lines]).nonzero().squeeze(1)

    def too_close(
        self, s: Tensor, r: slice, c: slice, dim: Dim, *, judged: Entries | None = None, line: Tensor | None = None
    ) -> TooClose | None:
        """What is left out of the block s[R, C] along a dimension; None if nothing is. judged: the block's targets off
        the diagonal. line: as lines_above said."""
        lines = r if dim else c
        if lines.start >= len(self.limit):  # nothing chooses among queries for an additional document
            return None
        if line is None:
            line = self.lines_above(s.amax(dim), lines)
        if not len(line):
            return None
        mask = s.index_select(1 - dim, line) > self.limit[lines][line].unsqueeze(dim)
        certain = self.relations.of_own_query(r, c)
        if judged is not None and len(judged.row):
            certain = torch.zeros_like(s, dtype=torch.bool)
            certain[judged.row, judged.column] = True
        if certain is not None:
            mask &= ~certain.index_select(1 - dim, line)
        return TooClose(line, mask)


def margin_of(target: Tensor, scale: Tensor, margin: float | None, relations: Relations) -> Margin | None:
    """target[n]: the pairs' own similarities, scale * cosine (+ bias)."""
    return None if margin is None else Margin((target + scale * margin).detach(), relations)
