"""A run on paper: what each of W processes reads, holds, sends and takes for one step of a plan (trainer=dry). Of one
process it is what the doctor expects of a run.

1. The plan and the shares of its batches are the run's own (gcl/data/batches), so what a process reads is counted.
2. Bytes of activations for a row are measured on a few rows of the first batch, the loss's memory and traffic follow
   from its formulas (gcl/loss/footprint.py), the weights' from their number.
3. Seconds are those of a few rows, and of a small loss, on this machine, times their number.

No step is taken, no optimiser is made, and the run folder is neither made nor touched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from gcl.config.schema import RunConfig
from gcl.data.batches.batch import PairBatch, PairDataset, SideBatch, SideReader, cut, share, size_of
from gcl.data.batches.order import BatchOrder
from gcl.data.store.prepared import Prepared
from gcl.errors import ConfigError
from gcl.files.progress import duration
from gcl.lit.auto_micro_batch import saved_bytes, unchanged
from gcl.lit.settings import DryConfig
from gcl.loss.blocks import choose_tile
from gcl.loss.footprint import Footprint, footprint, gradient_traffic
from gcl.loss.gcl import GCLLoss
from gcl.loss.terms import Part
from gcl.loss.weight import constant
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.embedding.embed import to_device
from gcl.run import build as assembly
from gcl.run.contestants import device_of
from gcl.schema import SIDES, SideName
from gcl.table import Table, Value

_READ = 64  # rows of each side that are read, or few more
_PROBE = 8  # of these, encoded to be measured
_PAIRS = 1024  # of the loss that is measured
_STEPS = 200  # whose shards are counted


class Encoding(NamedTuple):
    """One side of one process's share: rows, or images of sets where those are more; bytes of activations, whatever the
    rows and for each; seconds for each, forward and with the gradient."""

    rows: int
    fixed: float
    row: float
    forward: float
    both: float


@dataclass(frozen=True)
class OnPaper:
    """Of one process and one step, in bytes and seconds. memory, network, time: {what: amount}. fits: the most rows of
    a micro-batch for which the memory is enough, as a power of two; None: all rows at once."""

    world: int
    micro_batch: int | None
    fits: int | None
    read: list[tuple[str, Value]]
    memory: Mapping[str, float]
    network: Mapping[str, float]
    time: Mapping[str, float]
    device: str

    @property
    def held(self) -> float:
        """Bytes in all."""
        return sum(self.memory.values())

    def table(self, limit: float) -> Table:
        """limit: bytes of memory that each process has."""
        rows: list[list[Value]] = [["reads", *pair] for pair in self.read]
        for kind, amounts, shown in (
            ("holds", self.memory, lambda size: f"{size / 1e9:.2f} GB"),
            ("receives", self.network, lambda size: f"{size / 1e9:.3f} GB"),
            ("takes", self.time, duration),
        ):
            rows += [[kind, name, shown(amount)] for name, amount in amounts.items()]
            rows.append([kind, "in all", shown(sum(amounts.values()))])
            rows += [["holds", "of", shown(limit)]] if amounts is self.memory else []
        micro = "all rows at once" if self.micro_batch is None else f"micro-batches of {self.micro_batch} rows"
        notes = [
            f"Times are those of this machine's {self.device}, one thing after the other: where the network works "
            "while gradients are computed, a step is shorter. The optimiser's own time is left out.",
            "Frozen towers count as if they were computed in every step; with train.cache_features they are not.",
        ]
        title = f"On paper, one step of one of {self.world:,} processes, {micro}"
        return Table(["", "what", "how much"], rows, title, align="lll", notes=notes, grouped=True)

    def check(self, limit: float) -> None:
        """Raises ConfigError where the memory does not hold it."""
        largest = max(self.memory, key=self.memory.__getitem__)
        if self.held > limit:
            raise ConfigError(
                f"A step does not fit: each process would hold {self.held / 1e9:.1f} GB, and trainer.dry.memory_gb is "
                f"{limit / 1e9:g}. Most of it, {self.memory[largest] / 1e9:.1f} GB, is {largest}: {_ADVICE[largest]}."
            )


_WEIGHTS, _ACTIVATIONS, _LOSS, _BLOCKS = (
    "weights, gradients and optimiser", "activations", "embeddings of all processes", "blocks of similarities"
)  # fmt: skip
_ADVICE = {
    _WEIGHTS: "trainer=fsdp shares them among the GPUs, model.lora.rank=8 trains fewer",
    _ACTIVATIONS: "give a smaller train.micro_batch, or auto",
    _LOSS: "give a smaller train.batch_size, or fewer loss.terms",
    _BLOCKS: "give loss.tile=auto, or a smaller number",
}


def on_paper(
    config: RunConfig, dry: DryConfig, prepared: Prepared, *, encoder: DualEncoder | None = None,
    plan: BatchOrder | None = None,
) -> OnPaper:  # fmt: skip
    """The step of a config. encoder, plan: the config's, where they are there already. Raises what a run would for
    settings that do not go together."""
    if encoder is None:
        assembly.seed_everything(config)
        encoder = assembly.assemble_encoder(config.model, config.data.schema)
    assembly.freeze_parts(encoder, config.optim)
    encoder.to(device_of(config)).train()
    device, world = next(encoder.parameters()).device, dry.world
    loss = assembly.assemble_loss(config.loss, encoder, constant).to(device)
    plan = plan or assembly.assemble_plan(prepared, config)
    if plan.negatives is not None:
        plan.negatives.mined = None  # which nobody has mined yet
    apart = max(world, plan.batch_size // _READ)  # of so many processes, the first reads a few rows
    dataset = _dataset(config, prepared, plan, encoder, apart)
    batch = dataset[0]
    begun = time.perf_counter()
    dataset[min(1, len(dataset) - 1)]
    took = time.perf_counter() - begun
    sides: dict[SideName, SideBatch] = {"query": batch.query, "document": batch.document}
    records: dict[SideName, int] = {
        "query": _share(batch.query_row, world),
        "document": _share(batch.document_row, world),
    }
    precision = assembly.choose_precision(config.trainer.precision, "gpu" if device.type == "cuda" else "cpu")
    half = device.type == "cuda" and str(precision).startswith("bf16")
    with unchanged(encoder), torch.autocast(device.type, dtype=torch.bfloat16) if half else nullcontext():
        encoded = {
            side: _encoding(encoder, to_device(some, device), side, records=records[side])
            for side, some in sides.items()
        }
    share_of = _footprint(config, encoder, loss, batch, records, world=world)
    weights = _weights(encoder, loss, config, world)
    memory = {_WEIGHTS: weights, _LOSS: float(share_of.held), _BLOCKS: float(share_of.blocks)}
    fits = _fits(encoded, dry.memory_gb * 1e9 - sum(memory.values()))
    micro = fits if config.train.micro_batch == "auto" else config.train.micro_batch
    memory[_ACTIVATIONS] = _activations(encoded, micro)
    trained = sum(p.numel() for p in [*encoder.parameters(), *loss.parameters()] if p.requires_grad)
    network = {
        "embeddings and their gradients": float(share_of.received),
        "gradients of the weights": float(gradient_traffic(trained, world)),
    }
    read = sum(len(some.present) for some in sides.values())
    seconds = {
        "reading": took * sum(records.values()) / read / max(config.train.workers, 1),
        "encoding": sum(_encoding_seconds(one, micro) for one in encoded.values()),
        "loss": _loss_seconds(loss, int(encoder.width), device) * len(batch.score) ** 2 / world,
        "network": sum(network.values()) / (dry.network_gb_s * 1e9),
    }
    kind = torch.cuda.get_device_name() if device.type == "cuda" else f"processor ({torch.get_num_threads()} threads)"
    counted = _read(config, prepared, plan, records, world)
    return OnPaper(world, micro, fits, counted, memory, network, seconds, kind)


def _share(position: torch.Tensor, world: int) -> int:
    """Records of one process. position[N]: of each pair's record among all of the batch."""
    return -(-(int(position.max()) + 1) // world)


def _dataset(config: RunConfig, prepared: Prepared, plan: BatchOrder, encoder: DualEncoder, world: int) -> PairDataset:
    def reader(side: SideName) -> SideReader:
        store = prepared.queries if side == "query" else prepared.documents
        return SideReader(store, config.data.schema.side(side), encoder.preprocess)

    return PairDataset(plan.pairs, plan, query=reader("query"), document=reader("document"), rank=0, world=world)


def _read(
    config: RunConfig, prepared: Prepared, plan: BatchOrder, records: Mapping[SideName, int], world: int
) -> list[tuple[str, Value]]:
    """What the plan has, and what the first process reads of it."""
    steps = assembly.total_steps(config.train, plan)
    counted = min(steps, plan.steps_per_epoch, _STEPS)
    of_step: list[int] = []
    of_all: set[int] = set()
    for step in range(counted):
        rows, _ = share(plan.pairs.document[plan.batch(step)], 0, world)
        shards = np.unique(prepared.documents.shard[rows]).tolist()
        of_step.append(len(shards))
        of_all.update(shards)
    total = int(prepared.documents.shard.max(initial=-1)) + 1
    return [
        ("pairs", f"{len(plan.pairs):,}"),
        ("steps", f"{steps:,} of {plan.batch_size:,} pairs, {plan.steps_per_epoch:,} an epoch"),
        ("queries in a step", f"{records['query']:,}"),
        ("documents in a step", f"{records['document']:,}"),
        ("shards of documents in a step", f"{np.mean(of_step):.1f} of {total:,}"),
        (f"shards of documents in {counted:,} steps", f"{len(of_all):,} of {total:,}"),
    ]


def _weights(encoder: DualEncoder, loss: GCLLoss, config: RunConfig, world: int) -> float:
    """Bytes: float32 weights; of the trained ones the gradient, AdamW's two moments, DistributedDataParallel's copy of
    the gradient, the sum that micro-batches add to, and the average of train.ema."""
    parameters = [*encoder.parameters(), *loss.parameters()]
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    copies = 3 + (world > 1) + (config.train.micro_batch is not None) + (config.train.ema is not None)
    return 4.0 * (sum(p.numel() for p in parameters) + copies * trained)


def _footprint(
    config: RunConfig, encoder: DualEncoder, loss: GCLLoss, batch: PairBatch, records: Mapping[SideName, int], *,
    world: int,
) -> Footprint:  # fmt: skip
    parts = sum(len({getattr(term, side) for term in config.loss.terms}) for side in SIDES)
    pairs = len(batch.score)
    tile = None if loss.tile is None else choose_tile(loss.tile, pairs, next(encoder.parameters()).device)
    rows = min(world * max(records.values()), pairs)
    return footprint(parts, pairs=pairs, rows=rows, width=int(encoder.width), ranks=world, tile=tile)


def _encoding(encoder: DualEncoder, batch: SideBatch, side: SideName, *, records: int) -> Encoding:
    """batch: some of the records."""
    few, more = (cut(batch, count)[0] for count in (_PROBE // 2, _PROBE))

    def step(some: SideBatch) -> Callable[[], None]:
        def both() -> None:
            embedded = encoder.embed_fields(some, side)
            if embedded.requires_grad:
                embedded.sum().backward()

        return both

    first, second = (float(saved_bytes(step(some), encoder.parameters())) for some in (few, more))
    grown = size_of(more) - size_of(few)
    row = max(second - first, 0.0) / grown if grown else second / size_of(more)
    both = _seconds(step(more), batch.present.device)
    with torch.no_grad():
        forward = _seconds(lambda: encoder.embed_fields(more, side), batch.present.device)
    count, rows = size_of(more), math.ceil(records * size_of(batch) / len(batch.present))
    return Encoding(rows, max(second - row * count, 0.0), row, forward / count, both / count)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    run()  # warms up
    begun = _clock(device)
    run()
    return _clock(device) - begun


def _clock(device: torch.device) -> float:
    """Seconds; on a CPU, processor time, so that a busy machine does not look slow."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def _fits(encoded: Mapping[SideName, Encoding], left: float) -> int | None:
    """The most rows that fit into the bytes that are left, as a power of two; None: all at once."""
    if _activations(encoded, None) <= left:
        return None
    size = max(one.rows for one in encoded.values())
    size = 1 << (size.bit_length() - 1)
    while size > 1 and _activations(encoded, size) > left:
        size //= 2
    return size


def _activations(encoded: Mapping[SideName, Encoding], micro: int | None) -> float:
    """Bytes: of both sides, or of one micro-batch of the side that needs more."""
    if micro is None:
        return sum(one.fixed + one.row * one.rows for one in encoded.values())
    whole = [one.fixed + one.row * one.rows for one in encoded.values() if one.rows <= micro]
    return max(sum(whole), *(one.fixed + one.row * min(micro, one.rows) for one in encoded.values()))


def _encoding_seconds(one: Encoding, micro: int | None) -> float:
    """Micro-batches are encoded twice."""
    again = micro is not None and micro < one.rows
    return one.rows * (one.both + (one.forward if again else 0.0))


def _loss_seconds(loss: GCLLoss, width: int, device: torch.device) -> float:
    """Seconds per entry of the similarities, of one term, with its gradient."""
    draw = torch.Generator().manual_seed(0)
    query, document = (normalize(torch.randn(_PAIRS, width, generator=draw), dim=-1).to(device) for _ in range(2))
    small = GCLLoss(form=loss.form, tile=loss.tile, score_to_weight=constant).to(device)

    def step() -> None:
        left, right = query.clone().requires_grad_(), document.clone().requires_grad_()
        small({"fused": Part(left)}, {"fused": Part(right)}).loss.backward()

    return len(loss.terms) * _seconds(step, device) / _PAIRS**2
