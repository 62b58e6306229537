"""The weighted softmax loss of this rank's rows, a block of similarities at a time, with its gradient.

Two passes over the blocks. The first gathers, for each row and column, the log-sum-exp of its entries off the diagonal,
so that CE(row i) = log(1 + exp(lse_i - s_ii)) keeps its digits when it is near 0; the second computes the similarities
again and adds G = row_i p_ij + column_j p'_ij to the gradients: 8 N^2 D operations and two blocks of memory, where
autograd on the whole matrix holds it several times (the recomputation follows Gao et al. 2021,
https://arxiv.org/abs/2101.06983, and Dao et al. 2022, https://arxiv.org/abs/2205.14135). Targets besides the diagonal
only add a term that is linear in s, in O(N D).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcl.distributed.ranks import own_rows
from gcl.loss.blocks import Buffers, Gradients, blank, row_products, split, wide
from gcl.loss.gather import logsumexp_over_ranks
from gcl.loss.targets import target_mean
from gcl.loss.terms import Problem


def softmax_share(
    problem: Problem, scale: Tensor, bias: Tensor, buffers: Buffers, gradients: Gradients | None
) -> Tensor:
    """This rank's share of sum_i row_i CE(row i) + column_i CE(column i), a scalar; the ranks' shares add up to it.

    Adds coefficient times the gradient of its share to `gradients`. The bias drops out.
    """
    query, document, weights, relations = problem[:4]
    own = own_rows(len(query))
    blocks, columns = split(own.start, own.stop, buffers.side), split(0, len(query), buffers.side)
    target = scale * row_products(query, document)  # s_ii [N]

    row = query.new_full((len(query),), -torch.inf)
    column = query.new_full((len(query),), -torch.inf)
    s = None
    for r in blocks:
        left = scale * query[r]
        for c in columns:
            s = _similarities(left, document[c], r, c, problem, buffers)
            scratch = buffers.view(1, *s.shape)
            row[r] = torch.logaddexp(row[r], _logsumexp(s, 1, scratch))
            column[c] = torch.logaddexp(column[c], _logsumexp(s, 0, scratch))
    row, column = row - target, logsumexp_over_ranks(column) - target
    mine = slice(own.start, own.stop)
    zero = torch.zeros_like(target)
    entropy = weights.row * torch.logaddexp(row, zero) + weights.column * torch.logaddexp(column, zero)
    value = entropy[mine].sum(dtype=wide(query.device))

    if gradients is not None:
        factor = problem.coefficient
        # p_ij = exp(s_ij - s_ii) / (1 + exp(row_i)): as one exponent, with the weight inside it.
        to_row = (weights.row * factor).log() - target - torch.logaddexp(row, zero)
        to_column = (weights.column * factor).log() - target - torch.logaddexp(column, zero)
        on_target = -factor * (weights.row * row.sigmoid() + weights.column * column.sigmoid())
        for r in reversed(blocks):  # the block that the first pass ended with is still there
            left = scale * query[r]
            step = on_target[r, None] * document[r]
            for c in reversed(columns):
                if s is None:
                    s = _similarities(left, document[c], r, c, problem, buffers)
                g = torch.add(s, to_row[r, None], out=buffers.view(1, *s.shape)).exp_()
                g += s.add_(to_column[c]).exp_()
                gradients.add_block(g, r, c, left, document[c], step)
                s = None
            gradients.add_diagonal(on_target[r], r, left)
            gradients.add_rows(r, query, step, scale)
    if relations.repeats and "positive" in (relations.same_query, relations.same_document):
        value = value + _other_targets(problem, scale, mine, gradients)
    return value


def _similarities(left: Tensor, right: Tensor, r: slice, c: slice, problem: Problem, buffers: Buffers) -> Tensor:
    s = torch.mm(left, right.T, out=buffers.view(0, len(left), len(right)))
    return blank(s, r, c, problem.relations)


def _logsumexp(s: Tensor, dim: int, scratch: Tensor) -> Tensor:
    """s[R, C] -> [R] or [C]; -inf where all entries are. Like torch.logsumexp, in a buffer that is there already."""
    largest = s.amax(dim, keepdim=True).clamp_min(torch.finfo(s.dtype).min)
    return torch.sub(s, largest, out=scratch).exp_().sum(dim).log() + largest.squeeze(dim)


def _other_targets(problem: Problem, scale: Tensor, mine: slice, gradients: Gradients | None) -> Tensor:
    """What targets off the diagonal add: sum_i row_i (s_ii - sum_j t_ij s_ij) of this rank's pairs; columns alike."""
    query, document, weights, relations = problem[:4]
    with torch.enable_grad():
        q, d, k = (x.detach().requires_grad_() for x in (query, document, scale))
        value = query.new_zeros((), dtype=wide(query.device))
        for axis, left, right, weight in (("row", q, d, weights.row), ("column", d, q, weights.column)):
            index, mean = target_mean(right, weights.target, relations, axis=axis)
            share = weight[index] * (index >= mine.start) * (index < mine.stop)
            value = value + k * (share * row_products(left[index], right[index] - mean)).sum(dtype=value.dtype)
    if gradients is not None:
        parts = torch.autograd.grad(value, (q, d, k), grad_outputs=torch.full_like(value, problem.coefficient))
        for total, part in zip(gradients, parts, strict=False):
            if total is not None:
                total += part
    return value.detach()
