"""How loading training photos grows with workers: samples a second of the wall, and of all processes' CPU time.

The wall's figure needs idle cores. What a second of CPU time yields does not: if two workers yield as much of it as
one, twice the cores load twice as fast. (Starting them, and handing tensors over, is in the figures.)
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from inputs import photo
from torch.utils.data import DataLoader

from gcl.data.batches.batch import PairDataset, SideReader
from gcl.data.batches.plan import Plan
from gcl.data.store.prepared import Pairs
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.model.preprocess import Preprocess
from gcl.schema import Field, Modality

BATCH, PICTURE = 64, {"image": Field(Modality.image)}


class NoWords:
    """A tokenizer for queries that are beside the point here."""

    context_length = 8

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.zeros(len(texts), 8, dtype=torch.int64)


def run(pictures: int = 512, side: int = 500, rounds: int = 3, steps: int = 48) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder, query, image = Path(place), {"query": Field()}, photo(side)
        for prefix, fields in (("documents", PICTURE), ("queries", query)):
            with ShardWriter(folder, prefix, side=fields) as writer:
                for number in range(pictures):
                    record = {"image": image} if prefix == "documents" else {"query": f"query {number}"}
                    writer.write(str(number), record)
        rows = np.arange(pictures)
        pairs = Pairs(rows, rows, np.ones(pictures, np.float32))
        preprocess = Preprocess((224, 224), (0.0,) * 3, (1.0,) * 3, tokens=NoWords())
        readers = {"query": SideReader(RecordStore(folder, "queries", query), query, preprocess),
                   "document": SideReader(RecordStore(folder, "documents", PICTURE), PICTURE, preprocess)}  # fmt: skip
        dataset = PairDataset(pairs, Plan(pairs, batch_size=BATCH, seed=0), **readers)
        wall, work = dict.fromkeys((0, 1, 2), 0.0), dict.fromkeys((0, 1, 2), 0.0)
        for _ in range(rounds):
            for workers in wall:
                begun, spent = time.perf_counter(), cpu()
                loader = DataLoader(dataset, batch_size=None, sampler=range(steps), num_workers=workers)
                seen = sum(len(batch.score) for batch in loader)
                del loader
                wall[workers] = max(wall[workers], seen / (time.perf_counter() - begun))
                work[workers] = max(work[workers], seen / (cpu() - spent))
    for workers, value in wall.items():
        print(f"  {workers} workers: {value:6,.0f} samples/s, {work[workers]:6,.0f} samples a second of CPU time")
    load = f"{os.cpu_count()} cores under load {os.getloadavg()[0]:.1f}"
    print(f"  CPU time's yield, 1 worker / none: {work[1] / work[0]:.2f}x, 2 workers / 1: {work[2] / work[1]:.2f}x")
    print(f"  wall, 2 workers / 1: {wall[2] / wall[1]:.2f}x on {load}")
    return None


def cpu() -> float:
    """CPU seconds of this process and of those it has waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
