"""Tables of one, two or more models: for the terminal, as Markdown, CSV, JSON; every number with n and interval."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.metrics.statistics import Comparison, Interval, bootstrap, bootstrap_together, compare, holm

HEADER = ("task", "metric", "base", "tuned", "change", "95 % interval", "p (Holm)", "n", "better/same/worse")
CONTEST_HEADER = (
    "task", "metric", "model", "value", "change", "95 % interval", "p (Holm)", "n", "better/same/worse",
)  # fmt: skip
SINGLE_HEADER = ("task", "metric", "value", "95 % interval", "n")


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a metric of a task for two models. p_corrected: Holm's, over all rows."""

    task: str
    metric: str
    comparison: Comparison
    p_corrected: float

    def cells(self) -> tuple[str, ...]:
        c = self.comparison
        interval = f"{c.low:+.4f} … {c.high:+.4f}"
        p = "< .001" if self.p_corrected < 0.001 else f"{self.p_corrected:.3f}"
        counts = f"{c.wins}/{c.ties}/{c.losses}"
        return (
            self.task,
            self.metric,
            f"{c.before:.4f}",
            f"{c.after:.4f}",
            f"{c.change:+.4f}",
            interval,
            p,
            str(c.n),
            counts,
        )


@dataclass(frozen=True)
class SingleRow:
    """One line for a single model."""

    task: str
    metric: str
    interval: Interval
    n: int

    def cells(self) -> tuple[str, ...]:
        i = self.interval
        return (self.task, self.metric, f"{i.mean:.4f}", f"{i.low:.4f} … {i.high:.4f}", str(self.n))


@dataclass(frozen=True)
class ContestRow:
    """One line of a table of any number of models. against: the first model compared with this one, None for the first;
    p_corrected: Holm's, None for metrics that were not declared beforehand."""

    task: str
    metric: str
    model: str
    interval: Interval
    n: int
    against: Comparison | None = None
    p_corrected: float | None = None

    def cells(self) -> tuple[str, ...]:
        c, p = self.against, self.p_corrected
        change = ("", "", "", str(self.n), "")
        if c is not None:
            shown = "" if p is None else "< .001" if p < 0.001 else f"{p:.3f}"
            counts = f"{c.wins}/{c.ties}/{c.losses}"
            change = (f"{c.change:+.4f}", f"{c.low:+.4f} … {c.high:+.4f}", shown, str(c.n), counts)
        return (self.task, self.metric, self.model, f"{self.interval.mean:.4f}", *change)


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
            rows.append(ContestRow(task, metric, first, intervals[first][metric], len(values)))
            for label, results in others:
                theirs = results[task].values[metric]
                tested = declared is None or metric in declared
                against = compare(values, theirs, seed=seed) if tested else None
                rows.append(ContestRow(task, metric, label, intervals[label][metric], len(theirs), against))
    corrected = holm({n: row.against.p for n, row in enumerate(rows) if row.against is not None})
    return [replace(row, p_corrected=corrected.get(n)) for n, row in enumerate(rows)]


def _columns(result: TaskResult, names: Sequence[str]) -> np.ndarray:
    return np.stack([result.values[name] for name in names], axis=1)


def comparison_rows(base: Mapping[str, TaskResult], tuned: Mapping[str, TaskResult], *, seed: int = 0) -> list[Row]:
    """Every metric of every task for two models. Raises ValueError unless both answered the same tasks and queries."""
    _check_comparable(base, tuned)
    found = {}
    for name in base:
        for metric in base[name].values:
            found[name, metric] = compare(base[name].values[metric], tuned[name].values[metric], seed=seed)
    corrected = holm({key: comparison.p for key, comparison in found.items()})
    return [Row(task, metric, comparison, corrected[task, metric]) for (task, metric), comparison in found.items()]


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
        SingleRow(name, metric, bootstrap(values, seed=seed), len(values))
        for name, result in results.items()
        for metric, values in result.values.items()
    ]


def as_text(rows: Sequence[AnyRow]) -> str:
    """A table for a terminal, a blank line between tasks."""
    lines = aligned(*_table(rows), words=_words(rows)).split("\n")
    spaced = lines[:2]
    for number, (row, line) in enumerate(zip(rows, lines[2:], strict=True)):
        spaced += ["", line] if number and row.task != rows[number - 1].task else [line]
    return "\n".join(spaced)


def aligned(header: Sequence[str], body: Sequence[Sequence[str]], *, words: int) -> str:
    """Columns of equal width: the first `words` of them to the left, figures to the right.

    >>> print(aligned(["metric", "n"], [["map", "20"]], words=1))
    metric   n
    ------  --
    map     20
    """
    widths = [max(len(line[column]) for line in [header, *body]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        sized = enumerate(zip(cells, widths, strict=True))
        return "  ".join(cell.ljust(w) if column < words else cell.rjust(w) for column, (cell, w) in sized).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, body)])


def as_markdown(rows: Sequence[AnyRow]) -> str:
    return markdown_table(*_table(rows), words=_words(rows))


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]], *, words: int) -> str:
    """A table in Markdown: the first `words` columns to the left, figures to the right."""
    rule = ["---" if column < words else "---:" for column in range(len(header))]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in [header, rule, *body]
    )


def as_csv(rows: Sequence[AnyRow]) -> str:
    """Full precision, one row a metric."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    records = [as_record(row) for row in rows]
    if records:
        writer.writerow(records[0])
        writer.writerows(record.values() for record in records)
    return out.getvalue()


def as_record(row: AnyRow) -> dict[str, Any]:
    """A row as plain values, for CSV and JSON."""
    if isinstance(row, ContestRow):
        i, c = row.interval, row.against
        found = {"task": row.task, "metric": row.metric, "model": row.model, "value": i.mean, "low": i.low,
                 "high": i.high, "n": row.n}  # fmt: skip
        names = {"change": "change", "change_low": "low", "change_high": "high", "p": "p", "better": "wins",
                 "same": "ties", "worse": "losses"}  # fmt: skip
        found |= {key: None if c is None else getattr(c, name) for key, name in names.items()}
        return found | {"p_holm": row.p_corrected}
    if isinstance(row, SingleRow):
        i = row.interval
        return {"task": row.task, "metric": row.metric, "value": i.mean, "low": i.low, "high": i.high, "n": row.n}
    c = row.comparison
    # fmt: off
    return {"task": row.task, "metric": row.metric, "base": c.before, "tuned": c.after, "change": c.change,
            "low": c.low, "high": c.high, "p": c.p, "p_holm": row.p_corrected, "n": c.n,
            "better": c.wins, "same": c.ties, "worse": c.losses}
    # fmt: on


def metrics_dict(models: Mapping[str, Mapping[str, TaskResult]]) -> dict[str, dict[str, dict[str, float]]]:
    """{model: {task: {metric: mean}}}, the content of a run folder's metrics.json."""
    return {model: {name: result.means for name, result in results.items()} for model, results in models.items()}


def write_metrics(path: str | Path, models: Mapping[str, Mapping[str, TaskResult]]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics_dict(models), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def audit_lines(results: Iterable[TaskResult]) -> list[str]:
    """What the reader of the table has to know about its tasks, one sentence each."""
    return [line for result in results if result.audit is not None for line in result.audit.lines]


def _table(rows: Sequence[AnyRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    headers = {SingleRow: SINGLE_HEADER, ContestRow: CONTEST_HEADER}
    return headers.get(type(rows[0]), HEADER) if rows else HEADER, [row.cells() for row in rows]


def _words(rows: Sequence[AnyRow]) -> int:
    """How many of the columns hold words."""
    return 3 if rows and isinstance(rows[0], ContestRow) else 2
