"""The loss in O(N D) memory: each rank computes its rows of the similarities a block at a time, value and gradient.

The gradient is made in the forward pass, so that between the passes nothing is kept but what the backward pass will
hand out, and so that the ranks' exchanges all happen in one place and one order. Terms share the blocks' buffers and,
where they share a part, its gradient: several terms need the memory of one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gcl.distributed.ranks import world
from gcl.loss.blocks import Buffers, Gradients, choose_tile, wide
from gcl.loss.gather import sum_over_ranks
from gcl.loss.reference import Form
from gcl.loss.sigmoid import sigmoid_share
from gcl.loss.softmax import softmax_share
from gcl.loss.terms import Problem


@torch.compiler.disable
def tiled_loss(
    problems: Sequence[Problem], *, form: Form, scale: Tensor, bias: Tensor, tile: int | str
) -> tuple[Tensor, Tensor]:
    """-> the sum of the terms with their coefficients, a scalar, and terms[T] without; both over all ranks.

    Gradients: those of scale and bias are complete on every rank; those of the embeddings are this rank's share times
    the number of ranks. Sum the latter over ranks (gather_rows does), take the mean of all parameters' gradients
    (DistributedDataParallel does), and every gradient is exact.
    """
    embeddings: list[Tensor] = []
    places = [(_place(problem.query, embeddings), _place(problem.document, embeddings)) for problem in problems]
    rest = [problem._replace(query=None, document=None) for problem in problems]
    return _TiledLoss.apply(form, tile, torch.is_grad_enabled(), rest, places, scale, bias, *embeddings)


def _place(x: Tensor, among: list[Tensor]) -> int:
    """Where x stands among the tensors; appended where it is not there yet."""
    for place, other in enumerate(among):
        if x is other:
            return place
    among.append(x)
    return len(among) - 1


class _TiledLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, form, tile, differentiable, rest, places, scale, bias, *embeddings):
        share = {"softmax": softmax_share, "sigmoid": sigmoid_share}[form]
        ask_scale, ask_bias, *ask = ctx.needs_input_grad[5:]
        side = choose_tile(tile, max(len(x) for x in embeddings), scale.device)
        buffers = Buffers(side, like=embeddings[0], count=2 if form == "softmax" else 3)
        # The value of each term, then the gradients of scale and bias: summed over ranks in one exchange.
        sums = torch.zeros(len(rest) + 2, dtype=wide(scale.device), device=scale.device)
        totals = [
            torch.zeros_like(x) if differentiable and asked else None for x, asked in zip(embeddings, ask, strict=True)
        ]
        for number, (problem, (q, d)) in enumerate(zip(rest, places, strict=True)):
            problem = problem._replace(query=embeddings[q], document=embeddings[d])
            gradients = Gradients(totals[q], totals[d], sums[-2] if ask_scale else None, sums[-1] if ask_bias else None)
            sums[number] = share(problem, scale, bias, buffers, gradients if differentiable else None)
        sums = sum_over_ranks(sums).to(scale.dtype)
        terms = sums[:-2]
        ctx.gradients = (sums[-2] if ask_scale else None, sums[-1] if ask_bias else None, totals)
        ctx.mark_non_differentiable(terms)
        return terms @ terms.new_tensor([problem.coefficient for problem in rest]), terms

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, _: Tensor):
        if ctx.gradients is None:
            raise RuntimeError(
                "The tiled loss can go backward once; call it again, or use tile=None, which keeps what it needs."
            )
        scale, bias, totals = ctx.gradients
        ctx.gradients = None
        for total in totals:
            if total is not None:
                total.mul_(gradient * world()[1])
        return *(None,) * 5, *(None if x is None else x * gradient for x in (scale, bias)), *totals
