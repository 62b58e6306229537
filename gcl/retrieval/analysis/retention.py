"""Retention: general data sets measured before and after training, with a limit on what a model may forget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.metrics.statistics import Comparison, compare
from gcl.retrieval.report import interval_text
from gcl.retrieval.tasks.general import General
from gcl.table import Table, Value

TITLE = "What must not be forgotten"

Results = Mapping[str, Mapping[str, TaskResult]]  # set -> task -> result


@dataclass(frozen=True)
class Kept:
    """One set before and after: {task: {metric: comparison}}, and the mean loss of its metric."""

    name: str
    metric: str
    limit: float
    comparisons: Mapping[str, Mapping[str, Comparison]]
    who: str = "The model"

    @property
    def title(self) -> str:
        return self.name if self.who == "The model" else f"{self.name}: {self.who.split(', against')[0]}"

    @property
    def before(self) -> float:
        return _mean([metrics[self.metric].before for metrics in self.comparisons.values()])

    @property
    def after(self) -> float:
        return _mean([metrics[self.metric].after for metrics in self.comparisons.values()])

    @property
    def loss(self) -> float:
        return self.before - self.after

    @property
    def exceeded(self) -> bool:
        return exceeds(self.loss, self.limit)

    @property
    def forgotten(self) -> str | None:
        """What a verdict says of it if the limit is exceeded, else None."""
        lost = f"{self.name} ({self.loss:.4f} of {self.metric} lost, the limit is {self.limit:g})"
        return lost if self.exceeded else None

    @property
    def warning(self) -> str | None:
        """A sentence if the limit is exceeded, else None."""
        if not self.exceeded:
            return None
        return (
            f"{self.who} has forgotten: {self.name} lost {self.loss:.4f} of {self.metric} "
            f"({self.before:.4f} before, {self.after:.4f} after); the limit is {self.limit:g}."
        )


def exceeds(loss: float, limit: float) -> bool:
    """Whether the loss is beyond the limit by more than rounding.

    >>> exceeds(0.3 - 0.28, 0.02), exceeds(0.021, 0.02)
    (False, True)
    """
    return not loss <= limit + 1e-9


def retained(
    sets: Sequence[General], base: Results, tuned: Results, *, who: str = "The model", seed: int = 0
) -> list[Kept]:
    """Compares both models on every set. who: what a warning calls the second."""
    kept = []
    for one in sets:
        comparisons = {
            task: {
                metric: compare(result.values[metric], tuned[one.name][task].values[metric], seed=seed)
                for metric in one.metrics
            }
            for task, result in base[one.name].items()
        }
        kept.append(Kept(one.name, one.metric, one.limit, comparisons, who))
    return kept


def retention_table(sets: Sequence[Kept]) -> Table:
    rows: list[list[Value]] = []
    for one in sets:
        for task, by_metric in one.comparisons.items():
            for metric, c in by_metric.items():
                verdict: list[Value] = [None, None]
                if metric == one.metric:
                    verdict = [f"-{one.limit:g}", "FORGOTTEN" if one.exceeded else "kept"]
                change = (c.before, c.after, c.change, interval_text(c), c.n)
                rows.append([one.title, task, metric, *change, *verdict])
    header = ("retention", "task", "metric", "base", "tuned", "change", "95 % interval", "n", "limit", "verdict")
    return Table(header, rows, title=TITLE, align="lll", formats={"change": "+.4f"})


def as_dict(sets: Sequence[Kept]) -> dict[str, Any]:
    """Plain values, for metrics.json."""
    return {
        one.name: {
            "metric": one.metric, "base": one.before, "tuned": one.after, "loss": one.loss, "limit": one.limit,
            "exceeded": one.exceeded,
            "tasks": {task: {m: asdict(c) for m, c in values.items()} for task, values in one.comparisons.items()},
        }
        for one in sets
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def drawn(count: int, sample: int | None, seed: int = 0) -> np.ndarray:
    """Positions of the queries that a validation uses, the same every time.

    >>> drawn(3, None).tolist(), len(drawn(100, 10))
    ([0, 1, 2], 10)
    """
    if sample is None or sample >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:sample])
