"""Tables of one, two or more models: every metric of every task with its interval and number of queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.metrics.statistics import Comparison, Interval, bootstrap, bootstrap_together, compare, holm
from gcl.table import Table, Value, shown_number


@dataclass(frozen=True)
class Row:
    """One metric of one task for two models. p_corrected: Holm's, over all rows. title: the task in words, for people;
    records have its name."""

    HEADER: ClassVar = (
        "task", "metric", "base", "tuned", "change", "95 % interval", "p (Holm)", "n", "better/same/worse",
    )  # fmt: skip

    task: str
    metric: str
    comparison: Comparison
    p_corrected: float
    title: str = ""

    def cells(self) -> list[Value]:
        c = self.comparison
        return [self.title or self.task, self.metric, c.before, c.after, *change_cells(c, self.p_corrected)]

    def record(self) -> dict[str, Value]:
        c = self.comparison
        return {
            "task": self.task, "metric": self.metric, "base": c.before, "tuned": c.after, "change": c.change,
            "low": c.low, "high": c.high, "p": c.p, "p_holm": self.p_corrected, "n": c.n,
            "better": c.wins, "same": c.ties, "worse": c.losses,
        }  # fmt: skip


@dataclass(frozen=True)
class SingleRow:
    """One metric of one task for one model."""

    HEADER: ClassVar = ("task", "metric", "value", "95 % interval", "n")

    task: str
    metric: str
    interval: Interval
    n: int
    title: str = ""

    def cells(self) -> list[Value]:
        return [self.title or self.task, self.metric, self.interval.mean, interval_text(self.interval, ".4f"), self.n]

    def record(self) -> dict[str, Value]:
        i = self.interval
        return {"task": self.task, "metric": self.metric, "value": i.mean, "low": i.low, "high": i.high, "n": self.n}


@dataclass(frozen=True)
class ContestRow:
    """One metric of one task for one of several models. against: the first model compared with this one, None for the
    first; p_corrected: Holm's, None for metrics that were not declared beforehand."""

    HEADER: ClassVar = (
        "task", "metric", "model", "value", "change", "95 % interval", "p (Holm)", "n", "better/same/worse",
    )  # fmt: skip

    task: str
    metric: str
    model: str
    interval: Interval
    n: int
    against: Comparison | None = None
    p_corrected: float | None = None
    title: str = ""

    def cells(self) -> list[Value]:
        compared = (
            [None, None, None, self.n, None] if self.against is None else change_cells(self.against, self.p_corrected)
        )
        return [self.title or self.task, self.metric, self.model, self.interval.mean, *compared]

    def record(self) -> dict[str, Value]:
        i, c = self.interval, self.against
        compared = dict.fromkeys(("change", "change_low", "change_high", "p", "better", "same", "worse"))
        if c is not None:
            compared = {
                "change": c.change, "change_low": c.low, "change_high": c.high, "p": c.p,
                "better": c.wins, "same": c.ties, "worse": c.losses,
            }  # fmt: skip
        return {
            "task": self.task, "metric": self.metric, "model": self.model, "value": i.mean, "low": i.low,
            "high": i.high, "n": self.n, **compared, "p_holm": self.p_corrected,
        }  # fmt: skip


AnyRow = Row | SingleRow | ContestRow


def contest_rows(
    models: Mapping[str, Mapping[str, TaskResult]], declared: Sequence[str] | None = None, *, seed: int = 0
) -> list[ContestRow]:
    """Every metric of every task for every model, each compared with the first model.

    declared: the metrics that are tested, over which (times tasks, times models) Holm's correction runs; by default all
    of them. The others get a value and an interval: hundreds of hypotheses at once would hide every difference.
    Raises ValueError unless all models answered the same tasks and queries.
    """
    (first, base), *others = models.items()
    for results in dict(others).values():
        _check_comparable(base, results)
    rows: list[ContestRow] = []
    for task, result in base.items():
        names = list(result.values)
        intervals = {
            label: dict(zip(names, bootstrap_together(_columns(results[task], names), seed=seed), strict=True))
            for label, results in models.items()
        }
        for metric, values in result.values.items():
            rows.append(ContestRow(task, metric, first, intervals[first][metric], len(values), title=result.title))
            for label, results in others:
                theirs = results[task].values[metric]
                tested = declared is None or metric in declared
                against = compare(values, theirs, seed=seed) if tested else None
                interval = intervals[label][metric]
                rows.append(ContestRow(task, metric, label, interval, len(theirs), against, title=result.title))
    corrected = holm({n: row.against.p for n, row in enumerate(rows) if row.against is not None})
    return [replace(row, p_corrected=corrected.get(n)) for n, row in enumerate(rows)]


def _columns(result: TaskResult, names: Sequence[str]) -> np.ndarray:
    return np.stack([result.values[name] for name in names], axis=1)


def comparison_rows(base: Mapping[str, TaskResult], tuned: Mapping[str, TaskResult], *, seed: int = 0) -> list[Row]:
    """Every metric of every task for two models. Raises ValueError unless both answered the same tasks and queries."""
    _check_comparable(base, tuned)
    compared = {}
    for name in base:
        for metric in base[name].values:
            compared[name, metric] = compare(base[name].values[metric], tuned[name].values[metric], seed=seed)
    corrected = holm({key: comparison.p for key, comparison in compared.items()})
    return [
        Row(task, metric, comparison, corrected[task, metric], base[task].title)
        for (task, metric), comparison in compared.items()
    ]


def _check_comparable(base: Mapping[str, TaskResult], tuned: Mapping[str, TaskResult]) -> None:
    if base.keys() != tuned.keys():
        raise ValueError(f"The models were measured on different tasks: {sorted(base)} and {sorted(tuned)}.")
    for name in base:
        if list(base[name].query_ids) != list(tuned[name].query_ids):
            raise ValueError(f"Task {name!r}: the two models answered different queries.")
        for metric in base[name].values:
            if metric not in tuned[name].values:
                raise ValueError(f"Task {name!r}: {metric} was measured for one model only.")


def single_rows(results: Mapping[str, TaskResult], *, seed: int = 0) -> list[SingleRow]:
    return [
        SingleRow(name, metric, bootstrap(values, seed=seed), len(values), result.title)
        for name, result in results.items()
        for metric, values in result.values.items()
    ]


def results_table(rows: Sequence[AnyRow]) -> Table:
    """Rows of one kind as people read them, grouped by task."""
    header = rows[0].HEADER if rows else Row.HEADER
    align = "lll" if "model" in header else "ll"
    return Table(header, [row.cells() for row in rows], align=align, formats={"change": "+.4f"}, grouped=True)


def results_records(rows: Iterable[AnyRow]) -> Table:
    """The same in full precision, a column for each number, for CSV and JSON."""
    return Table.of_records(row.record() for row in rows)


def change_cells(c: Comparison, p: float | None) -> list[Value]:
    """change, 95 % interval, p, n, better/same/worse"""
    return [c.change, interval_text(c), p_text(p), c.n, f"{c.wins}/{c.ties}/{c.losses}"]


def interval_text(interval: Interval | Comparison, spec: str = "+.4f") -> str:
    """
    >>> interval_text(Interval(0.5, 0.41, 0.6), ".2f"), interval_text(Interval(0.1, -0.00001, 0.2))
    ('0.41 … 0.60', '0.0000 … +0.2000')
    """
    return " … ".join(shown_number(end, spec) for end in (interval.low, interval.high))


def p_text(p: float | None) -> str:
    """
    >>> p_text(0.0004), p_text(0.25), p_text(None)
    ('< .001', '0.250', '')
    """
    return "" if p is None else "< .001" if p < 0.001 else f"{p:.3f}"


def audit_lines(results: Iterable[TaskResult]) -> list[str]:
    """What the reader of the table has to know about its tasks, one sentence each."""
    return [line for result in results if result.audit is not None for line in result.audit.lines]
