"""Tables of the page: tasks, all metrics, groups of searches. The script makes their headers buttons that sort."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gcl.retrieval.metrics.metrics import spelled
from gcl.retrieval.metrics.statistics import Comparison, compare
from gcl.retrieval.page.contest import Entry
from gcl.retrieval.page.figures import share_bar, whisker
from gcl.retrieval.page.markup import Markup, join, tag, untrusted
from gcl.retrieval.page.words import FEW, interval, signed
from gcl.retrieval.report import Row, SingleRow, p_text
from gcl.table import Table

_SLICE_SAMPLES = 2000


def results_table(entries: Sequence[Entry], rows: Sequence[Row], metric: str, label: str, base: str) -> Markup:
    """One metric of every task, base against one model."""
    chosen = {row.task: row for row in rows if row.metric == metric}
    lines = [([_task_cell(entry)], chosen[entry.key].comparison) for entry in entries]
    caption = f"{spelled(metric)} by task, {base} against {label}, with the interval of the change"
    return _comparison_table(caption, ["Task"], lines, [base, label])


def all_metrics_table(entries: Sequence[Entry], rows: Sequence[Row], label: str, base: str) -> Markup:
    titles = {entry.key: entry.title for entry in entries}
    header = ["Task", "Metric", base, label, "Change", "95 % interval", "p (Holm)", "Searches"]
    body = []
    for row in rows:
        c = row.comparison
        body.append([
            tag("th", untrusted(titles[row.task]), scope="row"),
            tag("td", spelled(row.metric)),
            _number(c.before),
            _number(c.after),
            _number(c.change, signed(c.change)),
            _number(c.low, interval(c.low, c.high)),
            _number(row.p_corrected, p_text(row.p_corrected)),
            _number(c.n, f"{c.n:,}"),
        ])  # fmt: skip
    caption = f"All metrics, {base} against {label}; p is corrected for the number of rows (Holm)"
    return table(caption, header, body, labels=2)


def single_table(entries: Sequence[Entry], rows: Sequence[SingleRow], label: str) -> Markup:
    titles = {entry.key: entry.title for entry in entries}
    body = [
        [
            tag("th", untrusted(titles[row.task]), scope="row"),
            tag("td", spelled(row.metric)),
            _number(row.interval.mean),
            _number(row.interval.low, f"{row.interval.low:.3f} to {row.interval.high:.3f}"),
            tag("td", _few(row.n), " ", f"{row.n:,}", class_="number", data_value=row.n),
        ]
        for row in rows
    ]
    return table(f"What {label} reaches", ["Task", "Metric", "Value", "95 % interval", "Searches"], body, labels=2)


def slices_table(
    entry: Entry, columns: Mapping[str, Sequence[Any]], metric: str, label: str, base: str
) -> Markup | None:
    """One task's queries in groups. Raises ValueError for a column that has not one value a query."""
    before, after = entry.values(base, metric), entry.values(label, metric)
    lines = []
    for name, values in columns.items():
        if len(values) != len(before):
            given = f"{len(values)} values for {len(before)} queries"
            raise ValueError(f"Slice {name!r} of task {entry.name!r} has {given}: give one a query.")
        groups: dict[str, list[int]] = {}
        for position, value in enumerate(values):
            groups.setdefault(str(value), []).append(position)
        for value in sorted(groups, key=_natural):
            rows = np.array(groups[value])
            cells = [tag("th", untrusted(name), scope="row"), tag("td", untrusted(value), data_value=value)]
            lines.append((cells, compare(before[rows], after[rows], samples=_SLICE_SAMPLES)))
    if not lines:
        return None
    caption = f"{entry.title}: {spelled(metric)} by group, {base} against {label}"
    return _comparison_table(caption, ["Group", "Value"], lines, [base, label])


def _comparison_table(
    caption: str, labels: list[str], lines: list[tuple[list[Markup], Comparison]], models: list[str]
) -> Markup:
    ends = [abs(end) for _, c in lines if c.n >= FEW for end in (c.low, c.high)]
    limit = max([*ends, *(abs(c.change) for _, c in lines)]) or 1.0
    header = [*labels, "Searches", *models, "Change", "95 % interval", "Better / same / worse"]
    body = [[*cells, *_comparison_cells(c, limit)] for cells, c in lines]
    return table(caption, header, body, labels=len(labels))


def _comparison_cells(c: Comparison, limit: float) -> list[Markup]:
    kind, arrow = "same", None
    if c.n >= FEW and c.low > 0:
        kind, arrow = "better", "▲ "
    elif c.n >= FEW and c.high < 0:
        kind, arrow = "worse", "▼ "
    drawn = join(whisker(c.change, c.low, c.high, limit, kind=kind), tag("span", interval(c.low, c.high)))
    counts = join(share_bar(c.wins, c.ties, c.losses), tag("span", f"{c.wins:,} / {c.ties:,} / {c.losses:,}"))
    return [
        tag("td", _few(c.n), " ", f"{c.n:,}", class_="number", data_value=c.n),
        _number(c.before),
        _number(c.after),
        tag("td", arrow, signed(c.change), class_=f"number {kind}", data_value=f"{c.change:.6f}"),
        tag("td", drawn, class_="number reach", data_value=f"{c.low:.6f}"),
        tag("td", counts, class_="number counts", data_value=f"{c.wins / c.n:.6f}"),
    ]


def extra_tables(tables: Sequence[Table]) -> Markup | None:
    """Tables that are ready but for their headers' capitals."""
    return join(*(Markup(table.renamed(str.capitalize).html()) for table in tables)) if tables else None


def table(caption: str, header: Sequence[str], body: Sequence[Sequence[Markup]], *, labels: int) -> Markup:
    """Ready cells under a caption; columns after the first `labels` hold figures."""
    return Markup(Table(header, body, title=caption, align="l" * labels).html())


def _task_cell(entry: Entry) -> Markup:
    note = tag("small", entry.description) if entry.description else None
    return tag("th", untrusted(entry.title), note, scope="row", data_value=entry.title)


def _number(value: float, text: str | None = None) -> Markup:
    return tag("td", f"{value:.3f}" if text is None else text, class_="number", data_value=f"{value:.6f}")


def _few(n: int) -> Markup | None:
    hint = f"Fewer than {FEW} searches: take it as a hint"
    return tag("span", "too few", class_="few", title=hint) if n < FEW else None


def _natural(value: str) -> list[tuple[int, float, str]]:
    """Sorts 2 before 10, and numbers before words."""
    parts = re.findall(r"\d+|\D+", value)
    return [(0, float(part), "") if part.isdecimal() else (1, 0.0, part.casefold()) for part in parts]
