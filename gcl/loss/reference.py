"""The loss on the whole matrix with ordinary autograd: the readable formulas, and what the tiled path must equal.

`GCLLoss(tile=None)` runs this file; otherwise gcl.loss.tiled computes the same numbers a block at a time. Every rank
computes all of it: gather_rows sums over ranks, DistributedDataParallel takes the mean, so gradients are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcl.loss.distill import whole_distillation
from gcl.loss.margin import BOTH, Dim, margin_of
from gcl.loss.settings import Form
from gcl.loss.targets import Weights
from gcl.loss.terms import Problem

Masks = tuple[Tensor, ...]  # what is left out along rows, and along columns
Shares = tuple[Tensor, Tensor]  # targets of the rows and of the columns


def whole_loss(problem: Problem, *, scale: Tensor, bias: Tensor) -> Tensor:
    """The weighted sum over pairs, a scalar, before the coefficient; s[N, N + E] = scale * query @ document.T + bias,
    the E additional documents last."""
    s = scale * problem.query @ problem.document.T + bias
    if problem.teacher is not None:
        return whole_distillation(s, problem.teacher.query @ problem.teacher.document.T, problem.weights)
    loss = whole_softmax if problem.form == Form.softmax else whole_sigmoid
    targets = None if problem.targets is None else problem.targets.dense(problem.relations)
    left_out = tuple(_left_out(s.detach(), problem, scale, dim) for dim in BOTH)
    return loss(s, problem.weights, left_out, targets)


def _left_out(s: Tensor, problem: Problem, scale: Tensor, dim: Dim) -> Tensor:
    """bool[N, N + E]: the entries that rules and margin leave out along a dimension; the diagonal is the caller's."""
    n, everything = len(s), slice(0, len(s))
    left_out = torch.zeros(s.shape, dtype=torch.bool, device=s.device)
    margin = margin_of(s.diagonal(), scale, problem.margin, problem.relations)
    for columns in (everything, slice(n, s.shape[1])):
        if columns.start == columns.stop:
            continue
        block = left_out[:, columns]
        if (ignored := problem.relations.ignored(everything, columns)) is not None:
            block |= ignored
        if margin is None:
            continue
        targets, judged = problem.targets, None
        if targets is not None:
            judged = targets.entries(everything, problem.relations, problem.weights).within(columns)
        if (close := margin.too_close(s[:, columns], everything, columns, dim, judged=judged)) is not None:
            beyond = torch.zeros_like(block)
            close.fill_(beyond, dim, True)
            block |= beyond
    return left_out


def whole_softmax(s: Tensor, weights: Weights, left_out: Masks, targets: Shares | None = None) -> Tensor:
    """s[N, N + E] -> sum_i row_i CE(row i) + column_i CE(column i), against soft targets that sum to 1.

    With r_ij = s_ij - s_ii, CE(row i) = log(1 + sum_{j != i} exp r_ij) - sum_j t_ij r_ij. That is the usual
    logsumexp_j(s_ij) - sum_j t_ij s_ij of Radford et al. 2021, https://arxiv.org/abs/2103.00020, but a loss near 0
    keeps its digits in float32. targets: t[N, N] of the rows, and of the columns; None: the diagonal is the target.
    """
    n = len(s)
    pairs = s[:, :n] if s.shape[1] > n else s
    of_rows, of_columns = targets or (None, None)
    if of_rows is not None and s.shape[1] > n:
        of_rows = torch.nn.functional.pad(of_rows, (0, s.shape[1] - n))
    rows = _cross_entropy(s - pairs.diagonal()[:, None], of_rows, left_out[0], dim=1)
    columns = _cross_entropy(pairs - pairs.diagonal()[None, :], of_columns, left_out[1][:, :n], dim=0)
    return (weights.row * rows + weights.column * columns).sum()


def _cross_entropy(r: Tensor, targets: Tensor | None, left_out: Tensor, *, dim: int) -> Tensor:
    """r[N, C] with a diagonal of 0, to which the targets[N, C] there add nothing -> [N]."""
    without = torch.eye(*r.shape, dtype=torch.bool, device=r.device) | left_out
    entropy = _softplus(r.masked_fill(without, -torch.inf).logsumexp(dim))
    return entropy if targets is None else entropy - (targets * r).sum(dim)


def whole_sigmoid(s: Tensor, weights: Weights, left_out: Masks, targets: Shares | None = None) -> Tensor:
    """s[N, N + E] -> sum of target_i softplus(-s_ii) over the diagonal and of (row_i + column_j) softplus(s_ij) off it;
    against an additional document row i counts additional_i.

    The sigmoid loss of Zhai et al. 2023, https://arxiv.org/abs/2303.15343, with weights. With targets A[N, N], each the
    probability of a yes, every entry costs (row_i + column_j) (A_ij softplus(-s_ij) + (1 - A_ij) softplus(s_ij)), as in
    BiXSE (2025, https://arxiv.org/abs/2508.06781).
    """
    n = len(s)
    pairs, others = s[:, :n], s[:, n:]
    diagonal = torch.eye(n, dtype=torch.bool, device=s.device)
    along_rows, along_columns = ~left_out[0], ~left_out[1]
    weight = weights.row[:, None] * (along_rows[:, :n] | diagonal) + weights.column * (along_columns[:, :n] | diagonal)
    rest = (weights.additional[:, None] * along_rows[:, n:] * _softplus(others)).sum()
    if targets is not None:
        return (weight * (targets[0] * _softplus(-pairs) + (1 - targets[0]) * _softplus(pairs))).sum() + rest
    return torch.where(diagonal, weights.target * _softplus(-pairs), weight * _softplus(pairs)).sum() + rest


def _softplus(x: Tensor) -> Tensor:
    # torch's softplus takes x for log(1 + exp x) from 20 on, which is 1e-10 off in float64.
    return torch.logaddexp(x, torch.zeros_like(x))
