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
from gcl.loss.terms import Problem


def softmax_share(
    problem: Problem, scale: Tensor, bias: Tensor, buffers: Buffers, gradients: Gradients | None
) -> Tensor:
    """This rank's share of sum_i row_i CE(row i) + column_i CE(column i), a scalar; the ranks' shares add up to it.

    Adds coefficient times the gradient of its share to `gradients`. The bias drops out.
    """
    query, document, weights, relations, targets = problem[:5]
    own = own_rows(len(query))
    mine = slice(own.start, own.stop)
    blocks, columns = split(own.start, own.stop, buffers.side), split(0, len(query), buffers.side)
    target = scale * row_products(query, document)  # s_ii [N]

    # First pass: log-sum-exp of the entries off the diagonal, added up block by block.
    row = query.new_full((len(query),), -torch.inf)
    column = query.new_full((len(query),), -torch.inf)
    s, judged = None, None
    linear = query.new_zeros((), dtype=wide(query.device))  # what targets besides the diagonal add to the value
    for r in blocks:
        left = scale * query[r]
        if targets is not None:
            judged = targets.entries(r, relations, weights)
        for c in columns:
            s = _similarities(left, document[c], r, c, problem, buffers)
            if judged is not None:
                linear = linear - judged.within(c).take(s)
            scratch = buffers.view(1, *s.shape)
            row[r] = torch.logaddexp(row[r], logsumexp(s, 1, scratch))
            column[c] = torch.logaddexp(column[c], logsumexp(s, 0, scratch))
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
            if targets is not None:
                judged = targets.entries(r, relations, weights)
            for c in reversed(columns):
                if s is None:
                    s = _similarities(left, document[c], r, c, problem, buffers)
                g = torch.add(s, to_row[r, None], out=buffers.view(1, *s.shape)).exp_()  # row_i p_ij
                g += s.add_(to_column[c]).exp_()  # + column_j p'_ij; the similarities are spent
                if judged is not None:
                    judged.within(c).subtract(g, factor)
                gradients.add_block(g, r, c, left, document[c], step)
                s = None
            gradients.add_diagonal(on_target[r], r, left)
            gradients.add_rows(r, query, step, scale)
    return value


def _similarities(left: Tensor, right: Tensor, r: slice, c: slice, problem: Problem, buffers: Buffers) -> Tensor:
    """left[R, D], right[C, D] -> S[R, C] in buffer 0; -inf for the diagonal and what is ignored, which no sum has."""
    s = torch.mm(left, right.T, out=buffers.view(0, len(left), len(right)))
    return blank(s, r, c, problem.relations)
