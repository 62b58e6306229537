"""From records to embeddings, the one way: validation during training, the final evaluation, search and export call
`embed`.

1. The key: a digest of everything the embeddings depend on. Found in the cache, they are mapped from it.
2. Otherwise the rows are cut into blocks of `batch_size` consecutive records. Ranks share the blocks, so every block
   has the same contents, and therefore its embeddings the same bits, on any number of ranks.
3. Each block is read, turned into tensors and embedded field by field: [n, F, D].
4. Every rank gets the others' blocks, and the cache the whole array: [M, F, D].
5. `FieldEmbeddings.fused` makes one vector of each record's fields, for any field weights: [M, D].
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from gcl.data.batches.batch import Features, ImageSets, RowsDataset, SideBatch, SideReader, cut
from gcl.data.batches.loader import Watch, WatchedLoader
from gcl.data.store.records import Records
from gcl.distributed.ranks import agree, fill_from_ranks, gather_objects, share, world
from gcl.files.arrays import IN_MEMORY, Allocate, ArrayCache, blank
from gcl.files.progress import counted, several
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fingerprint import fingerprint, model_hash, records_hash
from gcl.model.fusion import fuse
from gcl.schema import Field, SideName

_FORMAT = "gcl-embedding-3"
Weights = Mapping[str, float] | Sequence[float] | np.ndarray
"""Weights of a side's fields, by name or in field order."""

_FUSE_ROWS = 2048  # rows fused at once: bounds the memory of the intermediate


@dataclass(frozen=True)
class FieldEmbeddings:
    """embedding[M, F, D] float32 unit vectors (0 where absent), present[M, F] bool, and the fields they belong to.

    Arrays made of them are in memory up to `in_memory` bytes, beyond that in a nameless file in the folder `scratch`.
    """

    embedding: np.ndarray
    present: np.ndarray
    side: Mapping[str, Field]
    scratch: Path | None = None
    in_memory: int = IN_MEMORY

    def __len__(self) -> int:
        return len(self.embedding)

    def fused(self, weights: Weights | None = None) -> np.ndarray:
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

    def without(self, fields: Iterable[str]) -> FieldEmbeddings:
        """The same records as if they lacked these fields; nothing is copied but `present`."""
        hidden = set(fields)
        return replace(self, present=self.present & [name not in hidden for name in self.side]) if hidden else self

    def _blank(self, shape: tuple[int, ...]) -> np.ndarray:
        return blank(shape, folder=self.scratch, in_memory=self.in_memory)


def field_weights(side: Mapping[str, Field], weights: Weights | None) -> np.ndarray:
    """[F] in field order; a mapping leaves out the fields it does not name (weight 0)."""
    if weights is None:
        return np.array([spec.weight for spec in side.values()], dtype=np.float32)
    if isinstance(weights, Mapping):
        unknown = [name for name in weights if name not in side]
        if unknown:
            raise ValueError(f"There is no field {unknown[0]!r} to give a weight; the fields are {', '.join(side)}.")
        return np.array([weights.get(name, 0.0) for name in side], dtype=np.float32)
    if len(weights) != len(side):
        raise ValueError(
            f"{len(weights)} weights for the {len(side)} fields {', '.join(side)}: give one weight per field."
        )
    return np.asarray(weights, dtype=np.float32)


@dataclass(frozen=True)
class EmbedOptions:
    """How records are embedded. Only `batch_size`, `device`, `autocast` and `features` can change the result, and only
    by rounding."""

    batch_size: int = 64
    """Records of one block, the unit that is read, computed and shared among ranks."""
    workers: int = 0
    """Processes that read and decode; 0 reads in this one."""
    device: torch.device | str | None = None
    """Where to compute; the encoder is moved there. None: where the encoder is."""
    autocast: torch.dtype | None = None
    """Type of the matrix products; None: as they come. The embeddings are float32 in any case."""
    features: Mapping[SideName, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """{side: {field: a frozen trunk's cached output [rows, E], one row per record of the whole store}}."""
    cache: ArrayCache | None = None
    """Where embeddings are kept, by content; None keeps nothing."""
    scratch: Path | None = None
    """Folder from which embeddings that are not kept are mapped if they have more than `in_memory` bytes, so that they
    never are in memory as a whole. None: the cache's folder, or the system's for temporary files."""
    in_memory: int = IN_MEMORY
    """Bytes of the largest array that is held in memory."""
    progress: bool = True
    """Whether it is shown how far a long job is."""


DEFAULTS = EmbedOptions()


@runtime_checkable
class EmbedsRecords(Protocol):
    """What brings embeddings instead of computing them (`precomputed.PrecomputedEmbeddings`)."""

    def embed_records(self, records: Records, side: SideName) -> FieldEmbeddings: ...


def embed(
    encoder: DualEncoder | EmbedsRecords, records: Records, side: SideName, options: EmbedOptions = DEFAULTS
) -> FieldEmbeddings:
    """Embeds every field of every record.

    encoder: a DualEncoder, or a module that has its `schema`, `preprocess`, `width` and `embed_fields`. It is put into
        eval mode and back. Of what brings embeddings the records' are taken, and no option applies.
    """
    if isinstance(encoder, EmbedsRecords):
        return encoder.embed_records(records, side)
    fields, features = encoder.schema.side(side), options.features.get(side, {})
    device = torch.device(options.device or next(encoder.parameters()).device)
    scratch = options.scratch or (None if options.cache is None else options.cache.folder)

    def key() -> str:
        return embedding_key(
            encoder, records, fields, block=options.batch_size, autocast=_computed_in(device, options.autocast),
            device=device.type, features=sorted(features),
        )  # fmt: skip

    def make(allocate: Allocate) -> np.ndarray:
        # Features and token caches belong to the whole store, of which `records` may be some rows.
        reader = SideReader(getattr(records, "store", records), fields, encoder.preprocess, features)
        rows, size = records.rows, options.batch_size
        dataset = RowsDataset(reader, [rows[start : start + size] for start in range(0, len(rows), size)])
        context = nullcontext() if options.autocast is None else torch.autocast(device.type, dtype=options.autocast)
        with evaluating(encoder, device), torch.inference_mode(), context:
            return _embed_blocks(encoder, dataset, side, device, allocate, options)

    if options.cache is None:
        embedding = make(_blank_in(scratch, options.in_memory))
    else:
        embedding = _through_cache(options.cache, len(records), key, make, options.in_memory)
    columns = [list(records.side).index(name) for name in fields]
    present = records.present(np.arange(len(records)))[:, columns]
    return FieldEmbeddings(embedding, present, fields, scratch, options.in_memory)


def embedding_key(encoder: DualEncoder, records: Records, side: Mapping[str, Field], **arithmetic: Any) -> str:
    """The name of these embeddings: SHA-256 over the model, its preprocessing, the side's fields (modality, prompt),
    every record's content and the arithmetic. Weights of fields are applied after the fields are embedded, and no
    embedding depends on temperature and bias.

    arithmetic: what changes the last bits (block, type, device).
    """
    parts = [
        _FORMAT,
        torch.__version__,
        model_hash(encoder),
        fingerprint(encoder.preprocess, side),
        repr([(name, spec.kind, spec.prompt) for name, spec in side.items()]),
        records_hash(records, side),
        repr(sorted(arithmetic.items())),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _computed_in(device: torch.device, autocast: torch.dtype | None) -> str:
    """The type of the matrix products: the one asked for, or the one that a surrounding trainer has switched on."""
    if autocast is None and torch.is_autocast_enabled(device.type):
        autocast = torch.get_autocast_dtype(device.type)
    return str(autocast)


def _blank_in(folder: Path | None, in_memory: int) -> Allocate:
    return lambda shape: blank(shape, folder=folder, in_memory=in_memory)


def _through_cache(
    cache: ArrayCache, rows: int, key: Callable[[], str], make: Callable[[Allocate], np.ndarray], in_memory: int
) -> np.ndarray:
    """What `make` returns, out of the cache if it is there, otherwise made and put there.

    Ranks decide together: the first one looks, and either all of them load or all take part in making.
    """
    rank, _ = world()
    name, embedding, error = "", None, None
    if rank == 0:
        try:
            name = key()
            embedding = cache.load(name, rows)
        except Exception as caught:
            error = caught
    agree(error)
    name, hit = gather_objects((name, embedding is not None))[0]
    if not hit:
        # Every rank ends up with the whole array; the first one's is kept.
        return cache.make(name, make, in_memory=in_memory) if rank == 0 else make(_blank_in(cache.folder, in_memory))
    if rank != 0:
        embedding = cache.load(name, rows)
    if embedding is None:
        error = FileNotFoundError(f"The cache {cache.folder} must be visible to every rank.")
    agree(error)
    assert embedding is not None
    return embedding


def _embed_blocks(
    encoder: DualEncoder,
    dataset: RowsDataset,
    side: SideName,
    device: torch.device,
    allocate: Allocate,
    options: EmbedOptions,
) -> np.ndarray:
    """embedding[M, F, D] of all blocks; each rank computes its share of them, every rank gets all."""
    rank, ranks = world()
    ends = np.cumsum([0] + [len(rows) for rows in dataset.row_blocks]).tolist()
    mine, error = share(len(dataset), rank, ranks), None
    embedding = np.empty(0, dtype=np.float32)
    try:
        embedding = allocate((ends[-1], len(encoder.schema.side(side)), int(encoder.width)))
        loader = WatchedLoader(
            dataset, batch_size=None, sampler=list(mine), num_workers=min(options.workers, len(mine)),
            collate_fn=unchanged, pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # or it draws from the training's randomness
        )  # fmt: skip
        what = "product" if side == "document" else "query"
        total = ends[mine.stop] - ends[mine.start]
        shown = counted(
            mine, f"Embedding {several(what, total)}", shown=options.progress, total=total, unit=what,
            size=lambda block: ends[block + 1] - ends[block],
        )  # fmt: skip
        with Watch(loader, dataset.place, what="Block", rank=rank):
            for block, batch in zip(shown, loader, strict=True):
                start = ends[block]
                for piece in cut(batch, options.batch_size):  # the whole block, unless it has more images of a set
                    fields = encoder.embed_fields(to_device(piece, device), side)  # [n, F, D]
                    embedding[start : start + len(fields)] = fields.float().cpu().numpy()
                    start += len(fields)
    except Exception as caught:
        error = caught
    agree(error)  # before any rank waits for the others' blocks
    shares = [share(len(dataset), other, ranks) for other in range(ranks)]
    fill_from_ranks(embedding, [range(ends[blocks.start], ends[blocks.stop]) for blocks in shares])
    return embedding


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

    def moved(value: Tensor | Features) -> Tensor | Features:
        if isinstance(value, Features):
            return Features(value.value.to(device, non_blocking=True))
        return value.to(device, non_blocking=True)

    fields = {
        name: ImageSets(moved(value.value), value.row.to(device, non_blocking=True))
        if isinstance(value, ImageSets)
        else moved(value)
        for name, value in batch.fields.items()
    }
    return SideBatch(fields, batch.present.to(device, non_blocking=True))


Batch = TypeVar("Batch")


def unchanged(batch: Batch) -> Batch:
    """For a DataLoader whose dataset makes whole batches."""
    return batch
