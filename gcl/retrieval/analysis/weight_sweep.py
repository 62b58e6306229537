"""Which weights of the fields retrieve best? Fields are embedded once; only the fusing and the search are repeated.

Choose on the dev half, report on the test half: the best of many weights is lucky on the half it was chosen on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gcl.files.progress import Count
from gcl.retrieval.embedding.embed import FieldEmbeddings
from gcl.retrieval.evaluate import TaskResult, result_of
from gcl.retrieval.metrics.metrics import depth
from gcl.retrieval.search.search import search
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.table import Table

NOTHING = 1e-6  # the weight a field of weight 0 gets: it counts only where a record has no other

Weights = dict[str, float]


@dataclass(frozen=True)
class Embedded:
    """A task whose two sides are embedded, field by field."""

    task: RetrievalTask
    query: FieldEmbeddings
    document: FieldEmbeddings

    def measured(
        self, query: Mapping[str, float] | None, document: Mapping[str, float] | None, metrics: Sequence[str], k: int
    ) -> TaskResult:
        """The task's result with these field weights; None: the schema's."""
        score, row = search(
            self.query.fused(_floored(query)), self.document.fused(_floored(document)), k, rank=self.task.id_ranks
        )
        return result_of(self.task, score, row, metrics)


@dataclass(frozen=True)
class Tried:
    """One combination of weights and the mean of each metric over the tasks."""

    weights: Weights
    means: dict[str, float]


def grid(fields: Sequence[str], steps: int = 10) -> Iterator[Weights]:
    """All weights that are multiples of 1/steps and sum to 1.

    >>> list(grid(["image", "title"], 2))
    [{'image': 0.0, 'title': 1.0}, {'image': 0.5, 'title': 0.5}, {'image': 1.0, 'title': 0.0}]
    """

    def shares(count: int, left: int) -> Iterator[tuple[int, ...]]:
        if count == 1:
            yield (left,)
            return
        for first in range(left + 1):
            yield from ((first, *rest) for rest in shares(count - 1, left - first))

    for combination in shares(len(fields), steps):
        yield dict(zip(fields, (share / steps for share in combination), strict=True))


def coarsest(fields: int, steps: int, most: int) -> int:
    """The finest grid of at most `steps` that has at most `most` combinations, never fewer than the fields alone.

    >>> coarsest(2, 10, 100), coarsest(5, 10, 100)
    (10, 4)
    """
    return max((n for n in range(1, steps + 1) if math.comb(n + fields - 1, fields - 1) <= most), default=1)


def sweep_weights(
    tasks: Sequence[Embedded],
    metrics: Sequence[str] = ("ndcg@10",),
    *,
    side: str = "document",
    others: Mapping[str, float] | None = None,
    start: Mapping[str, float] | None = None,
    steps: int = 10,
    most: int = 200,
) -> list[Tried]:
    """Combinations of one side's field weights, best first by the first metric's mean over the tasks.

    First a grid of multiples of 1/steps (coarser where that would be more than half of `most`), and `start`; then from
    the best one weight is moved between two fields, in steps that halve down to 1/steps, while that helps.
    others: the other side's weights; None: the schema's. A record whose fields all have weight 0 is represented by
    what it has.
    """
    fields = list((tasks[0].document if side == "document" else tasks[0].query).side)
    tried: dict[tuple[float, ...], Tried] = {}
    k = depth(metrics) or 1000
    count = Count(f"Trying weights of the {side}'s fields", total=most, unit="combination")

    def attempt(weights: Mapping[str, float]) -> Tried:
        key = tuple(round(weights.get(name, 0.0), 9) for name in fields)
        if key not in tried:
            given = dict(zip(fields, key, strict=True))
            query, document = (others, given) if side == "document" else (given, others)
            by_task = [one.measured(query, document, metrics, k).means for one in tasks]
            means = {name: math.fsum(values[name] for values in by_task) / len(by_task) for name in metrics}
            tried[key] = Tried(given, means)
            count.add()
        return tried[key]

    with count:
        if start is not None:
            attempt(normalised(start))
        first = coarsest(len(fields), steps, max(most // 2, len(fields)))
        for weights in grid(fields, first):
            attempt(weights)
        move = 1 / first
        while len(tried) < most and len(fields) > 1:
            best = _best(tried, metrics[0])
            for other in list(_neighbours(best.weights, move)):
                if len(tried) >= most:
                    break
                attempt(other)
            if _best(tried, metrics[0]) is best:
                if move / 2 < 1 / steps - 1e-9:
                    break
                move /= 2
    return sorted(tried.values(), key=lambda one: -one.means[metrics[0]])


def _best(tried: Mapping[tuple[float, ...], Tried], metric: str) -> Tried:
    return max(tried.values(), key=lambda one: one.means[metric])


def _neighbours(weights: Mapping[str, float], move: float) -> Iterator[Weights]:
    for giver in weights:
        for taker in weights:
            if giver != taker and weights[giver] > 1e-9:
                step = min(move, weights[giver])
                yield {**weights, giver: weights[giver] - step, taker: weights[taker] + step}


def normalised(weights: Mapping[str, float]) -> Weights:
    """The same weights with a sum of 1.

    >>> normalised({"image": 3, "title": 1})
    {'image': 0.75, 'title': 0.25}
    """
    total = math.fsum(weights.values())
    return {name: round(value / total, 9) for name, value in weights.items()}


def usable(weights: Mapping[str, float], embedded: Sequence[FieldEmbeddings]) -> Weights:
    """The weights as a config takes them: where a record has no field of positive weight, 0 becomes a hair more."""
    for one in embedded:
        given = np.array([weights[name] for name in one.side])
        if ((one.present * given).sum(axis=1) <= 0).any():
            return {name: max(value, NOTHING) for name, value in weights.items()}
    return dict(weights)


def _floored(weights: Mapping[str, float] | None) -> Weights | None:
    return None if weights is None else {name: max(value, NOTHING) for name, value in weights.items()}


def weights_table(tried: Sequence[Tried], top: int = 10) -> Table:
    """The first `top` combinations: a column per field, then the metrics."""
    if not tried:
        return Table((), ())
    header = [*tried[0].weights, *tried[0].means]
    rows = [[*one.weights.values(), *one.means.values()] for one in tried[:top]]
    return Table(header, rows, align="", formats=dict.fromkeys(tried[0].weights, "g"))
