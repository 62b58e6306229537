"""The weighted softmax loss of this rank's rows, a block of similarities at a time, with its gradient.

With t_i = s_ii and lse_i the log-sum-exp of row i without its diagonal, CE(row i) = log(1 + exp(lse_i - t_i)), which
keeps its digits when it is near 0; columns alike. So

1. the first pass over the blocks collects lse of this rank's rows and its part of that of all columns;
2. columns are combined over ranks; the value follows from the lse alone;
3. the second pass computes the blocks again, in reverse, and overwrites each with
   G_ij = row_i p_ij + column_j p'_ij, p_ij = exp(s_ij) / (exp(t_i) + exp(lse_i)), j != i;
4. the diagonal's gradient is -(row_i (1 - p_ii) + column_i (1 - p'_ii)), 1 - p_ii = sigmoid(lse_i - t_i);
5. other targets (gcl.loss.judged) are linear in s: at the few judged entries of a block t_ij s_ij leaves the value and
   t_ij the gradient.

8 N^2 D operations and two blocks of memory, where autograd on the whole matrix holds it several times (the
recomputation follows Gao et al. 2021, https://arxiv.org/abs/2101.06983, and Dao et al. 2022,
https://arxiv.org/abs/2205.14135).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcl.distributed.ranks import own_rows
from gcl.loss.blocks import Buffers, Gradients, blank, logsumexp, row_products, split, wide
from gcl.loss.gather import logsumexp_over_ranks
from gcl.loss.judged import Entries
from gcl.loss.margin import BOTH, Dim, Margin, TooClose, margin_of
from gcl.loss.terms import Problem

Above = dict[tuple[int, int, Dim], Tensor]  # the lines of each block with an entry beyond the margin


def softmax_share(
    problem: Problem, scale: Tensor, bias: Tensor, buffers: Buffers, gradients: Gradients | None
) -> Tensor:
    """This rank's share of sum_i row_i CE(row i) + column_i CE(column i), a scalar; the ranks' shares add up to it.

    Adds coefficient times the gradient of its share to `gradients`. The bias drops out.
    """
    query, document, weights, relations, targets = problem[:5]
    pairs = len(query)
    own = own_rows(pairs)
    mine = slice(own.start, own.stop)
    blocks = split(own.start, own.stop, buffers.side)
    columns = split(0, pairs, buffers.side) + split(pairs, len(document), buffers.side)
    target = scale * row_products(query, document[:pairs])  # s_ii [N]
    margin = margin_of(target, scale, problem.margin, relations)
    above: Above = {}

    # First pass: log-sum-exp of the entries off the diagonal, added up block by block.
    row = query.new_full((len(query),), -torch.inf)
    column = query.new_full((len(query),), -torch.inf)
    s = None
    linear = query.new_zeros((), dtype=wide(query.device))  # what targets besides the diagonal add to the value
    for r in blocks:
        left = scale * query[r]
        judged = _judged(problem, r)
        for c in columns:
            s = _similarities(left, document[c], r, c, problem, buffers)
            entries = judged and judged.within(c)
            if entries is not None:
                linear = linear - entries.take(s)
            scratch = buffers.view(1, *s.shape)
            along: tuple[tuple[Dim, slice, Tensor], ...] = ((1, r, row), (0, c, column))
            for dim, lines, total in along if c.start < pairs else along[:1]:
                largest = s.amax(dim, keepdim=True)
                part = logsumexp(s, dim, scratch, largest)
                if margin is not None:
                    line = above[r.start, c.start, dim] = margin.lines_above(largest.squeeze(dim), lines)
                    _correct(part, s, dim, margin.too_close(s, r, c, dim, judged=entries, line=line))
                total[lines] = torch.logaddexp(total[lines], part)
    # From here on relative to the target: lse_i - t_i. Rows are whole already, columns lie across the ranks.
    row, column = row - target, logsumexp_over_ranks(column) - target
    zero = torch.zeros_like(target)
    entropy = weights.row * torch.logaddexp(row, zero) + weights.column * torch.logaddexp(column, zero)
    value = entropy[mine].sum(dtype=wide(query.device))
    if targets is not None:
        rest = weights.row + weights.column - targets.diagonal(relations, weights)  # of the targets, off the diagonal
        value = value + linear + (rest * target)[mine].sum(dtype=value.dtype)

    if gradients is not None:
        factor = problem.coefficient
        # row_i p_ij = exp(s_ij + to_row_i) with to_row_i = log row_i - t_i - log(1 + exp(lse_i - t_i)): the weight and
        # the normaliser in one exponent, so that a block needs one addition and one exponential each way.
        to_row = (weights.row * factor).log() - target - torch.logaddexp(row, zero)
        to_column = (weights.column * factor).log() - target - torch.logaddexp(column, zero)
        on_target = -factor * (weights.row * row.sigmoid() + weights.column * column.sigmoid())
        if targets is not None:
            on_target += factor * rest
        for r in reversed(blocks):  # the block that the first pass ended with is still in its buffer
            left = scale * query[r]
            step = on_target[r, None] * document[r]  # dL/d(scale * query[r]), begun with the diagonal
            judged = _judged(problem, r)
            for c in reversed(columns):
                if s is None:
                    s = _similarities(left, document[c], r, c, problem, buffers)
                entries = judged and judged.within(c)
                left_out = [] if margin is None else _left_out(s, r, c, margin, above, entries)
                g = torch.add(s, to_row[r, None], out=buffers.view(1, *s.shape)).exp_()  # row_i p_ij
                for dim, close in left_out:
                    close.fill_(g if dim else s, dim, 0.0 if dim else -torch.inf)
                if c.start < pairs:
                    g += s.add_(to_column[c]).exp_()  # + column_j p'_ij; the similarities are spent
                if entries is not None:
                    entries.subtract(g, factor)
                gradients.add_block(g, r, c, left, document[c], step)
                s = None
            gradients.add_diagonal(on_target[r], r, left)
            gradients.add_rows(r, query, step, scale)
    return value


def _similarities(left: Tensor, right: Tensor, r: slice, c: slice, problem: Problem, buffers: Buffers) -> Tensor:
    """left[R, D], right[C, D] -> S[R, C] in buffer 0; -inf for the diagonal and what is ignored, which no sum has."""
    s = torch.mm(left, right.T, out=buffers.view(0, len(left), len(right)))
    return blank(s, r, c, problem.relations)


def _judged(problem: Problem, r: slice) -> Entries | None:
    return None if problem.targets is None else problem.targets.entries(r, problem.relations, problem.weights)


def _correct(part: Tensor, s: Tensor, dim: Dim, close: TooClose | None) -> None:
    """The log-sum-exps of the lines of s[R, C] that hold entries to be left out, computed without these, into part."""
    if close is not None:
        kept = s.index_select(1 - dim, close.line).masked_fill_(close.mask, -torch.inf)
        part[close.line] = logsumexp(kept, dim)


def _left_out(
    s: Tensor, r: slice, c: slice, margin: Margin, above: Above, entries: Entries | None
) -> list[tuple[Dim, TooClose]]:
    """What a margin leaves out of the block, as in the first pass."""
    each = [(dim, above.get((r.start, c.start, dim))) for dim in BOTH]
    found = [(dim, margin.too_close(s, r, c, dim, judged=entries, line=line)) for dim, line in each if line is not None]
    return [(dim, close) for dim, close in found if close is not None]
