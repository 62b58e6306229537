"""From a side's batch to the parts a loss compares, whole or a micro-batch at a time."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from gcl.data.batches.batch import Features, SideBatch
from gcl.lit.grad_cache import encode_chunked
from gcl.lit.sharded import is_sharded
from gcl.loss.gcl import Part
from gcl.model.dual_encoder import DualEncoder


def encode_parts(
    encoder: DualEncoder, batch: SideBatch, side: str, names: Collection[str], *, micro_batch: int | None = None
) -> dict[str, Part]:
    """{"fused" or a field's name: Part of [B, D]}. With micro_batch, memory is what one micro-batch needs."""
    embedding = _embed(encoder, batch, side, micro_batch)
    fields = list(encoder.schema.side(side))
    parts = {}
    for name in names:
        if name == "fused":
            parts[name] = Part(encoder.fuse(embedding, batch.present, side), None)
        else:
            f = fields.index(name)
            parts[name] = Part(embedding[:, f], batch.present[:, f])
    return parts


def _embed(encoder: DualEncoder, batch: SideBatch, side: str, micro_batch: int | None) -> Tensor:
    """[B, F, D] field embeddings."""
    rows = len(batch.present)
    if micro_batch is None or micro_batch >= rows:
        return encoder.embed_fields(batch, side)
    chunks = [rows_of(batch, start, start + micro_batch) for start in range(0, rows, micro_batch)]
    # Every tower of the side, whether this batch has something for it or not: the same on every rank.
    modalities = dict.fromkeys(field.modality for field in encoder.schema.side(side).values())
    parameters = [p for modality in modalities for p in encoder.tower(modality).parameters()]
    sharded = any(map(is_sharded, parameters))
    return encode_chunked(lambda chunk: encoder.embed_fields(chunk, side), chunks, parameters, sharded=sharded)


def rows_of(batch: SideBatch, start: int, stop: int) -> SideBatch:
    """Rows start … stop - 1 of a side's batch."""
    fields = {
        name: Features(value.value[start:stop]) if isinstance(value, Features) else value[start:stop]
        for name, value in batch.fields.items()
    }
    return SideBatch(fields, batch.present[start:stop])
