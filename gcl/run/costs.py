"""What measuring a model on published sets costs: estimated from a few measured batches, and counted afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from gcl.config.schema import RunConfig
from gcl.distributed.ranks import gather_objects, world
from gcl.files.arrays import IN_MEMORY
from gcl.files.progress import duration
from gcl.lit.progress import peak_memory
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.embedding.own import Embedder
from gcl.retrieval.embedding.stream import image_vectors
from gcl.retrieval.search.candidates import capacity
from gcl.retrieval.search.search import search
from gcl.run.published import OpenSet, Spent
from gcl.table import Table, Value

_SECONDS, _BATCHES = 2.0, 64  # of a probe, at most
_DOCUMENTS, _QUERIES = 4096, 128  # searched in a probe, for each rank
_CANDIDATES = 512 << 20  # bytes that a search takes at most


class Cost(NamedTuple):
    """images: embedded. embedding, search: seconds. disk: bytes of vectors in cache_dir. memory: peak bytes of the rank
    that takes most, on its GPU where it has one; without the processes that read data."""

    images: int
    embedding: float
    search: float
    disk: int
    memory: int


@dataclass(frozen=True)
class Pace:
    """Seconds per image and, of a search over all ranks, per query and per query and document."""

    image: float
    query: float
    score: float

    def cost(self, config: RunConfig, width: int, sets: Sequence[OpenSet], left: Sequence[tuple[int, bool]]) -> Cost:
        """left: of each set, images that are not in the cache, and whether its searches are still to be done."""
        ranks, k = world()[1], config.evaluate.depth
        images = sum(count for count, _ in left)
        seconds = 0.0
        for one, (_, searched) in zip(sets, left, strict=True):
            asked = sum(len(task.queries) for task in one.tasks) if searched else 0
            seconds += asked * (self.query + self.score * one.source.rows)
        rows = max(one.source.rows for one in sets)
        queries = max(len(task.queries) for one in sets for task in one.tasks)
        found = min(_CANDIDATES, 8 * queries * capacity(k, 2048)) + 3 * 12 * queries * k
        vectors = 4 * width * rows // ranks
        memory = most(peak_memory(torch.device("cpu"))) + (vectors if vectors <= IN_MEMORY else 0) + found
        disk = 4 * width * sum(one.source.rows for one in sets)
        return Cost(images, self.image * images / ranks, seconds, disk, memory)


def pace_of(config: RunConfig, encoder: DualEncoder, one: OpenSet) -> Pace:
    """Measured on all ranks at once, reading and decoding included; the first batch warms up."""
    assert config.evaluate.benchmark is not None
    batches = image_vectors(
        encoder, one.source, one.source.groups, config.evaluate.benchmark.image,
        batch_size=config.evaluate.batch_size, workers=config.train.workers,
    )  # fmt: skip
    begun, images, first = time.perf_counter(), 0, 0.0
    for number, (rows, _, bad) in enumerate(batches):
        images += len(rows) + len(bad)
        took = time.perf_counter() - begun
        if number == 0:
            first, begun, images = took / max(images, 1), time.perf_counter(), 0
        elif number == _BATCHES or took > _SECONDS:
            break
    del batches  # and with it the processes that read
    each = (time.perf_counter() - begun) / images if images else first
    times = [_search_seconds(config, int(encoder.width), _DOCUMENTS * times) for times in (1, 3)]
    slope = max(times[1] - times[0], 0.0) / (2 * _DOCUMENTS)
    return Pace(most(each), max(times[0] - slope * _DOCUMENTS, 0.0) / _QUERIES, slope / _QUERIES / world()[1])


def _search_seconds(config: RunConfig, width: int, documents: int) -> float:
    documents *= world()[1]
    draw = np.random.default_rng(0).standard_normal
    query, corpus = draw((_QUERIES, width), dtype=np.float32), draw((documents, width), dtype=np.float32)
    begun = time.perf_counter()
    search(query, corpus, config.evaluate.depth, rank=np.arange(documents))
    return most(time.perf_counter() - begun)


def most(value: Any) -> Any:
    """The largest over ranks."""
    return max(gather_objects(value))


def counted_cost(spent: Spent, encoder: Embedder) -> Cost:
    """What it was."""
    device = next(encoder.parameters()).device if isinstance(encoder, DualEncoder) else torch.device("cpu")
    return Cost(spent.images, spent.embedding, spent.search, spent.disk, most(peak_memory(device)))


def costs_table(costs: Mapping[str, Mapping[str, Cost]]) -> Table:
    """{model: {"estimated" or "measured": cost}}"""
    rows: list[list[Value]] = [
        [label, kind, cost.images, duration(cost.embedding), duration(cost.search), cost.disk / 1e9, cost.memory / 1e9]
        for label, kinds in costs.items()
        for kind, cost in kinds.items()
    ]
    sized = ["disk (GB)", "memory (GB)"]
    header = ["model", "", "images", "embedding", "search", *sized]
    return Table(header, rows, "What it cost", align="ll", formats=dict.fromkeys(sized, ".2f"))


def costs_record(costs: Mapping[str, Mapping[str, Cost]]) -> dict[str, Any]:
    """For costs.json; seconds and bytes."""
    models = {label: {kind: cost._asdict() for kind, cost in kinds.items()} for label, kinds in costs.items()}
    return {"ranks": world()[1], "models": models}
