"""A run on paper: what each of W processes reads, holds, sends and takes for one step of a plan.

1. The plan and the shares of its batches are the run's own (gcl/data/batches), so what a process reads is counted.
2. Bytes of activations for a row are measured on a few rows of the first batch, the loss's memory and traffic follow
   from its formulas (gcl/loss/footprint.py), the weights' from their number.
3. Seconds are those of a few rows, and of a small loss, on this machine, times their number.

No step is taken, no optimiser is made, and the run folder is neither made nor touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
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

_PROBE = 4  # rows encoded to be measured
_PAIRS = 1024  # of the loss that is measured
_STEPS = 200  # whose shards are counted


class Encoding(NamedTuple):
    """One side of one process's share: rows; bytes of activations, whatever the rows and for each; seconds for each,
    forward and with the gradient."""

    rows: int
    fixed: float
    row: float
    forward: float
    both: float


@dataclass(frozen=True)
class OnPaper:
    """Of one process and one step, in bytes and seconds. memory, network, time: {what: amount}."""

    world: int
    micro_batch: int | None
    read: list[tuple[str, Value]]
    memory: Mapping[str, float]
    network: Mapping[str, float]
    time: Mapping[str, float]
    device: str

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
        total, largest = sum(self.memory.values()), max(self.memory, key=self.memory.__getitem__)
        if total > limit:
            raise ConfigError(
                f"A step does not fit: each process would hold {total / 1e9:.1f} GB, and trainer.dry.memory_gb is "
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


def on_paper(config: RunConfig, dry: DryConfig, prepared: Prepared) -> OnPaper:
    """The step of a config. Raises what a run would for settings that do not go together."""
    assembly.seed_everything(config)
    encoder = assembly.assemble_encoder(config.model, config.data.schema)
    assembly.freeze_parts(encoder, config.optim)
    encoder.to(device_of(config)).train()
    device, world = next(encoder.parameters()).device, dry.world
    loss = assembly.assemble_loss(config.loss, encoder, constant).to(device)
    plan = assembly.assemble_plan(prepared, config)
    begun = time.perf_counter()
    batch = _dataset(config, prepared, plan, encoder, world)[0]
    reading = (time.perf_counter() - begun) / max(config.train.workers, 1)
    sides: dict[SideName, SideBatch] = {"query": batch.query, "document": batch.document}
    precision = assembly.choose_precision(config.trainer.precision, "gpu" if device.type == "cuda" else "cpu")
    half = device.type == "cuda" and str(precision).startswith("bf16")
    with unchanged(encoder), _autocast(device, half):
        encoded = {side: _encoding(encoder, to_device(some, device), side) for side, some in sides.items()}
    share_of = _footprint(config, encoder, loss, batch, world, device)
    weights = _weights(encoder, loss, config)
    memory = {_WEIGHTS: weights, _LOSS: float(share_of.held), _BLOCKS: float(share_of.blocks)}
    micro = _micro_batch(config, encoded, dry.memory_gb * 1e9 - sum(memory.values()))
    memory[_ACTIVATIONS] = _activations(encoded, micro)
    trained = sum(p.numel() for p in [*encoder.parameters(), *loss.parameters()] if p.requires_grad)
    network = {
        "embeddings and their gradients": float(share_of.received),
        "gradients of the weights": float(gradient_traffic(trained, world)),
    }
    seconds = {
        "reading": reading,
        "encoding": sum(_encoding_seconds(one, micro) for one in encoded.values()),
        "loss": _loss_seconds(loss, int(encoder.width), device) * len(batch.score) ** 2 / world,
        "network": sum(network.values()) / (dry.network_gb_s * 1e9),
    }
    kind = torch.cuda.get_device_name() if device.type == "cuda" else f"processor ({torch.get_num_threads()} threads)"
    read = _read(config, prepared, plan, batch, world)
    return OnPaper(world, micro, read, memory, network, seconds, kind)


def _dataset(config: RunConfig, prepared: Prepared, plan: BatchOrder, encoder: DualEncoder, world: int) -> PairDataset:
    def reader(side: SideName) -> SideReader:
        store = prepared.queries if side == "query" else prepared.documents
        return SideReader(store, config.data.schema.side(side), encoder.preprocess)

    return PairDataset(plan.pairs, plan, query=reader("query"), document=reader("document"), rank=0, world=world)


def _read(
    config: RunConfig, prepared: Prepared, plan: BatchOrder, batch: PairBatch, world: int
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
        ("queries in a step", f"{size_of(batch.query):,}"),
        ("documents in a step", f"{size_of(batch.document):,}"),
        ("shards of documents in a step", f"{np.mean(of_step):.1f} of {total:,}"),
        (f"shards of documents in {counted:,} steps", f"{len(of_all):,} of {total:,}"),
    ]


def _weights(encoder: DualEncoder, loss: GCLLoss, config: RunConfig) -> float:
    """Bytes: float32 weights; of the trained ones the gradient, DistributedDataParallel's copy of it, the sum that
    micro-batches add to, AdamW's two moments, and the average of train.ema."""
    parameters = [*encoder.parameters(), *loss.parameters()]
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    copies = 4 + (config.train.micro_batch is not None) + (config.train.ema is not None)
    return 4.0 * (sum(p.numel() for p in parameters) + copies * trained)


def _footprint(
    config: RunConfig, encoder: DualEncoder, loss: GCLLoss, batch: PairBatch, world: int, device: torch.device
) -> Footprint:
    parts = sum(len({getattr(term, side) for term in config.loss.terms}) for side in SIDES)
    pairs = len(batch.score)
    rows = world * max(size_of(batch.query), size_of(batch.document))
    tile = None if loss.tile is None else choose_tile(loss.tile, pairs, device)
    return footprint(parts, pairs=pairs, rows=min(rows, pairs), width=int(encoder.width), ranks=world, tile=tile)


def _encoding(encoder: DualEncoder, batch: SideBatch, side: SideName) -> Encoding:
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
    count = size_of(more)
    return Encoding(size_of(batch), max(second - row * count, 0.0), row, forward / count, both / count)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    run()  # warms up
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


@contextmanager
def _autocast(device: torch.device, half: bool) -> Iterator[None]:
    with torch.autocast(device.type, dtype=torch.bfloat16) if half else nullcontext():
        yield


def _micro_batch(config: RunConfig, encoded: Mapping[SideName, Encoding], left: float) -> int | None:
    """train.micro_batch, or of "auto" the most rows that fit into the bytes that are left, as a power of two."""
    size = config.train.micro_batch
    if size != "auto":
        return size
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
