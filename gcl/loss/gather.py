"""What ranks exchange for the loss: rows with their gradient, sums, log-sum-exps. In a lone process nothing happens."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from gcl.distributed.ranks import world


def gather_rows(x: Tensor) -> Tensor:
    """x[u, …] of every rank, in rank order -> [W * u, …] on every rank.

    The backward pass is the exact adjoint: the gradient of this rank's rows summed over ranks, divided by nothing.
    Raises ValueError where the ranks give different shapes: gloo would abort, NCCL mix up rows.
    """
    return x if world()[1] == 1 else _GatherRows.apply(x)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ranks = world()[1]
        ctx.rows = len(x)
        shape = torch.tensor(x.shape, device=x.device)
        shapes = [torch.empty_like(shape) for _ in range(ranks)]
        dist.all_gather(shapes, shape)
        if any(other.tolist() != shape.tolist() for other in shapes):
            given = ", ".join(str(tuple(other.tolist())) for other in shapes)
            raise ValueError(
                f"gather_rows got rows of different shapes from the ranks ({given}): pad them to one shape first."
            )
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(ranks)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        rank, _ = world()
        if gradient.is_cuda and "nccl" in dist.get_backend():
            own = gradient.new_empty(ctx.rows, *gradient.shape[1:])
            dist.reduce_scatter_tensor(own, gradient.contiguous())
            return own
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[rank * ctx.rows : (rank + 1) * ctx.rows].clone()


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum of x over ranks, the same on each; without a gradient."""
    if world()[1] > 1:
        x = x.contiguous().clone()
        dist.all_reduce(x)
    return x


def logsumexp_over_ranks(x: Tensor) -> Tensor:
    """log of the sum over ranks of exp(x), elementwise, overflow or not; -inf where all have -inf. No gradient."""
    if world()[1] == 1:
        return x
    largest = x.contiguous().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    largest = largest.masked_fill(largest == -torch.inf, 0.0)
    total = torch.exp(x - largest)
    dist.all_reduce(total)
    return largest + total.log()
