"""The weighted sigmoid loss of this rank's rows, a block of similarities at a time, with its gradient in the same pass.

Entries do not depend on each other (Zhai et al. 2023, https://arxiv.org/abs/2303.15343): a target costs
A_ij softplus(-s_ij), a negative (row_i + column_j) softplus(s_ij). So each block is computed once, as if all of its
entries were negatives but the diagonal, which is done apart:

1. x = -s into the first buffer; on further targets ("positive" rules) the sign is changed back;
2. softplus(-x) = -logsigmoid(x) into the second buffer, the exponentials it is made of into the third;
3. their weighted sum is this block's part of the value;
4. d softplus(s) / ds = sigmoid(s) = 1 - sigmoid(x), from the exponentials and times the weight, over x: G = dL/dS;
5. two products and a sum (the bias), and the block is forgotten.

6 N^2 D operations and three blocks of memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gcl.distributed.ranks import own_rows
from gcl.loss.blocks import Buffers, Gradients, blank, log1p_exp, row_products, split, wide
from gcl.loss.targets import Relations, Weights
from gcl.loss.terms import Problem


def sigmoid_share(
    problem: Problem, scale: Tensor, bias: Tensor, buffers: Buffers, gradients: Gradients | None
) -> Tensor:
    """This rank's share of the sum in gcl.loss.reference.whole_sigmoid, a scalar; the ranks' shares add up to it.

    Adds coefficient times the gradient of its share to `gradients`.
    """
    query, document, weights, relations, _ = problem
    own = own_rows(len(query))
    mine = slice(own.start, own.stop)
    row, column = weights.row * problem.coefficient, weights.column * problem.coefficient
    # The diagonal: every pair is its own target.
    target = scale * row_products(query, document) + bias  # s_ii [N]
    value = (weights.target * log1p_exp(-target))[mine].sum(dtype=wide(query.device))
    on_target = -problem.coefficient * weights.target * torch.sigmoid(-target)
    _add_bias(gradients, on_target[mine])
    for r in split(own.start, own.stop, buffers.side):
        left = scale * query[r]
        step = on_target[r, None] * document[r]  # dL/d(scale * query[r]), begun with the diagonal
        for c in split(0, len(query), buffers.side):
            right = document[c]
            s = torch.mm(left, right.T, out=buffers.view(0, len(left), len(right)))
            x = torch.sub(-bias, s, out=s)  # -s of the formula: log(1 + exp(s)) is -logsigmoid(-s)
            others = _Targets.of(relations, r, c)
            if others is not None:
                others.flip_(x)
            blank(x, r, c, relations, torch.inf)  # logsigmoid(inf) is 0: the diagonal and what is ignored add nothing
            scratch, powers = buffers.view(1, *x.shape), buffers.view(2, *x.shape)
            # What torch's logsigmoid is made of, with both results in buffers: scratch = logsigmoid(x), powers =
            # exp(-|x|) for its backward.
            logarithm, _ = torch.ops.aten.log_sigmoid_forward.output(x, output=scratch, buffer=powers)
            weight = None if others is None else others.weigh(weights, r, c)
            if weight is None:  # row_i + column_j: two matrix-vector products instead of a matrix of weights
                value = value - (weights.row[r] @ logarithm.sum(1) + weights.column[c] @ logarithm.sum(0))
            else:
                value = value - logarithm.mul_(weight).sum()
            if gradients is None:
                continue
            if weight is None:  # the logarithms are spent: their buffer takes the weights
                weight = torch.add(row[r, None], column[c], out=scratch)
            else:
                weight *= problem.coefficient
            # weight * sigmoid(s) over x, from the exponentials that the logarithm was made of.
            g = torch.ops.aten.log_sigmoid_backward.grad_input(weight, x, powers, grad_input=x)
            if others is not None:
                others.flip_(g)  # d softplus(-s) / ds = -sigmoid(-s)
            _add_bias(gradients, g)
            gradients.add_block(g, r, c, left, right, step)
        if gradients is not None:
            gradients.add_diagonal(on_target[r], r, left)
            gradients.add_rows(r, query, step, scale)
    return value


def _add_bias(gradients: Gradients | None, g: Tensor) -> None:
    if gradients is not None and gradients.bias is not None:
        gradients.bias.add_(g.sum())


class _Targets(NamedTuple):
    """Targets off the diagonal in a block: bool[R, C] with the weights of their columns' pairs, and of their rows'."""

    by_column: Tensor | None
    by_row: Tensor | None

    @staticmethod
    def of(relations: Relations, r: slice, c: slice) -> _Targets | None:
        masks = relations.positive(r, c)
        return None if masks == (None, None) else _Targets(*masks)

    def flip_(self, x: Tensor) -> None:
        """Changes the sign of x[R, C] on targets: softplus(s) for a negative is softplus(-s) for a target."""
        for mask in self:
            if mask is not None:
                torch.where(mask, -x, x, out=x)

    def weigh(self, weights: Weights, r: slice, c: slice) -> Tensor:
        """What each entry counts [R, C]."""
        weight = weights.row[r, None] + weights.column[c]
        if self.by_column is not None:
            weight = torch.where(self.by_column, weights.target[c], weight)
        if self.by_row is not None:
            weight = torch.where(self.by_row, weights.target[r, None], weight)
        return weight
