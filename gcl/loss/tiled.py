"""The loss in O(N D) memory: each rank computes its rows of the similarities a block at a time, value and gradient.

S[N, N] = scale * query @ document.T + bias is never whole. One forward pass, all terms one after the other:

1. Gather. Embeddings come in through gather_rows: every rank holds all N rows of both sides and is responsible for its
   own contiguous share of the rows of S (own_rows).
2. Normalisers. The softmax form first goes over its blocks of S once to collect the log-sum-exp of every row and, over
   all ranks, of every column. The sigmoid form needs none: its entries do not depend on each other.
3. Blocks. For each block S[R, C]: similarities into a buffer -> this block's part of the loss -> G = dL/dS[R, C],
   written over the similarities.
4. Two products. G @ document[C] is added to the gradient of query[R], G.T @ query[R] to that of document[C]; the buffer
   is then free for the next block, so memory is two or three blocks, whatever N and the number of terms.
5. All-reduce. The terms' values and the gradients of scale and bias are summed over ranks in one exchange.
6. Backward. All gradients are there already; autograd's backward pass scales them by the gradient of the loss.

Making the gradient in the forward pass (as Gao et al. 2021 and Dao et al. 2022 recompute instead of keeping) leaves
nothing but gradients in memory between the passes, and puts all exchanges in one place and the same order on all ranks.
softmax.py and sigmoid.py hold steps 2 to 4 of their form, distill.py of a teacher, blocks.py the products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gcl.distributed.ranks import world
from gcl.loss.blocks import Buffers, Gradients, choose_tile, wide
from gcl.loss.distill import distill_share
from gcl.loss.gather import sum_over_ranks
from gcl.loss.settings import Form
from gcl.loss.sigmoid import sigmoid_share
from gcl.loss.softmax import softmax_share
from gcl.loss.terms import Problem


@torch.compiler.disable
def tiled_loss(problems: Sequence[Problem], *, scale: Tensor, bias: Tensor, tile: int | str) -> tuple[Tensor, Tensor]:
    """-> the sum of the terms with their coefficients, a scalar, and terms[T] without; both over all ranks.

    Gradients: those of scale and bias are complete on every rank; those of the embeddings are this rank's share times
    the number of ranks. Sum the latter over ranks (gather_rows does), take the mean of all parameters' gradients
    (DistributedDataParallel does), and every gradient is exact.
    """
    # Terms that share a part share its gradient: each distinct tensor is one input of the function below.
    embeddings: list[Tensor] = []
    places = [(_place(problem.query, embeddings), _place(problem.document, embeddings)) for problem in problems]
    return _TiledLoss.apply(tile, torch.is_grad_enabled(), problems, places, scale, bias, *embeddings)


def _place(x: Tensor, among: list[Tensor]) -> int:
    """The position of x among the tensors; it is appended if it is not there yet."""
    for place, other in enumerate(among):
        if x is other:
            return place
    among.append(x)
    return len(among) - 1


def _kernel(problem: Problem) -> tuple[Callable[..., Tensor], int]:
    """What computes a problem, and how many blocks it needs."""
    if problem.teacher is not None:
        return distill_share, 4
    return (softmax_share, 2) if problem.form == Form.softmax else (sigmoid_share, 3)


class _TiledLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tile: int | str,
        differentiable: bool,
        problems: Sequence[Problem],
        places: Sequence[tuple[int, int]],
        scale: Tensor,
        bias: Tensor,
        *embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        # Which inputs get a gradient: scale, bias and the embeddings come after four arguments that cannot.
        ask_scale, ask_bias, *ask = ctx.needs_input_grad[4:]
        side = choose_tile(tile, max(len(x) for x in embeddings), scale.device)
        # Buffers of one block, used again for every block of every term.
        shares, counts = zip(*(_kernel(problem) for problem in problems), strict=True)
        buffers = Buffers(side, like=embeddings[0], count=max(counts))
        # The value of each term, then the gradients of scale and bias: summed over ranks in one exchange.
        sums = torch.zeros(len(problems) + 2, dtype=wide(scale.device), device=scale.device)
        # One gradient per distinct tensor [N, D]: terms that share a part add to the same one.
        totals = [
            torch.zeros_like(x) if differentiable and asked else None for x, asked in zip(embeddings, ask, strict=True)
        ]
        # Steps 2 to 4, for this rank's rows of each term.
        for number, (problem, (q, d)) in enumerate(zip(problems, places, strict=True)):
            gradients = Gradients(totals[q], totals[d], sums[-2] if ask_scale else None, sums[-1] if ask_bias else None)
            sums[number] = shares[number](problem, scale, bias, buffers, gradients if differentiable else None)
        # Step 5. The embeddings' gradients stay shares: gather_rows sums them over ranks in its backward pass.
        sums = sum_over_ranks(sums).to(scale.dtype)
        terms = sums[:-2]
        ctx.gradients = (sums[-2] if ask_scale else None, sums[-1] if ask_bias else None, totals)
        ctx.mark_non_differentiable(terms)
        return terms @ terms.new_tensor([problem.coefficient for problem in problems]), terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError(
                "backward() can run only once for the tiled loss: compute the loss again, or use tile=None."
            )
        # Step 6. The gradients are handed out as they are, scaled in place, so they can be handed out only once.
        scale, bias, totals = ctx.gradients
        ctx.gradients = None
        for total in totals:
            if total is not None:
                total.mul_(gradient * world()[1])  # the ranks' mean divides by their number
        return *(None,) * 4, *(None if x is None else x * gradient for x in (scale, bias)), *totals
