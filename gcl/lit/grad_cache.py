"""Encode a batch in micro-batches: memory of one micro-batch, gradient of the whole batch.

The two passes of GradCache (Gao, Zhang, Han and Callan 2021, https://arxiv.org/abs/2101.06983) as one autograd
function: forward without a graph, and in the backward pass each micro-batch once more with one, against the gradient
that the loss left at its embeddings. To autograd it is one operation on the parameters, so automatic optimisation,
gradient accumulation and DistributedDataParallel (which then synchronises once) need to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


def encode_chunked(
    encode: Callable[[Any], Tensor],
    chunks: Sequence[Any],
    parameters: Sequence[nn.Parameter],
    *,
    sharded: bool = False,
) -> Tensor:
    """cat([encode(chunk) for chunk in chunks]) with the memory of one chunk.

    encode: a pure function of its chunk, the parameters and the random state (dropout draws the same twice).
    parameters: all that may get a gradient through it. sharded: they are FSDP's, which whole weights stand in for while
    they compute: their gradient is then added up where it belongs, at each chunk, by FSDP itself. Every rank must then
    have as many chunks.

    >>> layer = nn.Linear(2, 3)
    >>> x = torch.randn(5, 2)
    >>> encode_chunked(layer, x.split(2), list(layer.parameters())).shape
    torch.Size([5, 3])
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if sharded and trained:
        trained = [torch.zeros((), device=trained[0].device, requires_grad=True)]  # only leads the backward pass here
    return _Chunked.apply(encode, chunks, sharded, *trained)


class _Before(NamedTuple):
    """What a second pass needs to repeat the first: the random state and autocast as they were."""

    cpu: Tensor
    cuda: Tensor | None
    autocast: dict[str, Any]


def _now(device_type: str) -> _Before:
    return _Before(
        torch.get_rng_state(),
        torch.cuda.get_rng_state() if device_type == "cuda" else None,
        {
            "device_type": device_type,
            "enabled": torch.is_autocast_enabled(device_type),
            "dtype": torch.get_autocast_dtype(device_type),
            # A weight cast while no graph is recorded must not be reused where one is.
            "cache_enabled": False,
        },
    )


@contextmanager
def _again(before: _Before):
    devices = [] if before.cuda is None else [torch.cuda.current_device()]
    with torch.random.fork_rng(devices=devices), torch.autocast(**before.autocast):
        torch.set_rng_state(before.cpu)
        if before.cuda is not None:
            torch.cuda.set_rng_state(before.cuda)
        yield


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, encode: Callable[[Any], Tensor], chunks: Sequence[Any], sharded: bool, *parameters: Tensor
    ) -> Tensor:
        device_type = parameters[0].device.type if parameters else "cpu"
        ctx.sharded = sharded
        ctx.encode, ctx.chunks, ctx.before, ctx.sizes = encode, chunks, [], []
        ctx.save_for_backward(*parameters)
        embeddings = []
        for chunk in chunks:
            before = _now(device_type)
            ctx.before.append(before)
            with torch.autocast(**before.autocast):
                embeddings.append(encode(chunk))
            ctx.sizes.append(len(embeddings[-1]))
        return torch.cat(embeddings)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        parameters = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * len(parameters)
        pieces = zip(ctx.chunks, gradient.split(ctx.sizes), ctx.before, strict=True)
        for chunk, piece, before in pieces:
            with torch.enable_grad(), _again(before):
                embedding = ctx.encode(chunk)
            if not embedding.requires_grad:
                continue
            if ctx.sharded:
                embedding.backward(piece)
                continue
            found = torch.autograd.grad(embedding, parameters, piece, allow_unused=True)
            for place, part in enumerate(found):
                if part is not None:
                    # Not in place: two weights that are added to each other get one tensor as their gradients.
                    totals[place] = part if totals[place] is None else totals[place] + part
        if ctx.sharded:
            return None, None, None, *(None for _ in parameters)
        # Zeros, not None: every rank must give DistributedDataParallel every gradient.
        filled = [torch.zeros_like(p) if total is None else total for p, total in zip(parameters, totals, strict=True)]
        return None, None, None, *filled
