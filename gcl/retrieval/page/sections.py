"""The parts of the page that are plain HTML: the finding, tables, groups of queries, explanations, facts.

They read without JavaScript; the script makes the tables' headers buttons that sort.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gcl.retrieval.analysis.slices import lacking, slices, word_counts
from gcl.retrieval.analysis.verdict import Verdict
from gcl.retrieval.metrics.metrics import explained, spelled
from gcl.retrieval.metrics.statistics import FEWEST as FEW
from gcl.retrieval.metrics.statistics import Comparison
from gcl.retrieval.page.contest import Entry
from gcl.retrieval.page.markup import Markup, join, share_bar, tag, untrusted, whisker
from gcl.retrieval.page.words import interval, outcome, signed
from gcl.retrieval.report import Row, SingleRow, p_text
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.schema import Modality, fields_of
from gcl.table import Table


def head(
    entry: Entry, comparison: Comparison, metric: str, label: str, base: str, *, verdict: Verdict
) -> Markup:  # fmt: skip
    """The verdict, and the finding of the first task: in words, a bar and three figures."""
    c = comparison
    firm = "too few for a firm answer" if c.n < FEW else "measured with both models"
    return tag(
        "div",
        tag("p", untrusted(f"{verdict.sentence}."), class_="verdict"),
        tag("p", untrusted(entry.title, "b"), f": {entry.description}" if entry.description else None, class_="kicker"),
        tag("p", outcome(c), class_="outcome"),
        share_bar(c.wins, c.ties, c.losses),
        tag(
            "ul",
            tag("li", tag("b", f"▲ {c.wins:,}"), " better", class_="better"),
            tag("li", tag("b", f"= {c.ties:,}"), " the same", class_="same"),
            tag("li", tag("b", f"▼ {c.losses:,}"), " worse", class_="worse"),
            class_="shares",
        ),
        tag(
            "dl",
            _figure(spelled(metric), join(f"{c.before:.3f} → ", tag("b", f"{c.after:.3f}")), f"{base} → {label}"),
            _figure("Change", tag("b", signed(c.change)), f"95 % interval {interval(c.low, c.high)}"),
            _figure("Searches", tag("b", f"{c.n:,}"), firm),
            class_="figures",
        ),
        class_="finding",
    )


def _figure(name: str, value: Markup, note: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value, tag("small", note)))


def metric_notes(metrics: Iterable[str]) -> Markup:
    return tag("ul", *(tag("li", explained(metric)) for metric in metrics), class_="notes")


def facts_list(facts: Mapping[str, Any]) -> Markup:
    """Name and value; a mapping inside is written out, name by name."""
    return tag("dl", *_facts(facts), class_="facts")


def _facts(facts: Mapping[str, Any], prefix: str = "") -> list[Markup]:
    entries = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            entries += _facts(value, f"{prefix}{name}: ")
            continue
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else "–" if value is None else str(value)
        entries.append(tag("div", untrusted(f"{prefix}{name}".replace("_", " "), "dt"), untrusted(text, "dd")))
    return entries


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
    """One task's queries in groups. Raises ValueError for a column without one value per query."""
    before, after = entry.values(base, metric), entry.values(label, metric)
    lines = []
    for name, values in columns.items():
        if len(values) != len(before):
            given = f"{len(values)} values for {len(before)} queries"
            raise ValueError(f"Slice {name!r} of task {entry.name!r} has {given}: give one per query.")
        for part in sorted(slices(values, before, after), key=lambda one: _natural(one.value)):
            cells = [tag("th", untrusted(name), scope="row"), tag("td", untrusted(part.value), data_value=part.value)]
            lines.append((cells, part.comparison))
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


Columns = dict[str, list[str]]


def query_slices(task: RetrievalTask) -> Columns:
    """What can be told of any catalog's queries: length, kind, number of relevant products, their missing fields."""
    columns: Columns = {}
    side, rows = task.queries.side, np.arange(len(task.queries))
    texts = fields_of(side, Modality.text)
    if texts:
        columns["Words in the search"] = [_band(n, (1, 2, 3, 4), "none") for n in word_counts(task)]
    if len(side) > 1:
        present = task.queries.present(rows)
        columns["Search given as"] = [" and ".join(np.array(list(side))[row]) or "nothing" for row in present]
    judged = task.judgments
    relevant = judged.relevance > 0
    count = np.bincount(judged.query[relevant], minlength=len(rows))
    columns["Relevant products"] = [_band(int(n), (1, 5, 20), "none") for n in count]
    if (relevant & (judged.document >= 0)).any():
        for name, lacks in lacking(task).items():
            columns[f"Relevant products’ {name}"] = ["missing for some" if value else "always there" for value in lacks]
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def all_slices(task: RetrievalTask, given: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The given columns (built-in ones of `evaluate.slices` by the names they have here), and what else can be told."""
    named = {"query_length": "Words in the search", "head_tail": "Head or tail"}
    mine: dict[str, Sequence[Any]] = {
        named.get(name, f"Relevant products’ {name[8:]}" if name.startswith("missing ") else name): values
        for name, values in given.items()
    }
    return mine | {name: values for name, values in query_slices(task).items() if name not in mine}


def _band(n: int, edges: tuple[int, ...], zero: str) -> str:
    """
    >>> [_band(n, (1, 5, 20), "none") for n in (0, 1, 3, 20, 21)]
    ['none', '1', '2–5', '6–20', '21 or more']
    """
    if n == 0:
        return zero
    low = 1
    for edge in edges:
        if n <= edge:
            return str(edge) if low == edge else f"{low}–{edge}"
        low = edge + 1
    return f"{low} or more"
