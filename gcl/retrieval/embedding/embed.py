"""The one path from records to embeddings: validation while training, the final evaluation and export all call `embed`.

Rows are embedded in fixed blocks of `batch_size` consecutive records. Ranks share the blocks, so every block has the
same contents, and therefore the same bits, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from gcl.data.batches.batch import Features, RowsDataset, SideBatch, SideReader
from gcl.data.batches.loader import Watch, WatchedLoader
from gcl.data.store.records import Records
from gcl.distributed.ranks import agree, fill_from_ranks, share, world
from gcl.model.fusion import fuse
from gcl.retrieval.embedding import cache as cached
from gcl.retrieval.embedding.cache import Allocate, Cache
from gcl.retrieval.embedding.memmap import IN_MEMORY, blank
from gcl.schema import Field, SideName

_FUSE_ROWS = 2048  # rows fused at once: bounds the memory of the intermediate


@dataclass(frozen=True)
class FieldEmbeddings:
    """embedding[M, F, D] float32 unit vectors (0 where absent), present[M, F] bool, and the fields they belong to.

    What is made of them lies in memory up to `in_memory` bytes, beyond that in a nameless file of the folder `scratch`.
    """

    embedding: np.ndarray
    present: np.ndarray
    side: Mapping[str, Field]
    scratch: Path | None = None
    in_memory: int = IN_MEMORY

    def __len__(self) -> int:
        return len(self.embedding)

    def fused(self, weights: Mapping[str, float] | Sequence[float] | None = None) -> np.ndarray:
        """[M, D] unit vectors. weights: by field name or in field order; absent, the schema's.

        Raises ValueError for a record without a field of positive weight, and for weights of unknown fields.
        """
        weight = field_weights(self.side, weights)
        empty = np.flatnonzero((self.present * weight).sum(axis=1) <= 0)
        if len(empty):
            raise ValueError(
                f"{len(empty)} of {len(self)} records have no field of positive weight, the first is row {empty[0]}: "
                f"give a weight to a field they have (weights: {dict(zip(self.side, weight.tolist(), strict=True))})."
            )
        fused = self._blank((len(self), self.embedding.shape[2]))
        tensor = torch.tensor(weight, dtype=torch.float32)
        for start in range(0, len(self), _FUSE_ROWS):
            rows = slice(start, start + _FUSE_ROWS)
            part = torch.from_numpy(np.array(self.embedding[rows]))
            fused[rows] = fuse(part, tensor, torch.from_numpy(np.ascontiguousarray(self.present[rows]))).numpy()
        return fused

    def take(self, rows: np.ndarray) -> FieldEmbeddings:
        """Some of the rows, in the order given."""
        taken = self._blank((len(rows), *self.embedding.shape[1:]))
        for start in range(0, len(rows), _FUSE_ROWS):
            taken[start : start + _FUSE_ROWS] = self.embedding[rows[start : start + _FUSE_ROWS]]
        return replace(self, embedding=taken, present=self.present[rows])

    def _blank(self, shape: tuple[int, ...]) -> np.ndarray:
        return blank(shape, folder=self.scratch, in_memory=self.in_memory)


def field_weights(side: Mapping[str, Field], weights: Mapping[str, float] | Sequence[float] | None) -> np.ndarray:
    """[F] in field order; a mapping leaves out the fields it does not name (weight 0)."""
    if weights is None:
        return np.array([spec.weight for spec in side.values()], dtype=np.float32)
    if isinstance(weights, Mapping):
        unknown = [name for name in weights if name not in side]
        if unknown:
            raise ValueError(f"There is no field {unknown[0]!r} to weight; fields: {', '.join(side)}.")
        return np.array([weights.get(name, 0.0) for name in side], dtype=np.float32)
    if len(weights) != len(side):
        raise ValueError(f"{len(weights)} weights for the {len(side)} fields {', '.join(side)}: give one each.")
    return np.asarray(weights, dtype=np.float32)


@runtime_checkable
class EmbedsRecords(Protocol):
    """What brings embeddings instead of making them (`given.GivenEmbeddings`)."""

    def embed_records(self, records: Records, side: SideName) -> FieldEmbeddings: ...


def embed(
    encoder: nn.Module | EmbedsRecords,
    records: Records,
    side: SideName,
    *,
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str | None = None,
    features: Mapping[str, np.ndarray] | None = None,
    autocast: torch.dtype | None = None,
    cache: Cache | str | Path | None = None,
    scratch: str | Path | None = None,
    in_memory: int = IN_MEMORY,
    progress: bool = False,
) -> FieldEmbeddings:
    """Embeds every field of every record.

    encoder: has `schema`, `preprocess`, `width` and `embed_fields(SideBatch, side) -> [B, F, D]` (a DualEncoder).
        It is put into eval mode and back, and moved to `device` if one is given. Or embeddings that are there already,
        of which the records' are taken and everything below is left aside.
    features: cached outputs of frozen trunks by field, one row a record of the whole store.
    autocast: compute in this type; the result is float32 in any case.
    cache: a folder to keep embeddings in, by content (see `cache`).
    scratch: where embeddings of more than `in_memory` bytes are mapped from that are not kept; by default the cache's
        folder or the system's own for temporary files. They are never in memory as a whole.
    """
    if isinstance(encoder, EmbedsRecords):
        return encoder.embed_records(records, side)
    fields = encoder.schema.side(side)
    target = torch.device(device) if device is not None else next(encoder.parameters()).device
    # Features and token caches belong to the whole store, of which `records` may be some rows.
    store, rows = getattr(records, "store", records), records.rows
    context = torch.autocast(target.type, dtype=autocast) if autocast is not None else nullcontext()

    cache = Cache(Path(cache)) if isinstance(cache, (str, Path)) else cache
    scratch = Path(scratch) if scratch is not None else cache.folder if cache is not None else None

    def make(allocate: Allocate) -> tuple[np.ndarray, np.ndarray]:
        reader = SideReader(store, fields, encoder.preprocess, features)
        blocks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        with evaluating(encoder, target), torch.inference_mode(), context:
            return _embed_blocks(
                encoder, RowsDataset(reader, blocks), side, target, allocate, workers=workers, progress=progress
            )

    def key() -> str:
        return cached.embedding_key(
            encoder, records, fields, block=batch_size, autocast=_computed_in(target, autocast), device=target.type,
            features=sorted(features or {}),
        )  # fmt: skip

    if cache is None:
        found = make(lambda shape: blank(shape, folder=scratch, in_memory=in_memory))
    else:
        found = cached.kept(cache, len(rows), key, make, in_memory=in_memory)
    return FieldEmbeddings(*found, fields, scratch, in_memory)


def _computed_in(device: torch.device, autocast: torch.dtype | None) -> str:
    """The type of the matrix products: what is asked for, or what a trainer around us has switched on."""
    if autocast is None and torch.is_autocast_enabled(device.type):
        autocast = torch.get_autocast_dtype(device.type)
    return str(autocast)


def _embed_blocks(
    encoder: nn.Module, dataset: RowsDataset, side: SideName, device: torch.device, allocate: Allocate, *,
    workers: int, progress: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """embedding[M, F, D], present[M, F] of all blocks; each rank computes its share of them, every rank gets all."""
    rank, ranks = world()
    ends = np.cumsum([0] + [len(rows) for rows in dataset.row_blocks]).tolist()
    fields = len(encoder.schema.side(side))
    present = np.zeros((ends[-1], fields), dtype=bool)
    mine, error = share(len(dataset), rank, ranks), None
    embedding = np.empty(0, dtype=np.float32)
    try:
        embedding = allocate((ends[-1], fields, int(encoder.width)))
        loader = WatchedLoader(
            dataset, batch_size=None, sampler=list(mine), num_workers=min(workers, len(mine)), collate_fn=_as_it_is,
            pin_memory=device.type == "cuda", generator=torch.Generator(),  # or it draws from the training's randomness
        )  # fmt: skip
        with Watch(loader, dataset.place, what="Block", rank=rank):
            for block, batch in zip(_counted(mine, progress and rank == 0, side), loader, strict=True):
                rows = slice(ends[block], ends[block + 1])
                embedding[rows] = encoder.embed_fields(to_device(batch, device), side).float().cpu().numpy()
                present[rows] = batch.present.numpy()
    except Exception as caught:
        error = caught
    agree(error)
    shares = [share(len(dataset), other, ranks) for other in range(ranks)]
    owned = [range(ends[blocks.start], ends[blocks.stop]) for blocks in shares]
    fill_from_ranks(embedding, owned)
    fill_from_ranks(present.view(np.uint8), owned)
    return embedding, present


@contextmanager
def evaluating(encoder: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode on `device`; afterwards every module is in the mode it was in (parts may be frozen in eval mode)."""
    modes = [(module, module.training) for module in encoder.modules()]
    if next(encoder.parameters()).device != device:  # a sharded model must not be touched: .to() would shard it again
        encoder.to(device)
    encoder.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def to_device(batch: SideBatch, device: torch.device) -> SideBatch:
    """A side's batch on another device; `present` follows its values."""
    if device.type == "cpu":
        return batch
    fields = {
        name: Features(value.value.to(device, non_blocking=True))
        if isinstance(value, Features)
        else value.to(device, non_blocking=True)
        for name, value in batch.fields.items()
    }
    return SideBatch(fields, batch.present.to(device, non_blocking=True))


def _as_it_is(batch: SideBatch) -> SideBatch:
    return batch


def _counted(blocks: range, progress: bool, side: str) -> Iterator[int]:
    if not progress:
        yield from blocks
        return
    from tqdm import tqdm

    yield from tqdm(blocks, desc=f"embedding, {side}", unit="block")
