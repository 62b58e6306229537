"""Which weights of the fields retrieve best? Fields are embedded once; only the fusing and the search are repeated.

Choose on the dev half, report on the test half: the best of many weights is lucky on the half it was chosen on.

One rule chooses, after training (`train.field_weights=dev`) and in `gcl sweep-weights`:

1. What counts is the mean of one metric over tasks, each task alike: what the headline shows, new queries and products
   included. A task with weights of its own has no say.
2. Tried are the present weights, each field alone, a grid of weights that sum to 1, and moves around its best, no
   smaller than 1/steps. A field of weight 0 stays out.
3. Whatever is within one standard error of the best (paired, over queries) may be luck as well as the best itself. Of
   these the weights nearest to the present ones are taken, but none that is below a single field or the present ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gcl.files.progress import Count
from gcl.model.query_weights import QueryWeights
from gcl.retrieval.embedding.embed import FieldEmbeddings
from gcl.retrieval.evaluate import LastFused, TaskResult, result_of
from gcl.retrieval.metrics.metrics import depth
from gcl.retrieval.search.search import search
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.schema import Field, SideName
from gcl.table import Table

NOTHING = 1e-6  # the weight of a field that is not wanted: it counts only where a record has no other
_EQUAL = 1e-12  # means that differ by less differ by rounding

Weights = dict[str, float]


@dataclass(frozen=True)
class Embedded:
    """A task whose two sides are embedded, field by field."""

    task: RetrievalTask
    query: FieldEmbeddings
    document: FieldEmbeddings

    def measured(
        self, query: Mapping[str, float] | None, document: Mapping[str, float] | None, metrics: Sequence[str], k: int,
        corpus: LastFused | None = None,
    ) -> TaskResult:  # fmt: skip
        """The task's result with these field weights; None: the schema's. The task's own come first. corpus: of the
        task that was measured before."""
        own = self.task.document_weights
        weights = _floored(document, self.document.side) if own is None else own
        vectors, gate = (corpus or LastFused()).searched(self.document, weights), self.document.gate(weights)
        asked = self.query.fused(_floored(query, self.query.side))
        score, row = search(asked if gate is None else gate.asked(asked), vectors, k, rank=self.task.id_ranks)
        return result_of(self.task, score, row, metrics)


@dataclass(frozen=True)
class Tried:
    """One combination of weights, the mean of each metric over the tasks, and the first metric of each query."""

    weights: Weights
    means: dict[str, float]
    values: list[np.ndarray] = field(default_factory=list, repr=False)  # of each task [Q]

    @property
    def value(self) -> float:
        """The mean of the first metric."""
        return next(iter(self.means.values()))

    @property
    def alone(self) -> bool:
        """Whether one field has all the weight."""
        return sum(weight > 0 for weight in self.weights.values()) == 1


@dataclass(frozen=True)
class Swept:
    """The outcome for one side. tried: best first. now, best: the present weights, and those that the rule takes.
    single: the best field alone."""

    side: SideName
    tried: list[Tried]
    now: Tried
    best: Tried
    single: Tried

    @property
    def kept(self) -> bool:
        return self.best is self.now


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
    side: SideName = "document",
    others: Mapping[str, float] | None = None,
    start: Mapping[str, float] | None = None,
    steps: int = 10,
    most: int = 200,
) -> list[Tried]:
    """Combinations of one side's field weights, best first by the first metric's mean over the tasks.

    First a grid of multiples of 1/steps (coarser where that would be more than half of `most`), and `start`; then from
    the best one weight is moved between two fields, in steps that halve down to 1/steps, while that helps.
    others: the other side's weights; None: the schema's. A field that `start` gives weight 0 stays out. A record whose
    fields all have weight 0 is represented by what it has.
    """
    sides = (tasks[0].document if side == "document" else tasks[0].query).side
    fields = [name for name in sides if start is None or start.get(name, 0) > 0]
    tried: dict[tuple[float, ...], Tried] = {}
    k = depth(metrics) or 1000
    count = Count(f"Trying weights of the {side}'s fields", total=most, unit="combination")

    def attempt(weights: Mapping[str, float]) -> Tried:
        key = tuple(round(weights.get(name, 0.0), 9) for name in fields)
        if key not in tried:
            given = dict(zip(fields, key, strict=True))
            used = given if start is None else usable(given, start)
            query, document = (others, used) if side == "document" else (used, others)
            corpus = LastFused()
            results = [one.measured(query, document, metrics, k, corpus) for one in tasks]
            means = {name: math.fsum(result.means[name] for result in results) / len(results) for name in metrics}
            tried[key] = Tried(given, means, [result.values[metrics[0]] for result in results])
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


def usable(weights: Mapping[str, float], now: Mapping[str, float]) -> Weights:
    """The weights as a config takes them, of the same sum as the present ones. A field that lost all of its weight
    keeps a hair of it, for records, also of days to come, that have no other field.

    >>> usable({"image": 0.0, "title": 1.0}, {"image": 3, "title": 1, "brand": 0})
    {'image': 4e-06, 'title': 4.0, 'brand': 0.0}
    """
    total = math.fsum(now.values())
    return {
        name: float(f"{max(weights[name], NOTHING) * total:.6g}") if name in weights and was > 0 else float(was)
        for name, was in now.items()
    }


def choose(tried: Sequence[Tried], now: Mapping[str, float], tasks: Sequence[Embedded], side: SideName) -> Swept:
    """The third step of the rule, on the outcome of `sweep_weights(tasks, …, start=now)`, best first."""
    known = {name: weight for name, weight in normalised(now).items() if weight > 0}

    def far(one: Tried) -> float:
        return math.fsum(abs(one.weights[name] - weight) for name, weight in known.items())

    present = min(tried, key=far)
    single = max((one for one in tried if one.alone), key=lambda one: one.value)
    floor, query = max(single.value, present.value) - _EQUAL, query_numbers(tasks)
    alike = [one for one in tried if one.value >= floor and _within_an_error(tried[0], one, query)]
    return Swept(side, list(tried), present, min(alike, key=lambda one: (round(far(one), 9), -one.value)), single)


def query_numbers(tasks: Sequence[Embedded]) -> np.ndarray:
    """A number for the query of each value, task after task; a query that several tasks ask has one."""
    ids = [str(name) for one in tasks for name in one.task.queries.ids]
    return np.unique(np.array(ids), return_inverse=True)[1].reshape(-1)


def difference_by_query(better: Tried, worse: Tried, query: np.ndarray) -> np.ndarray:
    """[G], one for each query, whose mean is the difference of the means over tasks: queries are what was drawn, so all
    values of one are one draw. query: their numbers, as of `query_numbers`."""
    share = [(b - w) / (len(b) * len(better.values)) for b, w in zip(better.values, worse.values, strict=True)]
    drawn = np.bincount(query, weights=np.concatenate(share))
    return drawn * len(drawn)


def _within_an_error(best: Tried, other: Tried, query: np.ndarray) -> bool:
    """Whether the mean over tasks of best - other is at most its standard error."""
    drawn = difference_by_query(best, other, query)
    error = math.sqrt(float(((drawn - drawn.mean()) ** 2).sum()) / max(len(drawn) - 1, 1) / len(drawn))
    return float(drawn.mean()) <= error + _EQUAL


def measure_weights(
    tasks: Sequence[Embedded], side: SideName, weights: Mapping[str, float] | None, metric: str,
    others: Mapping[str, float] | None = None,
) -> Tried:  # fmt: skip
    """One combination. None: the schema's, or what each query gives. others: the other side's."""
    query, document = (others, weights) if side == "document" else (weights, others)
    corpus, k = LastFused(), depth([metric]) or 1000
    values = [one.measured(query, document, [metric], k, corpus).values[metric] for one in tasks]
    return Tried(dict(weights or {}), {metric: math.fsum(float(one.mean()) for one in values) / len(values)}, values)


def weighed_by_query(tasks: Sequence[Embedded], gate: QueryWeights) -> list[Embedded]:
    """The same tasks, of whose documents each query weighs the fields; those with weights of their own keep these."""
    same: dict[int, FieldEmbeddings] = {}  # tasks that share a corpus go on sharing it
    return [
        replace(one, document=same.setdefault(id(one.document), replace(one.document, by_query=gate))) for one in tasks
    ]


def _floored(weights: Mapping[str, float] | None, side: Mapping[str, Field]) -> Weights | None:
    """A field of weight 0 counts where a record has nothing else, unless it has none in the schema either."""
    if weights is None:
        return None
    return {name: max(value, NOTHING if side[name].weight > 0 else 0.0) for name, value in weights.items()}


def weights_table(tried: Sequence[Tried], top: int = 10) -> Table:
    """The first `top` combinations: a column per field, then the metrics."""
    if not tried:
        return Table((), ())
    header = [*tried[0].weights, *tried[0].means]
    rows = [[*one.weights.values(), *one.means.values()] for one in tried[:top]]
    return Table(header, rows, align="", formats=dict.fromkeys(tried[0].weights, "g"))
