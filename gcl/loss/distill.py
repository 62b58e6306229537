"""What a teacher thinks of the batch: the divergence of the student's softmaxes from the teacher's, a block at a time.

With s_ij = scale * query_i . document_j of the student, z_ij the teacher's cosine over its temperature, and the
softmaxes P and T of s and z along row i, KL(T || P) = sum_j T_ij (z_ij - s_ij) + lse_j(s_ij) - lse_j(z_ij) (Hinton,
Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531); columns alike. As in gcl.loss.softmax,

1. the first pass over the blocks collects the log-sum-exps of both, of this rank's rows and its part of all columns;
2. columns are combined over ranks;
3. the second pass computes both blocks again: W_ij = row_i T_ij + column_j T'_ij gives the value's sum of W (z - s),
   and the gradient is row_i P_ij + column_j P'_ij - W_ij.

Four blocks of memory, besides the teacher's vectors. Nothing is left out: the two softmaxes are of the same entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcl.distributed.ranks import own_rows
from gcl.loss.blocks import Buffers, Gradients, logsumexp, split, wide
from gcl.loss.gather import logsumexp_over_ranks
from gcl.loss.targets import Weights
from gcl.loss.terms import Problem


def distill_share(
    problem: Problem, scale: Tensor, bias: Tensor, buffers: Buffers, gradients: Gradients | None
) -> Tensor:
    """This rank's share of sum_i row_i KL(row i) + column_i KL(column i), a scalar; the ranks' shares add up to it.

    Adds coefficient times the gradient of its share to `gradients`. The bias drops out.
    """
    assert problem.teacher is not None
    (query, document, weights), teacher = problem[:3], problem.teacher
    own = own_rows(len(query))
    mine = slice(own.start, own.stop)
    blocks, columns = split(own.start, own.stop, buffers.side), split(0, len(query), buffers.side)

    def both(r: slice, c: slice) -> tuple[Tensor, Tensor]:
        """s[R, C] and z[R, C], in the first two buffers."""
        size = r.stop - r.start, c.stop - c.start
        s = torch.mm(scale * query[r], document[c].T, out=buffers.view(0, *size))
        return s, torch.mm(teacher.query[r], teacher.document[c].T, out=buffers.view(1, *size))

    row, column = query.new_full((2, 2, len(query)), -torch.inf)  # each of the student and of the teacher
    for r in blocks:
        for c in columns:
            for which, x in enumerate(both(r, c)):
                scratch = buffers.view(2, *x.shape)
                row[which, r] = torch.logaddexp(row[which, r], logsumexp(x, 1, scratch))
                column[which, c] = torch.logaddexp(column[which, c], logsumexp(x, 0, scratch))
    column = logsumexp_over_ranks(column)
    ends = weights.row * (row[0] - row[1]) + weights.column * (column[0] - column[1])
    value = ends[mine].sum(dtype=wide(query.device))

    # row_i T_ij = exp(z_ij + log row_i - lse_i): the weight and the normaliser in one exponent.
    to_row, to_column = weights.row.log() - row, weights.column.log() - column
    for r in blocks:
        left = scale * query[r]
        step = torch.zeros_like(left)
        for c in columns:
            s, z = both(r, c)
            scratch = buffers.view(3, *s.shape)
            w = torch.add(z, to_row[1, r, None], out=buffers.view(2, *s.shape)).exp_()  # W
            w += torch.add(z, to_column[1, c], out=scratch).exp_()
            value = value + z.sub_(s).mul_(w).sum(dtype=value.dtype)  # the teacher's similarities are spent
            if gradients is None:
                continue
            g = torch.add(s, to_row[0, r, None], out=scratch).exp_()
            g += s.add_(to_column[0, c]).exp_()
            g.sub_(w).mul_(problem.coefficient)
            gradients.add_block(g, r, c, left, document[c], step)
        if gradients is not None:
            gradients.add_rows(r, query, step, scale)
    return value


def whole_distillation(s: Tensor, z: Tensor, weights: Weights) -> Tensor:
    """s[N, N] of the student, z[N, N] of the teacher -> the same sum, with ordinary autograd."""
    student, teacher = ([x.log_softmax(dim) for dim in (1, 0)] for x in (s, z))
    rows, columns = (
        (t.exp() * (t - p)).sum(dim) for t, p, dim in zip(teacher, student, (1, 0), strict=True)
    )  # fmt: skip
    return (weights.row * rows + weights.column * columns).sum()
