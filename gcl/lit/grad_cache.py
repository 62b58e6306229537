"""From a side's batch to the parts that a loss compares, at once or in micro-batches with the gradient of the whole.

Micro-batches are GradCache (Gao, Zhang, Han and Callan 2021, https://arxiv.org/abs/2101.06983) as one autograd
function, so that memory is that of one micro-batch:

1. forward: note the random state and autocast, encode each micro-batch without a graph, keep its embeddings only;
2. the loss is computed on the embeddings of the whole batch, and autograd brings its gradient at each embedding back;
3. backward: for each micro-batch, put random state and autocast back, so that dropout drops the same, encode it once
   more, now with a graph and without moving batch statistics again, and differentiate (embeddings . their gradient)
   with respect to the parameters;
4. the micro-batches' gradients are added up and returned as those of the parameters.

The chain rule makes that the exact gradient: the loss reaches the parameters through the embeddings alone. To autograd
it is one operation on the parameters, so automatic optimisation, gradient accumulation and DistributedDataParallel
(which then synchronises once) need to know nothing of it. The price is a second forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from gcl.data.batches.batch import SideBatch, cut, size_of
from gcl.lit.sharded import is_sharded
from gcl.loss.settings import FUSED
from gcl.loss.terms import Part
from gcl.model.dual_encoder import DualEncoder
from gcl.model.query_weights import QueryWeights
from gcl.schema import SideName

T = TypeVar("T")
BY_QUERY = "weighed by the query"  # the part that a gate makes of each side


def encode_parts(
    encoder: DualEncoder, batch: SideBatch, side: SideName, names: Collection[str], *, micro_batch: int | None = None,
    weight: Tensor | None = None, gate: QueryWeights | None = None,
) -> dict[str, Part]:  # fmt: skip
    """{"fused" or a field's name: Part of [B, D]}. micro_batch: rows encoded at a time, and images of each set where
    those are more; None: all. weight: [F], the fields'; None: the schema's. gate: of BY_QUERY, [B, K D] without a
    gradient for the encoder."""
    embedding = _embed(encoder, batch, side, micro_batch)
    fields = list(encoder.schema.side(side))
    parts = {}
    for name in names:
        if name == FUSED:
            parts[name] = Part(encoder.fuse(embedding, batch.present, side, weight), None)
        elif name == BY_QUERY:
            assert gate is not None, "who names the part gives the gate"
            known = embedding.detach()
            if side == "query":
                parts[name] = Part(gate.spread(encoder.fuse(known, batch.present, side, weight)), None)
            else:
                parts[name] = Part(gate.side_by_side(known, batch.present), gate.has_all(batch.present))
        else:
            f = fields.index(name)
            parts[name] = Part(embedding[:, f], batch.present[:, f])
    return parts


def _embed(encoder: DualEncoder, batch: SideBatch, side: SideName, micro_batch: int | None) -> Tensor:
    """[B, F, D] field embeddings."""
    if micro_batch is None or micro_batch >= size_of(batch):
        return encoder.embed_fields(batch, side)
    # Every tower of the side, whether this batch has something for it or not: the same on every rank.
    modalities = dict.fromkeys(field.modality for field in encoder.schema.side(side).values())
    towers = [tower for modality in modalities if (tower := encoder.tower(modality)) is not None]
    parameters = [parameter for tower in towers for parameter in tower.parameters()]
    sharded = any(map(is_sharded, parameters))
    chunks = cut(batch, micro_batch, by_rows=sharded)

    def encode(chunk: SideBatch) -> Tensor:
        with _statistics_stay(encoder) if torch.is_grad_enabled() else nullcontext():  # the second pass has a graph
            return encoder.embed_fields(chunk, side)

    return encode_chunked(encode, chunks, parameters, sharded=sharded)


@contextmanager
def _statistics_stay(encoder: DualEncoder) -> Iterator[None]:
    """Layers with running statistics use the batch's own and keep theirs as they are."""
    moving = [m for m in encoder.modules() if m.training and getattr(m, "track_running_stats", False)]
    for module in moving:
        vars(module)["track_running_stats"] = False
    try:
        yield
    finally:
        for module in moving:
            vars(module)["track_running_stats"] = True


def encode_chunked(
    encode: Callable[[T], Tensor],
    chunks: Sequence[T],
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
    trained: list[Tensor] = [parameter for parameter in parameters if parameter.requires_grad]
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
def _again(before: _Before) -> Iterator[None]:
    devices = [] if before.cuda is None else [torch.cuda.current_device()]
    with torch.random.fork_rng(devices=devices), torch.autocast(**before.autocast):
        torch.set_rng_state(before.cpu)
        if before.cuda is not None:
            torch.cuda.set_rng_state(before.cuda)
        yield


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, encode: Callable[[Any], Tensor], chunks: Sequence[Any], sharded: bool, *parameters: Tensor
    ) -> Tensor:
        device_type = parameters[0].device.type if parameters else "cpu"
        ctx.sharded = sharded
        ctx.encode, ctx.chunks, ctx.before, ctx.sizes = encode, chunks, [], []
        ctx.save_for_backward(*parameters)
        embeddings = []
        # Step 1. An autograd function runs forward without a graph, so nothing of a chunk is kept but its embeddings.
        for chunk in chunks:
            before = _now(device_type)
            ctx.before.append(before)
            with torch.autocast(**before.autocast):
                embeddings.append(encode(chunk))
            ctx.sizes.append(len(embeddings[-1]))
        return torch.cat(embeddings)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # Step 2 has happened: `gradient` is that of the loss at every embedding of the batch.
        parameters = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * len(parameters)
        pieces = zip(ctx.chunks, gradient.split(ctx.sizes), ctx.before, strict=True)
        for chunk, piece, before in pieces:
            # Step 3: the same embeddings once more, now with a graph, which lives until the next chunk's.
            with torch.enable_grad(), _again(before):
                embedding = ctx.encode(chunk)
            if not embedding.requires_grad:
                continue
            if ctx.sharded:  # FSDP adds the gradient up at the shards themselves
                embedding.backward(piece)
                continue
            # Step 4. A parameter that this chunk did not use has no gradient, which is not one of zeros.
            gradients = torch.autograd.grad(embedding, parameters, piece, allow_unused=True)
            for place, part in enumerate(gradients):
                if part is not None:
                    # Not in place: two weights that are added to each other get one tensor as their gradients.
                    total = totals[place]
                    totals[place] = part if total is None else total + part
        if ctx.sharded:
            return None, None, None, *(None for _ in parameters)
        # Zeros, not None: every rank must give DistributedDataParallel every gradient.
        filled = [torch.zeros_like(p) if total is None else total for p, total in zip(parameters, totals, strict=True)]
        return None, None, None, *filled
