"""The loss on the whole N x N matrix with ordinary autograd: the readable formulas, and what the tiled path must equal.

`GCLLoss(tile=None)` runs this file; otherwise gcl.loss.tiled computes the same numbers a block at a time. Every rank
computes all of it: gather_rows sums over ranks, DistributedDataParallel takes the mean, so gradients are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcl.loss.settings import Form
from gcl.loss.targets import Relations, Weights, target_matrix
from gcl.loss.terms import Problem


def whole_loss(problem: Problem, *, form: Form, scale: Tensor, bias: Tensor) -> Tensor:
    """The weighted sum over pairs, a scalar, before the coefficient; s[N, N] = scale * query @ document.T + bias."""
    loss = whole_softmax if form == Form.softmax else whole_sigmoid
    return loss(scale * problem.query @ problem.document.T + bias, problem.weights, problem.relations)


def whole_softmax(s: Tensor, weights: Weights, relations: Relations) -> Tensor:
    """s[N, N] -> sum_i row_i CE(row i) + column_i CE(column i), each against its soft targets t.

    With r_ij = s_ij - s_ii, CE(row i) = log(1 + sum_{j != i} exp r_ij) - sum_j t_ij r_ij. That is the usual
    logsumexp_j(s_ij) - sum_j t_ij s_ij of Radford et al. 2021, https://arxiv.org/abs/2103.00020, but a loss near 0
    keeps its digits in float32.
    """
    targets = target_matrix(relations, weights.target)
    rows = _cross_entropy(s - s.diagonal()[:, None], targets, relations.ignored(slice(None), slice(None)), dim=1)
    columns = _cross_entropy(s - s.diagonal()[None, :], targets, relations.ignored(slice(None), slice(None)), dim=0)
    return (weights.row * rows + weights.column * columns).sum()


def _cross_entropy(r: Tensor, targets: Tensor, ignored: Tensor | None, *, dim: int) -> Tensor:
    """r[N, N] with a diagonal of 0, targets[N, N] before they sum to 1 -> [N]."""
    mass = targets.sum(dim, keepdim=True)
    diagonal = torch.zeros_like(mass.squeeze(dim))  # r_ii is 0 whatever s is, so the pair's own target adds nothing
    targets = (targets / mass.masked_fill(mass == 0, 1.0)).diagonal_scatter(diagonal)
    others = torch.eye(len(r), dtype=torch.bool, device=r.device)
    others = others if ignored is None else others | ignored
    return _softplus(r.masked_fill(others, -torch.inf).logsumexp(dim)) - (targets * r).sum(dim)


def whole_sigmoid(s: Tensor, weights: Weights, relations: Relations) -> Tensor:
    """s[N, N] -> sum of A_ij softplus(-s_ij) over targets and of (row_i + column_j) softplus(s_ij) over negatives.

    The sigmoid loss of Zhai et al. 2023, https://arxiv.org/abs/2303.15343, with weights.
    """
    targets = target_matrix(relations, weights.target)
    by_column, by_row = relations.positive(slice(None), slice(None))
    positive = torch.eye(len(s), dtype=torch.bool, device=s.device)
    for mask in (by_column, by_row):
        positive = positive if mask is None else positive | mask
    entries = torch.where(positive, targets * _softplus(-s), (weights.row[:, None] + weights.column) * _softplus(s))
    ignored = relations.ignored(slice(None), slice(None))
    return entries.sum() if ignored is None else entries.masked_fill(ignored & ~positive, 0.0).sum()


def _softplus(x: Tensor) -> Tensor:
    # torch's softplus takes x for log(1 + exp x) from 20 on, which is 1e-10 off in float64.
    return torch.logaddexp(x, torch.zeros_like(x))
