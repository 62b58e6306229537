"""The weighted sigmoid loss of this rank's rows, a block of similarities at a time, with its gradient in the same pass.

Entries do not depend on each other (Zhai et al. 2023, https://arxiv.org/abs/2303.15343): a target costs
A_ij softplus(-s_ij), a negative (row_i + column_j) softplus(s_ij). So each block is computed once, as if all of its
entries were negatives but the diagonal, which is done apart:

1. x = -s into the first buffer;
2. softplus(-x) = -logsigmoid(x) into the second buffer, the exponentials it is made of into the third;
3. their weighted sum is this block's part of the value;
4. d softplus(s) / ds = sigmoid(s) = 1 - sigmoid(x), from the exponentials and times the weight, over x: G = dL/dS;
   a judged entry (gcl.loss.judged) costs softplus(s) - t s, so at these few t s leaves the value and t the gradient;
5. two products and a sum (the bias), and the block is forgotten.

6 N^2 D operations and three blocks of memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gcl.distributed.ranks import own_rows
from gcl.loss.blocks import Buffers, Gradients, blank, log1p_exp, row_products, split, wide
from gcl.loss.margin import BOTH, Dim, TooClose, margin_of
from gcl.loss.targets import Weights
from gcl.loss.terms import Problem


def sigmoid_share(
    problem: Problem, scale: Tensor, bias: Tensor, buffers: Buffers, gradients: Gradients | None
) -> Tensor:
    """This rank's share of the sum in gcl.loss.reference.whole_sigmoid, a scalar; the ranks' shares add up to it.

    Adds coefficient times the gradient of its share to `gradients`.
    """
    query, document, weights, relations, targets = problem[:5]
    pairs = len(query)
    own = own_rows(pairs)
    mine = slice(own.start, own.stop)
    row, column = weights.row * problem.coefficient, weights.column * problem.coefficient
    # The diagonal: every pair is its own target
    target = scale * row_products(query, document[:pairs])
    margin = margin_of(target, scale, problem.margin, relations)
    target = target + bias  # s_ii [N]
    value = (weights.target * log1p_exp(-target))[mine].sum(dtype=wide(query.device))
    on_target = -problem.coefficient * weights.target * torch.sigmoid(-target)
    if targets is not None:  # or is one with a probability below 1
        yes = targets.diagonal(relations, weights)
        no = weights.row + weights.column - yes
        value = (yes * log1p_exp(-target) + no * log1p_exp(target))[mine].sum(dtype=value.dtype)
        on_target = problem.coefficient * (no * torch.sigmoid(target) - yes * torch.sigmoid(-target))
    _add_bias(gradients, on_target[mine])
    for r in split(own.start, own.stop, buffers.side):
        left = scale * query[r]
        step = on_target[r, None] * document[r]  # dL/d(scale * query[r]), begun with the diagonal
        judged = None if targets is None else targets.entries(r, relations, weights)
        for c in split(0, pairs, buffers.side) + split(pairs, len(document), buffers.side):
            right = document[c]
            s = torch.mm(left, right.T, out=buffers.view(0, len(left), len(right)))
            entries = None if judged is None else judged.within(c)
            left_out = [(dim, margin.too_close(s, r, c, dim, judged=entries)) for dim in BOTH if margin is not None]
            weight = _weight(weights, r, c, [(dim, close) for dim, close in left_out if close is not None])
            x = torch.sub(-bias, s, out=s)  # -s of the formula: log(1 + exp(s)) is -logsigmoid(-s)
            if entries is not None:
                value = value + entries.take(x)
            blank(x, r, c, relations, torch.inf)  # logsigmoid(inf) is 0: the diagonal and what is ignored add nothing
            scratch, powers = buffers.view(1, *x.shape), buffers.view(2, *x.shape)
            # What torch's logsigmoid is made of, with both results in buffers: scratch = logsigmoid(x), powers =
            # exp(-|x|) for its backward.
            logarithm, _ = torch.ops.aten.log_sigmoid_forward.output(x, output=scratch, buffer=powers)
            if weight is None:  # row_i + column_j: two matrix-vector products instead of a matrix of weights
                value = value - (weights.row[r] @ logarithm.sum(1) + weights.column[c] @ logarithm.sum(0))
            else:
                value = value - logarithm.mul_(weight).sum()
            if gradients is None:
                continue
            if weight is None:
                weight = torch.add(row[r, None], column[c], out=scratch)  # the logarithms are spent
            else:
                weight *= problem.coefficient
            # weight * sigmoid(s) over x, from the exponentials that the logarithm was made of.
            g = torch.ops.aten.log_sigmoid_backward.grad_input(weight, x, powers, grad_input=x)
            if entries is not None:
                entries.subtract(g, problem.coefficient)
            _add_bias(gradients, g)
            gradients.add_block(g, r, c, left, right, step)
        if gradients is not None:
            gradients.add_diagonal(on_target[r], r, left)
            gradients.add_rows(r, query, step, scale)
    return value


def _weight(weights: Weights, r: slice, c: slice, left_out: Sequence[tuple[Dim, TooClose]]) -> Tensor | None:
    """What the entries of a block count [R, C]; None: row_i + column_j, as they do where nothing is left out."""
    if (additional := c.start >= len(weights.row)) or left_out:
        shape = r.stop - r.start, c.stop - c.start
        row = (weights.additional if additional else weights.row)[r, None].expand(shape).clone()
        column = row.new_zeros(shape) if additional else weights.column[c].expand(shape).clone()
        for dim, close in left_out:
            close.fill_(row if dim else column, dim, 0.0)
        return row.add_(column)
    return None


def _add_bias(gradients: Gradients | None, g: Tensor) -> None:
    if gradients is not None and gradients.bias is not None:
        gradients.bias.add_(g.sum())
