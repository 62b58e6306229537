"""The loss on the whole N x N matrix with ordinary autograd: the readable formulas, and what the tiled path must equal.

`GCLLoss(tile=None)` runs this file; otherwise gcl.loss.tiled computes the same numbers a block at a time. Every rank
computes all of it: gather_rows sums over ranks, DistributedDataParallel takes the mean, so gradients are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcl.loss.distill import whole_distillation
from gcl.loss.settings import Form
from gcl.loss.targets import Relations, Weights
from gcl.loss.terms import Problem

Shares = tuple[Tensor, Tensor]  # targets of the rows and of the columns


def whole_loss(problem: Problem, *, scale: Tensor, bias: Tensor) -> Tensor:
    """The weighted sum over pairs, a scalar, before the coefficient; s[N, N] = scale * query @ document.T + bias."""
    s = scale * problem.query @ problem.document.T + bias
    if problem.teacher is not None:
        return whole_distillation(s, problem.teacher.query @ problem.teacher.document.T, problem.weights)
    loss = whole_softmax if problem.form == Form.softmax else whole_sigmoid
    targets = None if problem.targets is None else problem.targets.dense(problem.relations)
    return loss(s, problem.weights, problem.relations, targets)


def whole_softmax(s: Tensor, weights: Weights, relations: Relations, targets: Shares | None = None) -> Tensor:
    """s[N, N] -> sum_i row_i CE(row i) + column_i CE(column i), against soft targets that sum to 1.

    With r_ij = s_ij - s_ii, CE(row i) = log(1 + sum_{j != i} exp r_ij) - sum_j t_ij r_ij. That is the usual
    logsumexp_j(s_ij) - sum_j t_ij s_ij of Radford et al. 2021, https://arxiv.org/abs/2103.00020, but a loss near 0
    keeps its digits in float32. targets: t[N, N] of the rows, and of the columns; None: the diagonal is the target.
    """
    ignored = relations.ignored(slice(None), slice(None))
    of_rows, of_columns = targets or (None, None)
    rows = _cross_entropy(s - s.diagonal()[:, None], of_rows, ignored, dim=1)
    columns = _cross_entropy(s - s.diagonal()[None, :], of_columns, ignored, dim=0)
    return (weights.row * rows + weights.column * columns).sum()


def _cross_entropy(r: Tensor, targets: Tensor | None, ignored: Tensor | None, *, dim: int) -> Tensor:
    """r[N, N] with a diagonal of 0, to which the targets[N, N] there add nothing -> [N]."""
    others = torch.eye(len(r), dtype=torch.bool, device=r.device)
    others = others if ignored is None else others | ignored
    entropy = _softplus(r.masked_fill(others, -torch.inf).logsumexp(dim))
    return entropy if targets is None else entropy - (targets * r).sum(dim)


def whole_sigmoid(s: Tensor, weights: Weights, relations: Relations, targets: Shares | None = None) -> Tensor:
    """s[N, N] -> sum of target_i softplus(-s_ii) over the diagonal and of (row_i + column_j) softplus(s_ij) off it.

    The sigmoid loss of Zhai et al. 2023, https://arxiv.org/abs/2303.15343, with weights. With targets A[N, N], each the
    probability of a yes, every entry costs (row_i + column_j) (A_ij softplus(-s_ij) + (1 - A_ij) softplus(s_ij)), as in
    BiXSE (2025, https://arxiv.org/abs/2508.06781).
    """
    weight = weights.row[:, None] + weights.column
    if targets is not None:
        return (weight * (targets[0] * _softplus(-s) + (1 - targets[0]) * _softplus(s))).sum()
    diagonal = torch.eye(len(s), dtype=torch.bool, device=s.device)
    entries = torch.where(diagonal, weights.target * _softplus(-s), weight * _softplus(s))
    ignored = relations.ignored(slice(None), slice(None))
    return entries.sum() if ignored is None else entries.masked_fill(ignored & ~diagonal, 0.0).sum()


def _softplus(x: Tensor) -> Tensor:
    # torch's softplus takes x for log(1 + exp x) from 20 on, which is 1e-10 off in float64.
    return torch.logaddexp(x, torch.zeros_like(x))
