"""From records to embeddings, the one way: validation during training, the final evaluation, search and export call
`embed`.

1. The key: a digest of everything the embeddings depend on. Found in the cache, they are mapped from it.
2. Otherwise the rows are cut into blocks of `batch_size` consecutive records. Ranks share the blocks, so every block
   has the same contents, and therefore its embeddings the same bits, on any number of ranks.
3. Each block is read, turned into tensors and embedded field by field: [n, F, D].
   With a cache, a number of blocks are a part, and each part is kept as soon as it is whole (see `parts`).
4. Every rank gets the others' blocks, and the cache the whole array: [M, F, D].
5. `FieldEmbeddings.fused` makes one vector of each record's fields, for any field weights: [M, D]. Where queries weigh
   a document's fields, `searched` keeps them apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from gcl.data.batches.batch import Features, ImageSets, RowsDataset, SideBatch, SideReader, cut
from gcl.data.batches.loader import Watch, WatchedLoader
from gcl.data.store.records import Records
from gcl.distributed.ranks import agree, fill_from_ranks, of_first_rank, share, world
from gcl.files.arrays import IN_MEMORY, Allocate, ArrayCache, blank
from gcl.files.progress import counted, several
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fingerprint import fingerprint, model_hash, records_hash
from gcl.model.fusion import fuse
from gcl.model.query_weights import QueryWeights
from gcl.retrieval.embedding.parts import PART_BATCHES, Parts
from gcl.schema import Field, SideName

_FORMAT = "gcl-embedding-3"
Weights = Mapping[str, float] | Sequence[float] | np.ndarray
"""Weights of a side's fields, by name or in field order."""

_FEWEST_BLOCKS = 16  # beyond which an embedding is long enough to be kept in parts
_FUSE_ROWS = 2048  # rows fused at once: bounds the memory of the intermediate


@dataclass(frozen=True)
class FieldEmbeddings:
    """embedding[M, F, D] float32 unit vectors (0 where absent), present[M, F] bool, and the fields they belong to.

    Arrays made of them are in memory up to `in_memory` bytes, beyond that in a nameless file in the folder `scratch`.
    by_query: of documents whose fields each query weighs, unless other weights are given.
    """

    embedding: np.ndarray
    present: np.ndarray
    side: Mapping[str, Field]
    scratch: Path | None = None
    in_memory: int = IN_MEMORY
    by_query: QueryWeights | None = None

    def __len__(self) -> int:
        return len(self.embedding)

    def gate(self, weights: Weights | None = None) -> QueryWeights | None:
        """What weighs the fields of these documents for each query: nothing where there are other weights."""
        return self.by_query if weights is None else None

    def searched(self, weights: Weights | None = None) -> np.ndarray:
        """What queries are compared with: [M, D], fused; or, where queries weigh the K fields, [M, K D]."""
        if (gate := self.gate(weights)) is None:
            return self.fused(weights)
        return self._made(gate.side_by_side, len(gate.fields) * self.embedding.shape[2])

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
        tensor = torch.tensor(weight, dtype=torch.float32)
        return self._made(lambda part, present: fuse(part, tensor, present), self.embedding.shape[2])

    def _made(self, make: Callable[[Tensor, Tensor], Tensor], width: int) -> np.ndarray:
        """[M, width] from the fields and what is present, a few rows at a time."""
        made = self._blank((len(self), width))
        for start in range(0, len(self), _FUSE_ROWS):
            rows = slice(start, start + _FUSE_ROWS)
            part = torch.from_numpy(np.array(self.embedding[rows]))
            made[rows] = make(part, torch.from_numpy(np.ascontiguousarray(self.present[rows]))).numpy()
        return made

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
    """How records are embedded, on the encoder's device. Only `batch_size` and `features` can change the result, and
    only by rounding."""

    batch_size: int = 64
    """Records of one block, the unit that is read, computed and shared among ranks."""
    workers: int = 0
    """Processes that read and decode; 0 reads in this one."""
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
    device = next(encoder.parameters()).device
    scratch = options.scratch or (None if options.cache is None else options.cache.folder)

    def key() -> str:
        return embedding_key(
            encoder, records, fields, block=options.batch_size, autocast=_computed_in(device),
            device=device.type, features=sorted(features),
        )  # fmt: skip

    def make(name: str, allocate: Allocate) -> np.ndarray:
        # Features and token caches belong to the whole store, of which `records` may be some rows.
        reader = SideReader(getattr(records, "store", records), fields, encoder.preprocess, features)
        rows, size = records.rows, options.batch_size
        dataset = RowsDataset(reader, [rows[start : start + size] for start in range(0, len(rows), size)])
        # What reads features is made again sooner than it is read.
        kept = None if features or len(dataset) <= _FEWEST_BLOCKS else options.cache
        step = size if kept is None else PART_BATCHES * size
        parts = Parts(name, [*range(0, len(rows), step), len(rows)], kept)
        made.append(parts)
        with evaluating(encoder), torch.inference_mode():
            return _embed_parts(encoder, dataset, side, device, allocate, parts, options)

    made: list[Parts] = []
    if options.cache is None:
        embedding = make("", _blank_in(scratch, options.in_memory))
    else:
        embedding = _through_cache(options.cache, len(records), key, make, options.in_memory)
        for parts in made if world()[0] == 0 else ():
            parts.forget()
    columns = [list(records.side).index(name) for name in fields]
    present = records.present(np.arange(len(records)))[:, columns]
    gate = getattr(encoder, "by_query", None) if side == "document" else None
    return FieldEmbeddings(embedding, present, fields, scratch, options.in_memory, gate)


def embedding_key(encoder: DualEncoder, records: Records | str, side: Mapping[str, Field], **arithmetic: Any) -> str:
    """The name of these embeddings: SHA-256 over the model, its preprocessing, the side's fields (modality, prompt),
    every record's content and the arithmetic. Weights of fields are applied after the fields are embedded, and no
    embedding depends on temperature and bias.

    records: the records, or a digest of their contents. arithmetic: what changes the last bits (block, type, device).
    """
    parts = [
        _FORMAT,
        torch.__version__,
        model_hash(encoder),
        fingerprint(encoder.preprocess, side),
        repr([(name, spec.kind, spec.prompt) for name, spec in side.items()]),
        records if isinstance(records, str) else records_hash(records, side),
        repr(sorted(arithmetic.items())),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _computed_in(device: torch.device) -> str:
    """The type of the matrix products, where a surrounding trainer has switched on another one."""
    return str(torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None)


def _blank_in(folder: Path | None, in_memory: int) -> Allocate:
    return lambda shape: blank(shape, folder=folder, in_memory=in_memory)


def _through_cache(
    cache: ArrayCache, rows: int, key: Callable[[], str], make: Callable[[str, Allocate], np.ndarray], in_memory: int
) -> np.ndarray:
    """What `make` returns for the name `key`, out of the cache if it is there, otherwise made and put there.

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
    name, hit = of_first_rank((name, embedding is not None))
    if not hit:
        # Every rank ends up with the whole array; the first one's is kept.
        if rank == 0:
            return cache.make(name, partial(make, name), in_memory=in_memory)
        return make(name, _blank_in(cache.folder, in_memory))
    if rank != 0:
        embedding = cache.load(name, rows)
    if embedding is None:
        error = FileNotFoundError(f"The cache {cache.folder} must be visible to every rank.")
    agree(error)
    assert embedding is not None
    return embedding


def _embed_parts(
    encoder: DualEncoder,
    dataset: RowsDataset,
    side: SideName,
    device: torch.device,
    allocate: Allocate,
    parts: Parts,
    options: EmbedOptions,
) -> np.ndarray:
    """embedding[M, F, D] of all parts; each rank reads or computes its share of them, every rank gets all."""
    rank, ranks = world()
    error = None
    embedding = np.empty(0, dtype=np.float32)
    try:
        embedding = allocate((parts.ends[-1], len(encoder.schema.side(side)), int(encoder.width)))
        missing = []
        for part in share(len(parts), rank, ranks):
            rows = parts.rows(part)
            if (kept := parts.load(part)) is not None:
                embedding[rows.start : rows.stop] = kept
            else:
                missing.append(rows)
        blocks = [start for rows in missing for start in range(rows.start, rows.stop, options.batch_size)]
        loader = WatchedLoader(
            dataset, batch_size=None, sampler=[start // options.batch_size for start in blocks],
            num_workers=min(options.workers, len(blocks)), collate_fn=unchanged, pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # or it draws from the training's randomness
        )  # fmt: skip
        what = "product" if side == "document" else "query"
        total = sum(map(len, missing))
        shown = counted(
            blocks, f"Embedding {several(what, total)}", shown=options.progress, total=total, unit=what,
            size=lambda start: min(options.batch_size, parts.ends[-1] - start),
        )  # fmt: skip
        with Watch(loader, dataset.place, what="Block", rank=rank):
            for start, batch in zip(shown, loader, strict=True):
                end = start
                for piece in cut(batch, options.batch_size):  # the whole block, unless it has more images of a set
                    fields = encoder.embed_fields(to_device(piece, device), side)  # [n, F, D]
                    embedding[end : end + len(fields)] = fields.float().cpu().numpy()
                    end += len(fields)
                parts.keep_until(end, embedding)
    except Exception as caught:
        error = caught
    agree(error)  # before any rank waits for the others' blocks
    shares = [share(len(parts), other, ranks) for other in range(ranks)]
    fill_from_ranks(embedding, [range(parts.ends[some.start], parts.ends[some.stop]) for some in shares])
    return embedding


@contextmanager
def evaluating(encoder: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every module is in the mode it was in (parts may be frozen in eval mode)."""
    modes = [(module, module.training) for module in encoder.modules()]
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
